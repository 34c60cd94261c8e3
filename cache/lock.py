"""The lock of a cache: only one process writes at a time."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from haechi.cache.errors import CacheError

LOCK_NAME = ".lock"


@contextlib.contextmanager
def locked(cache: Path, *, seconds: float = 0) -> Iterator[None]:
    """Hold the lock of the cache in an existing folder, and wait for it at most `seconds`.

    Raises `CacheError` if another process holds it.
    """
    try:
        lock = FileLock(cache / LOCK_NAME).acquire(timeout=seconds)
    except Timeout as error:
        raise CacheError(
            f"{cache}: another run is writing to this cache; wait until it ends, or use another folder"
        ) from error
    with lock:
        yield


def is_held(lock: Path) -> bool:
    """Whether a living process holds the lock that is this file. A run that begins now may find it held meanwhile."""
    try:
        descriptor = os.open(lock, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # it is held; or there are no such locks, and the file itself is one (SoftFileLock)
        return True
    finally:
        os.close(descriptor)
    return False
