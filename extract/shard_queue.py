"""Collects finished rows and writes them as shards, in parallel with the work that makes them."""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from haechi.cache.errors import HaechiError
from haechi.cache.progress import SILENT, Progress
from haechi.cache.reader import Cache
from haechi.cache.schema import FORMAT_VERSION, Failure, Item, Provenance
from haechi.cache.slices import Pin
from haechi.cache.writer import shard_path, write_shard
from haechi.extract.settings import ExtractSettings
from haechi.extract.timing import WRITE, Stopwatch


class WriteError(HaechiError):
    """A shard cannot be written: the disk is full, failing, disconnected or read-only."""


class ShardQueue:
    """Collects finished rows; writes a shard when enough are ready, or after `shard_minutes`. A context manager.

    Rows are written in the manifest's order. Only rows that wait longer than `shard_minutes` for an earlier unfinished
    row are written before it. One shard is written at a time, in a thread.
    """

    def __init__(
        self,
        out: Path,
        first_number: int,
        num_rows: int,
        settings: ExtractSettings,
        provenance: Provenance,
        progress: Progress = SILENT,
        *,
        version: int = FORMAT_VERSION,
    ) -> None:
        """`first_number`: of the first shard to write; `num_rows`: how many rows will be added in total; `version`: the
        format version of the shards."""
        self._out, self._provenance, self._progress, self._version = out, provenance, progress, version
        self._number, self._num_rows = first_number, num_rows
        self._shard_size, self._shard_seconds = settings.shard_size, settings.shard_minutes * 60
        self._ahead: dict[int, Item | Failure] = {}  # finished, while an earlier row is not
        self._next = 0  # the first row that is not finished
        self._overtook: set[int] = set()  # rows after it that were written already
        self._ready: list[Item | Failure] = []
        self._written_seconds = time.monotonic()
        self._thread = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None
        self._watch = Stopwatch()
        self.num_written = 0
        """Rows of this run that are in the cache."""

    def __enter__(self) -> "ShardQueue":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._thread.shutdown()

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds that writing took, under the name of that step."""
        return {WRITE: self._watch.seconds[WRITE]}

    def add(self, index: int, row: Item | Failure) -> None:
        """Take the finished row of an entry. Raises `WriteError` if an earlier shard could not be written."""
        self._ahead[index] = row
        self._progress.advance(failed=isinstance(row, Failure))
        while self._next in self._ahead or self._next in self._overtook:
            if self._next in self._ahead:
                self._ready.append(self._ahead.pop(self._next))
            self._overtook.discard(self._next)
            self._next += 1
        while len(self._ready) >= self._shard_size or (self._ready and self._next == self._num_rows):
            self._write()
        self.write_if_due()

    def write_if_due(self) -> None:
        """Write all finished rows if the last shard is older than `shard_minutes`. Raises as `add` does."""
        if time.monotonic() - self._written_seconds > self._shard_seconds:
            self._write_all()

    def finish(self) -> None:
        """Write all finished rows and return when they are on disk.

        Raises `WriteError` if a shard could not be written; no later shard is written then.
        """
        self._write_all()
        self._wait()

    def _write_all(self) -> None:
        self._ready += [self._ahead[index] for index in sorted(self._ahead)]
        self._overtook |= self._ahead.keys()
        self._ahead.clear()
        while self._ready:
            self._write()

    def _write(self) -> None:
        self._wait()
        rows, self._ready = self._ready[: self._shard_size], self._ready[self._shard_size :]
        path = shard_path(self._out, self._number)
        self._number += 1
        self._written_seconds = time.monotonic()
        self._writing = self._thread.submit(self._write_now, path, rows)

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.result()

    def _write_now(self, path: Path, rows: list[Item | Failure]) -> None:
        with self._watch.time(WRITE):
            items = [row for row in rows if isinstance(row, Item)]
            failures = [row for row in rows if isinstance(row, Failure)]
            try:
                write_shard(path, items, failures, self._provenance, version=self._version)
            except OSError as error:
                raise WriteError(
                    f"{path}: cannot be written ({error.strerror or error}); {self.num_written} of {self._num_rows} "
                    "rows of this run are safe in the cache; run the same command again when the disk can be written"
                ) from error
        self.num_written += len(rows)


def version_of(cache: Cache | None) -> int:
    """The format version of the next shard: that of the last one, so that what reads the cache goes on reading it."""
    return FORMAT_VERSION if cache is None else cache.shards[-1].version


def next_number(cache: Cache | None) -> int:
    """The number of the next shard, after those of all slices.

    Raises `HaechiError` if no `shard-00000.h5` name sorts after the last one.
    """
    if cache is None:
        return 0
    last = cache.shards[-1].path
    number = last.stem.removeprefix("shard-").partition("-")[0]  # shards of slices have a second number
    pin = Pin.read(cache.path)
    num_slices = 0 if pin is None else pin.num_slices
    following = max(num_slices, int(number) + 1 if number.isdecimal() else 0)
    if not shard_path(cache.path, following).name > last.name:
        raise HaechiError(f"{last}: no name like shard-00000.h5 sorts after it; extract into a new folder")
    return following
