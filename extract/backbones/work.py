"""Frames and windows to compute, and those that wait until there are enough of them to be computed at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from haechi.extract.backbones.repeats import Row

if TYPE_CHECKING:
    import torch

# After this many batches, what waits is filled up with copies and computed: pieces are returned in order, and those
# that come later wait too. Our choice: seven of eight stills are saved, and a run is never far behind its decoder.
MOST_BATCHES = 8


@dataclass(frozen=True, kw_only=True)
class Work:
    """Frames or windows of one stream to compute."""

    frames: "torch.Tensor"
    """(n, ...)"""
    rows: list[Row]
    """The n rows of features."""

    def take(self, positions: Sequence[int]) -> "Work":
        """A copy of some of them."""
        return Work(frames=self.frames[list(positions)], rows=[self.rows[position] for position in positions])

    def joined(self, other: "Work") -> "Work":
        """These, and then those of `other`."""
        import torch  # not on top: a run with nothing to do does not load it

        return Work(frames=torch.cat([self.frames, other.frames]), rows=self.rows + other.rows)

    def filled_up(self, number: int) -> "Work":
        """These with copies of the last one, up to a multiple of `number`."""
        count = len(self.rows)
        return self.take([*range(count), *[count - 1] * (-count % number)])


class Waiting:
    """What waits, by stream and by how many are computed at once."""

    def __init__(self) -> None:
        self._work: dict[tuple[str, int], tuple[int, Work]] = {}  # with the number of the batch in which it came
        self._num_batches = 0

    def has(self, stream: str) -> bool:
        """Whether anything of a stream waits."""
        return any(waiting == stream for waiting, _ in self._work)

    def merge(self, stream: str, at_once: int, work: Work) -> Work:
        """What waited and `work`: a multiple of `at_once` is returned, and the rest waits."""
        since, waited = self._work.pop((stream, at_once), (self._num_batches, None))
        every = work if waited is None else waited.joined(work)
        num_now = len(every.rows) - len(every.rows) % at_once
        if num_now < len(every.rows):
            # Of what waited, something is left only if there was not enough of it.
            self._work[stream, at_once] = (
                since if not num_now else self._num_batches,
                every.take(range(num_now, len(every.rows))),
            )
        return every.take(range(num_now))

    def next_batch(self) -> list[tuple[str, Work]]:
        """Count a batch. Returns what has waited for too many of them, filled up, with its stream."""
        self._num_batches += 1
        return self._pop([key for key, (since, _) in self._work.items() if self._num_batches - since >= MOST_BATCHES])

    def drain(self) -> list[tuple[str, Work]]:
        """All that waits, filled up, with its stream."""
        return self._pop(list(self._work))

    def _pop(self, keys: Sequence[tuple[str, int]]) -> list[tuple[str, Work]]:
        return [(stream, self._work.pop((stream, at_once))[1].filled_up(at_once)) for stream, at_once in keys]
