"""Frames that show their own number, so that a frame at a wrong place is seen."""

import numpy as np

SIDE, NUM_BITS = 256, 8


def bar_code(number: int, *, side: int = SIDE) -> np.ndarray:
    """A frame (side, side, 3) uint8 with one stripe for each bit of the number, the lowest at the left."""
    bits = [(number >> bit) & 1 for bit in range(NUM_BITS)]
    stripe = np.repeat(np.array(bits, np.uint8) * 200 + 28, side // NUM_BITS)
    return np.broadcast_to(stripe[None, :, None], (side, side, 3)).copy()


def number_of(frame: np.ndarray) -> int:
    """The number that a frame shows."""
    levels = frame[:, :, 1].mean(axis=0).reshape(NUM_BITS, -1).mean(axis=1)
    return sum(int(level > 128) << bit for bit, level in enumerate(levels))
