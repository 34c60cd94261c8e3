"""Whether a file can be read, and the hash of its bytes."""

import hashlib
import os
import stat
from pathlib import Path

from haechi.extract.decoding.reasons import Reason, UnusableError


def check_file(path: Path) -> None:
    """Raise `UnusableError` unless `path` is a regular file that is not empty and may be read."""
    try:
        state = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UnusableError(Reason.MISSING, "no such file") from error
    except OSError as error:
        raise UnusableError(Reason.UNREADABLE, f"cannot be reached ({error.strerror})") from error
    if not stat.S_ISREG(state.st_mode):
        raise UnusableError(Reason.UNREADABLE, "not a regular file (a folder, pipe or device)")
    if not os.access(path, os.R_OK):
        raise UnusableError(Reason.UNREADABLE, "no permission to read it")
    if state.st_size == 0:
        raise UnusableError(Reason.EMPTY_FILE, "0 bytes long")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
