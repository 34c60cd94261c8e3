"""Finds rows of features that break the contract: with NaN or infinite values, or all zero."""

from typing import Any

import numpy as np

# Type -> unsigned integers of its size, all bits but the sign, and the smallest number with NaN or infinity as its
# bits: the exponent's bits are all 1 (IEEE 754).
BITS: dict[np.dtype, tuple[Any, int, int]] = {
    np.dtype("<f2"): (np.uint16, 0x7FFF, 0x7C00),
    np.dtype("<f4"): (np.uint32, 0x7FFFFFFF, 0x7F800000),
}
PIECE_BYTES = 1 << 18  # what is computed on at once, so that it stays in the processor's cache


def find_bad_rows(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which rows of features (rows, width), float16 or float32, hold NaN or infinity, and which are all zero.

    Two bool arrays (rows,). Rows without values, of width 0, are neither.
    (numpy's own `isfinite` and `any` take ten times as long on float16.)
    """
    unsigned, all_but_sign, infinity = BITS[values.dtype]
    bits = values.view(unsigned)  # without the sign, the order of the bits as numbers is that of the absolute values
    largest = np.zeros(len(bits), unsigned)
    step = max(1, PIECE_BYTES // max(1, bits[:1].nbytes))
    piece = np.empty((min(step, len(bits)), *bits.shape[1:]), unsigned)
    for start in range(0, len(bits), step):
        part = bits[start : start + step]
        np.bitwise_and(part, unsigned(all_but_sign), out=piece[: len(part)])
        np.max(piece[: len(part)], axis=1, initial=0, out=largest[start : start + step])
    return largest >= infinity, (largest == 0) & (values.shape[1] > 0)
