"""Takes a decoder's frames in the process of the test."""

from collections.abc import Sequence

import numpy as np

from haechi.extract.decoding.shared_frames import Output


class Kept:
    """A sink that keeps everything that is published."""

    waited_seconds = 0.0

    def __init__(self, *outputs: Output) -> None:
        self.outputs = outputs
        self.published: list[list[np.ndarray]] = []
        """For each call of `publish`: one array for each output, with the published frames."""

    def free_arrays(self) -> list[np.ndarray]:
        self._arrays = [np.zeros(output.shape, output.transform.dtype) for output in self.outputs]
        return self._arrays

    def publish(self, counts: Sequence[int]) -> None:
        self.published.append([array[:count] for array, count in zip(self._arrays, counts, strict=True)])

    def frames(self, output: int = 0) -> np.ndarray:
        """All frames of an output, one after another: (frames, side, side, 3)."""
        return np.concatenate([arrays[output] for arrays in self.published])
