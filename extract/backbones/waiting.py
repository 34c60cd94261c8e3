"""Frames and windows that wait until there are enough of them to be computed at once."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from haechi.extract.backbones.repeats import Row

if TYPE_CHECKING:
    import torch

# After this many batches, what waits is filled up with copies and computed: pieces are returned in order, and those
# that come later wait too. Our choice: seven of eight stills are saved, and a run is never far behind its decoder.
MOST_BATCHES = 8

Task = tuple["torch.Tensor", Row]
"""A frame or window, and its row of features to be computed."""


class Waiting:
    """What waits, by stream and by how many are computed at once."""

    def __init__(self) -> None:
        self._tasks: dict[tuple[str, int], tuple[int, list[Task]]] = {}  # with the number of the batch in which it came
        self._num_batches = 0

    def merge(self, stream: str, at_once: int, new: list[Task]) -> list[Task]:
        """What waited and `new`: a multiple of `at_once` is returned, and copies of the rest wait."""
        since, waited = self._tasks.pop((stream, at_once), (self._num_batches, []))
        tasks = waited + new
        num_now = len(tasks) - len(tasks) % at_once
        if num_now < len(tasks):
            # Of what waited, something is left only if there was not enough of it.
            left = [(frame.clone(), row) for frame, row in tasks[num_now:]]
            self._tasks[stream, at_once] = self._num_batches if num_now else since, left
        return tasks[:num_now]

    def next_batch(self) -> list[tuple[str, list[Task]]]:
        """Count a batch. Returns what has waited for too many of them, filled up, with its stream."""
        self._num_batches += 1
        return self._pop([key for key, (since, _) in self._tasks.items() if self._num_batches - since >= MOST_BATCHES])

    def drain(self) -> list[tuple[str, list[Task]]]:
        """All that waits, filled up, with its stream."""
        return self._pop(list(self._tasks))

    def _pop(self, keys: Sequence[tuple[str, int]]) -> list[tuple[str, list[Task]]]:
        """With copies of the last frame of each stream and number, so that there are enough."""
        popped = [(stream, at_once, self._tasks.pop((stream, at_once))[1]) for stream, at_once in keys]
        return [(stream, tasks + tasks[-1:] * (at_once - len(tasks))) for stream, at_once, tasks in popped]
