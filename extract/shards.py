"""Finished rows to shards, in the manifest's order, written beside the work that makes them."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from cache.errors import HaechiError
from cache.reader import Cache
from cache.schema import Failure, Item, Provenance
from cache.writer import shard_path, write_shard
from extract.manifest import Entry
from extract.steps import WRITE, Stopwatch


class Shards:
    """Collects finished rows; writes each shard when its last row is in. A context manager.

    One shard is written at a time, in a thread: rows of at most two shards wait in memory, and those that finished
    before an earlier one.
    """

    def __init__(
        self,
        out: Path,
        first_number: int,
        num_rows: int,
        shard_size: int,
        provenance: Provenance,
        on_video: Callable[[Entry, str | None], None],
    ) -> None:
        self._out, self._provenance, self._on_video = out, provenance, on_video
        self._number, self._num_rows, self._shard_size = first_number, num_rows, shard_size
        self._rows: dict[int, Item | Failure] = {}
        self._start = self._end = 0  # rows from start to end are finished and in no shard yet
        self._thread = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None
        self._watch = Stopwatch()
        self.num_written = 0
        """Rows of this run that are in the cache."""

    def __enter__(self) -> "Shards":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._thread.shutdown()

    @property
    def seconds(self) -> dict[str, float]:
        """Of writing."""
        return {WRITE: self._watch.seconds[WRITE]}

    def add(self, index: int, entry: Entry, row: Item | Failure) -> None:
        """Take a finished row. Raises `OSError` where an earlier shard could not be written."""
        self._rows[index] = row
        self._on_video(entry, row.reason if isinstance(row, Failure) else None)
        while self._end in self._rows:
            self._end += 1
            if self._end - self._start == self._shard_size or self._end == self._num_rows:
                self._write()

    def finish(self) -> None:
        """Write the rows that are finished and have no unfinished one before them; return when all is on disk.

        Raises `OSError` where a shard could not be written; no later one is.
        """
        if self._end > self._start:
            self._write()
        self._wait()

    def _write(self) -> None:
        self._wait()
        rows = [self._rows.pop(i) for i in range(self._start, self._end)]
        path = shard_path(self._out, self._number)
        self._start, self._number = self._end, self._number + 1
        self._writing = self._thread.submit(self._write_now, path, rows)

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.result()

    def _write_now(self, path: Path, rows: list[Item | Failure]) -> None:
        with self._watch.time(WRITE):
            items = [row for row in rows if isinstance(row, Item)]
            failures = [row for row in rows if isinstance(row, Failure)]
            write_shard(path, items, failures, self._provenance)
        self.num_written += len(rows)


def next_number(cache: Cache | None) -> int:
    """The number of the shard that comes after all that `cache` holds. Raises `HaechiError` where no name does."""
    if cache is None:
        return 0
    last = cache.shards[-1].path
    number = last.stem.removeprefix("shard-")
    following = int(number) + 1 if number.isdecimal() else 0
    if not shard_path(cache.path, following).name > last.name:
        raise HaechiError(f"{last}: no name of the form shard-00000.h5 comes after it; extract into a new folder")
    return following
