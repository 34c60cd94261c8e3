"""The lock of a cache: only one process writes at a time."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from haechi.cache.errors import CacheError

LOCK_NAME = ".lock"


@contextlib.contextmanager
def locked(cache: Path) -> Iterator[None]:
    """Hold the lock of the cache in an existing folder. Raises `CacheError` at once if another process holds it."""
    try:
        lock = FileLock(cache / LOCK_NAME).acquire(timeout=0)
    except Timeout as error:
        raise CacheError(
            f"{cache}: another run is writing to this cache; wait until it ends, or use another folder"
        ) from error
    with lock:
        yield
