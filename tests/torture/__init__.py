"""Runs that try to lose a video or to let damage in: `make torture`."""
