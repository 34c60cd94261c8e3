"""The folder for local copies of fetched files, and its bound."""

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from haechi.cache.errors import HaechiError

PREFIX = "haechi-spool-"
FREE_SHARE = 0.9  # of the free space that the spool may use


@dataclass(frozen=True, kw_only=True)
class Spool:
    """A folder of this run alone."""

    folder: Path
    max_bytes: int
    """Of all copies together."""
    asked_bytes: int = 0
    """What `max_bytes` would be with more free space on the disk."""

    def path(self, index: int, key: str) -> Path:
        """Where the copy of a file goes. The end of its name is kept: FFmpeg may look at it."""
        suffix = Path(key).suffix
        return self.folder / f"{index:08d}{suffix if suffix[1:].isalnum() and len(suffix) < 10 else ''}"


@contextlib.contextmanager
def open_spool(parent: str | None, *, spool_gb: float) -> Iterator[Spool]:
    """A new folder in `parent` (None: the system's folder for temporary files) that is deleted at the end.

    Folders that killed runs left there are deleted too. The bound is lower than `spool_gb` (1e9 bytes) if less space is
    free. Raises `HaechiError` if no file can be written to `parent`.
    """
    above = Path(parent or tempfile.gettempdir())
    folder = above / f"{PREFIX}{secrets.token_hex(8)}"
    with contextlib.ExitStack() as stack:
        try:
            above.stat()  # FileLock would create it
            _remove_leftovers(above)
            lock = Path(f"{folder}.lock")
            stack.enter_context(FileLock(lock).acquire(timeout=0))  # held first: a folder without it would be deleted
            stack.callback(lock.unlink, missing_ok=True)
            folder.mkdir(mode=0o700)
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            free = shutil.disk_usage(folder).free
        except OSError as error:
            raise HaechiError(
                f"{above}: copies of fetched files cannot be written there ({error.strerror}); name a folder with "
                "--spool"
            ) from error
        asked = int(spool_gb * 1e9)
        yield Spool(folder=folder, max_bytes=min(asked, int(FREE_SHARE * free)), asked_bytes=asked)


def _remove_leftovers(above: Path) -> None:
    """Delete the spools whose process has ended: nobody holds their locks."""
    for lock in above.glob(f"{PREFIX}*.lock"):
        if not os.access(lock, os.W_OK):  # of another user
            continue
        with contextlib.suppress(Timeout, OSError), FileLock(lock).acquire(timeout=0):
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.unlink(missing_ok=True)
