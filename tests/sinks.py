"""A sink for decoded frames inside the test process."""

from collections.abc import Sequence

import numpy as np

from haechi.extract.decoding.shared_frames import Output


class Kept:
    """A sink that keeps a copy of everything it receives."""

    waited_seconds = 0.0

    def __init__(self, *outputs: Output) -> None:
        self.outputs = outputs
        self.pieces: list[list[np.ndarray]] = []
        """For each call of `publish`, one array per output: (frames, side, side, 3)."""

    def room(self) -> list[np.ndarray]:
        self._arrays = [np.zeros(output.shape, output.transform.dtype) for output in self.outputs]
        return self._arrays

    def publish(self, counts: Sequence[int]) -> None:
        self.pieces.append([array[:count] for array, count in zip(self._arrays, counts, strict=True)])

    def frames(self, output: int = 0) -> np.ndarray:
        """All frames of one output: (frames, side, side, 3)."""
        return np.concatenate([piece[output] for piece in self.pieces])
