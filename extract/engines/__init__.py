"""Slices on many devices: workers do them, one coordinator hands them out."""
