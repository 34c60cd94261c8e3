"""What hands files to the decoders: those on this machine at once, others when their copies are there."""

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from haechi.cache.file_state import FileState
from haechi.extract.decoding.reasons import Reason


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """A video that cannot be used, and why."""

    reason: Reason
    message: str
    state: FileState
    """State of the file before it was decoded, so that a later run can see whether it changed."""


@dataclass(frozen=True, kw_only=True)
class Supplied:
    """A file that can be decoded now."""

    path: Path
    state: FileState
    """Its state; of a copy, the state of the original."""
    sha256: str = ""
    """Of a copy: the hash of its bytes, computed when they were fetched."""


class Supply(Protocol):
    """The files of a run, by index."""

    @property
    def oldest(self) -> int | None:
        """The first index that was not taken yet; None: all were."""

    def take(self, *, below: int) -> tuple[int, Supplied | Rejected] | None:
        """The next file that is there, if its index is below a number; None: wait for `arrivals`, or for a decoder."""

    def put_back(self, index: int) -> None:
        """Take a file back whose decoder was killed: it is handed out again, as one of the first."""

    def done(self, index: int) -> None:
        """A file was decoded; a copy is deleted."""

    @property
    def arrivals(self) -> list[Future[None]]:
        """Done when a file has arrived since `take` returned None; none if nothing arrives by itself."""


class LocalFiles:
    """Files on this machine, in order."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths, self._waiting = paths, deque(range(len(paths)))

    @property
    def oldest(self) -> int | None:
        return self._waiting[0] if self._waiting else None

    def take(self, *, below: int) -> tuple[int, Supplied | Rejected] | None:
        if not self._waiting or self._waiting[0] >= below:
            return None
        index = self._waiting.popleft()
        return index, Supplied(path=self._paths[index], state=FileState.of(self._paths[index]))

    def put_back(self, index: int) -> None:
        self._waiting.appendleft(index)

    def done(self, index: int) -> None:
        pass

    @property
    def arrivals(self) -> list[Future[None]]:
        return []
