"""Stress tests: they try to lose a video or to get damaged data into a cache (`make torture`)."""
