"""Measures the real code against plain ways of doing the same and against its own limits. Nothing imports it."""
