"""Finds what is wrong with a cache, and repairs it."""
