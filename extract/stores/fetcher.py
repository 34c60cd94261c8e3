"""Fetches files from stores ahead of the decoders: threads write whole copies into a bounded folder."""

import contextlib
import errno
import hashlib
import heapq
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType

from haechi.cache.errors import HaechiError
from haechi.cache.file_state import MISSING, FileState
from haechi.cache.stores.errors import CHANGED, StoreError, Trouble
from haechi.cache.stores.kinds import open_store
from haechi.cache.stores.location import Location
from haechi.cache.stores.retry import Retry, StoppedError, retried
from haechi.cache.stores.store import Store
from haechi.extract.decoding.reasons import Reason
from haechi.extract.decoding.supply import LocalFiles, Rejected, Supplied, Supply
from haechi.extract.settings import ExtractSettings
from haechi.extract.stores.spool import Spool, open_spool

# A small file takes two requests, and a request easily 0.1 s: this many threads fetch 80 small files in a second.
NUM_THREADS = 16

# How many files may be ahead of the first one that was not taken by a decoder. Less than the pool's MAX_AHEAD, so that
# what is fetched can always be decoded, and the spool cannot stay full.
MAX_AHEAD = 256

# A fetch may take --timeout, and the same for each of these bytes: 80 kB/s are enough.
BYTES_PER_TIMEOUT = 10**7

# How long the end of a run waits for the threads, which look up at each chunk.
CLOSE_SECONDS = 1.0


@contextlib.contextmanager
def supply(files: Sequence[Path | Location], settings: ExtractSettings) -> Iterator[Supply]:
    """What hands these files to a decoding pool. Files on this machine alone need no thread and no spool."""
    if not any(isinstance(file, Location) for file in files):
        yield LocalFiles([file for file in files if isinstance(file, Path)])
        return
    with (
        open_spool(settings.spool, spool_gb=settings.spool_gb) as spool,
        Fetcher(files, spool, timeout_seconds=settings.timeout_seconds) as fetcher,
    ):
        yield fetcher


class Fetcher:
    """A supply of files that may lie in stores. Threads run while this context manager is open."""

    def __init__(self, files: Sequence[Path | Location], spool: Spool, *, timeout_seconds: float) -> None:
        self._files, self._spool, self._timeout_seconds = files, spool, timeout_seconds
        self._changed = threading.Condition()  # guards everything below
        self._next = 0  # the first file that no thread has begun
        self._begun: set[int] = set()
        self._ready: dict[int, Supplied | Rejected] = {}
        self._order: list[int] = []  # heap of the indices in _ready
        self._taken: dict[int, Supplied] = {}
        self._waiting_for_space: list[int] = []
        self._reserved: dict[int, int] = {}  # bytes
        self._arrived: Future[None] = Future()
        self._error: BaseException | None = None
        self._stopped = threading.Event()
        self._stores: dict[str, Store] = {}
        self.most_bytes = 0
        """The most that the spool has held."""

    def __enter__(self) -> "Fetcher":
        number = min(NUM_THREADS, len(self._files))
        # daemons: a thread that waits for a dead connection must not keep a finished program
        self._threads = [threading.Thread(target=self._work, name=f"fetch-{i}", daemon=True) for i in range(number)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopped.set()
        with self._changed:
            self._changed.notify_all()
        until = time.monotonic() + CLOSE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    @property
    def oldest(self) -> int | None:
        with self._changed:
            return self._oldest()

    def _oldest(self) -> int | None:
        rest = [self._next] if self._next < len(self._files) else []
        return min([*self._begun, *self._order[:1], *rest], default=None)

    def take(self, *, below: int) -> tuple[int, Supplied | Rejected] | None:
        """As in `Supply`. Raises the error of a thread, such as `HaechiError` for a full disk."""
        with self._changed:
            if self._error is not None:
                raise self._error
            if not self._order or self._order[0] >= below:
                if self._arrived.done():
                    self._arrived = Future()
                return None
            index = heapq.heappop(self._order)
            file = self._ready.pop(index)
            if isinstance(file, Supplied):
                self._taken[index] = file
            self._changed.notify_all()
        return index, file

    def put_back(self, index: int) -> None:
        with self._changed:
            self._make_ready(index, self._taken.pop(index))

    def done(self, index: int) -> None:
        with self._changed:
            file = self._taken.pop(index)
            if index in self._reserved:
                file.path.unlink(missing_ok=True)
                self._release(index)

    @property
    def arrivals(self) -> list[Future[None]]:
        with self._changed:
            return [self._arrived]

    def _make_ready(self, index: int, file: Supplied | Rejected) -> None:
        self._ready[index] = file
        heapq.heappush(self._order, index)
        self._arrive()

    def _arrive(self) -> None:
        if not self._arrived.done():
            self._arrived.set_result(None)

    def _release(self, index: int) -> None:
        if self._reserved.pop(index, None) is not None:
            self._changed.notify_all()

    def _work(self) -> None:
        """In a thread: fetch one file after the other."""
        try:
            while (index := self._begin()) is not None:
                file = self._files[index]
                if isinstance(file, Location):
                    result = self._fetch(index, file)
                else:
                    result = Supplied(path=file, state=FileState.of(file))
                with self._changed:
                    self._begun.remove(index)
                    self._make_ready(index, result)
        except StoppedError:
            pass
        except BaseException as error:  # noqa: BLE001 (raised by `take`, in the main thread)
            with self._changed:
                self._error = error
                self._arrive()

    def _begin(self) -> int | None:
        """The next file to fetch; None if there is none. Waits while enough files are ahead."""
        with self._changed:
            self._wait_for(lambda: self._next == len(self._files) or self._next - (self._oldest() or 0) < MAX_AHEAD)
            if self._next == len(self._files):
                return None
            index = self._next
            self._next += 1
            self._begun.add(index)
            return index

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        self._changed.wait_for(lambda: self._stopped.is_set() or condition())
        if self._stopped.is_set():
            raise StoppedError

    def _fetch(self, index: int, location: Location) -> Supplied | Rejected:
        state, path = location.state or MISSING, self._spool.path(index, location.key)
        try:
            store = self._store(location)
            if state == MISSING:
                state = retried(lambda: store.head(location), self._stopped)
            if refused := self._refused(state):
                return refused
            self._reserve(index, state.size_bytes)
            return Supplied(path=path, state=state, sha256=self._download(store, location, state, path))
        except StoreError as error:
            # without a state, so that the next run sees another one and tries again
            result = Rejected(reason=Reason(error.reason), message=error.message, state=MISSING)
        except OSError as error:
            raise HaechiError(
                f"{self._spool.folder}: copies of fetched files cannot be written there ({error.strerror}); name "
                "another folder with --spool, or a smaller --spool-gb. Finished videos are kept"
            ) from error
        path.unlink(missing_ok=True)
        with self._changed:
            self._release(index)
        return result

    def _store(self, location: Location) -> Store:
        with self._changed:
            if location.store not in self._stores:
                self._stores[location.store] = open_store(location)
            return self._stores[location.store]

    def _refused(self, state: FileState) -> Rejected | None:
        """Why a file is not fetched, if it is not. Raises `OSError` if the disk is too full for a file of its size."""
        if not state.size_bytes:
            return Rejected(reason=Reason.EMPTY_FILE, message="0 bytes long", state=state)
        most = max(self._spool.max_bytes, self._spool.asked_bytes)
        if state.size_bytes > most:
            message = f"{state.size_bytes / 1e9:.3g} GB, more than the {most / 1e9:.3g} GB of --spool-gb"
            return Rejected(reason=Reason.TOO_LARGE, message=message, state=state)
        if state.size_bytes > self._spool.max_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return None

    def _reserve(self, index: int, num_bytes: int) -> None:
        """Wait until a file fits into the spool. The first of those that wait is next, so that none starves."""
        with self._changed:
            heapq.heappush(self._waiting_for_space, index)
            self._wait_for(
                lambda: (
                    self._waiting_for_space[0] == index
                    and sum(self._reserved.values()) + num_bytes <= self._spool.max_bytes
                )
            )
            heapq.heappop(self._waiting_for_space)
            self._reserved[index] = num_bytes
            self.most_bytes = max(self.most_bytes, sum(self._reserved.values()))
            self._changed.notify_all()

    def _download(self, store: Store, location: Location, state: FileState, path: Path) -> str:
        """Write a file to `path`, and return the SHA-256 of its bytes. A broken connection goes on where it broke."""
        digest, num_bytes, retry = hashlib.sha256(), 0, Retry(self._stopped)
        limit = self._timeout_seconds * (1 + state.size_bytes / BYTES_PER_TIMEOUT)
        late = time.monotonic() + limit
        with path.open("wb") as copy:
            while num_bytes < state.size_bytes:
                try:
                    for chunk in store.read(location, state, start=num_bytes):
                        if self._stopped.is_set():
                            raise StoppedError
                        if time.monotonic() > late:
                            message = f"not fetched within {limit:.0f} s (--timeout)"
                            raise StoreError(Trouble.FETCH_TIMEOUT, message)
                        num_bytes += len(chunk)
                        if num_bytes > state.size_bytes:
                            raise StoreError(Trouble.CHANGED_WHILE_READ, CHANGED)
                        copy.write(chunk)
                        digest.update(chunk)
                        retry.progressed()
                    if num_bytes < state.size_bytes:
                        raise StoreError(Trouble.FETCH_FAILED, "the connection broke", is_temporary=True)
                except StoreError as error:
                    if time.monotonic() > late and error.is_temporary:
                        message = f"not fetched within {limit:.0f} s: {error.message}"
                        raise StoreError(Trouble.FETCH_TIMEOUT, message) from error
                    retry.after(error)
        return digest.hexdigest()
