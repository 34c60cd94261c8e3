"""The head and how it is fitted."""
