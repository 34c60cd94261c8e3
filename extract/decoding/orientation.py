"""How decoded frames are turned and mirrored until they are upright, from a video's display matrix."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Orientation:
    """One of the eight ways in which a rectangle can lie: first the axes are exchanged, then they are mirrored."""

    is_transposed: bool = False
    is_mirrored_x: bool = False
    """Left and right are exchanged."""
    is_mirrored_y: bool = False
    """Top and bottom are exchanged."""

    @classmethod
    def of_matrix(cls, matrix: Sequence[int]) -> "Orientation":
        """The nearest orientation to a display matrix: 9 integers (a b u, c d v, x y w) of FFmpeg's display.h.

        A pixel at (p, q) is shown at (a p + c q, b p + d q). As in FFmpeg, a and c are compared after a scale that they
        share is divided out, and so are b and d; a matrix without a scale turns nothing.
        """
        a, b, c, d = (float(matrix[i]) for i in (0, 1, 3, 4))
        scale_x, scale_y = math.hypot(a, c), math.hypot(b, d)
        if not scale_x or not scale_y:
            return cls()
        a, c, b, d = a / scale_x, c / scale_x, b / scale_y, d / scale_y
        is_transposed = abs(b) + abs(c) > abs(a) + abs(d)
        x, y = (c, b) if is_transposed else (a, d)
        return cls(is_transposed=is_transposed, is_mirrored_x=x < 0, is_mirrored_y=y < 0)

    @property
    def is_rotation(self) -> bool:
        """Whether it is a turn by 0, 90, 180 or 270 degrees, without a mirror."""
        return (self.is_transposed + self.is_mirrored_x + self.is_mirrored_y) % 2 == 0

    def applied(self, pixels: np.ndarray) -> np.ndarray:
        """The frame (H, W, 3) upright; a contiguous array."""
        if self.is_transposed:
            pixels = pixels.swapaxes(0, 1)
        return np.ascontiguousarray(pixels[:: -1 if self.is_mirrored_y else 1, :: -1 if self.is_mirrored_x else 1])


def is_exact(matrix: Sequence[int]) -> bool:
    """Whether a display matrix is one of the eight orientations, with the same scale for both axes."""
    a, b, c, d = (abs(matrix[i]) for i in (0, 1, 3, 4))
    return (a == d != 0 and b == c == 0) or (b == c != 0 and a == d == 0)
