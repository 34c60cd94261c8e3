"""What an engine is: workers that do slices, and the messages between them and the coordinator."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from haechi.cache.slices import Slice
from haechi.cache.stores.location import Location
from haechi.extract.manifest import Entry
from haechi.extract.pipeline import Extraction
from haechi.extract.settings import ExtractSettings


@dataclass(frozen=True, kw_only=True)
class Job:
    """What all slices of a run have in common."""

    out: Path | Location
    """The folder of the cache, or its place in a store."""
    settings: ExtractSettings
    producer: str
    retry: tuple[str, ...]
    num_manifest_rows: int
    work: Path | None = None
    """For a cache in a store: as for `haechi.extract.upload.extract_to_store`."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A slice that a worker has to do."""

    part: Slice
    entries: tuple[Entry, ...]
    """Its rows."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """How far a worker is with its slice."""

    number: int
    """Of the slice."""
    num_rows: int | None
    """Rows that this worker extracts; the others were finished before. None: it has not begun to decode."""
    num_done: int
    """Of these rows."""
    num_failed: int
    num_windows: int
    """Since the last report."""
    notices: tuple[str, ...]
    """Since the last report."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The slice is committed."""

    done: Extraction


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """The worker stopped because it was asked to; its finished rows are in the slice's work folder."""


@dataclass(frozen=True, kw_only=True)
class Refused:
    """An error for the user, which another worker would meet too: it ends the run."""

    kind: type[Exception]
    text: str


@dataclass(frozen=True, kw_only=True)
class Died:
    """The worker ended, and its slice is not finished."""

    why: str


@dataclass(frozen=True, kw_only=True)
class Notice:
    """A sentence for the user."""

    text: str


Event = Notice | Report | Finished | Stopped | Refused | Died


class Engine(Protocol):
    """Workers. A context manager: when it is left, no worker works any more."""

    @property
    def name(self) -> str:
        """In the progress display, such as `2 devices`; known when the context is entered."""

    @property
    def workers(self) -> Sequence[str]:
        """The name of each worker's device, such as `cuda:1`; on a cluster it changes with the node."""

    @property
    def does_copies(self) -> bool:
        """Whether a worker without work takes a second copy of a slice that another one still works on."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def start(self, worker: int, job: Job) -> None:
        """Start a worker, or start it again after it died."""

    def give(self, worker: int, task: Task) -> None:
        """Hand a slice to a worker that has none."""

    def stop(self, worker: int) -> None:
        """Ask a worker to stop: videos that were begun are finished. Not an error if it died meanwhile."""

    def kill(self, worker: int) -> None:
        """End a worker at once. Not an error if it died meanwhile."""

    def events(self, seconds: float) -> list[tuple[int, Event]]:
        """What the workers report; waits for it up to `seconds`."""
