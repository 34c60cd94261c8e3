"""How many threads read shards at once, and how many processes check them."""

import os

MAX_THREADS = 8  # ours: more do not read faster from memory, and each needs a buffer


def num_threads() -> int:
    """One for each processor core that this process may use, up to `MAX_THREADS`."""
    if hasattr(os, "sched_getaffinity"):  # macOS has none
        return min(MAX_THREADS, len(os.sched_getaffinity(0)))
    return min(MAX_THREADS, os.cpu_count() or 1)
