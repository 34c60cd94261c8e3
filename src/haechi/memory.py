"""How the C library gets memory from the system."""

import ctypes
import sys

# Parameters of mallopt(3), as in glibc's malloc.h: how much free memory at the end of the heap is kept, and from which
# size on an array gets memory of its own, which is given back as soon as the array is freed.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3

LARGE_BYTES = 1 << 30  # more than any batch, less than the features of a large cache


def reuse_freed_memory() -> None:
    """Let this process use freed memory again for arrays of up to `LARGE_BYTES`, in place of new memory for each.

    Every page of new memory is a page fault. Without this, a convolutional CLIP spends two thirds of its time in them
    (EfficientNet-Lite0, 64 frames a batch), SlowFast a quarter, and reading a cache shard by shard 40 %. Only glibc can
    do it; with others nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(M_TRIM_THRESHOLD, LARGE_BYTES)
