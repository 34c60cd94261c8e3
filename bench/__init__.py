"""Benchmarks of the real code, against plain implementations and against its own limits. No package imports it."""
