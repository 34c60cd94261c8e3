"""Whether a cache is what it should be, and its repair."""
