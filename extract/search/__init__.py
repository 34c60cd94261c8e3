"""Search in a cache by text."""
