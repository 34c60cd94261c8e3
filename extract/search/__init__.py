"""Text search in a cache."""
