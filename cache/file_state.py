"""What is known of a file from outside: a later run compares it to find out whether the file changed."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class FileState:
    """Size and modification time: a later run compares them to find out whether the file changed."""

    size_bytes: int
    mtime_ns: int
    etag: str = ""
    """What an object store calls this version of the file; empty for a file on this machine."""

    @classmethod
    def of(cls, path: Path) -> "FileState":
        """The state now; `MISSING` if the file is missing or cannot be reached."""
        try:
            found = path.stat()
        except OSError:
            return MISSING
        return cls(size_bytes=found.st_size, mtime_ns=found.st_mtime_ns)


MISSING = FileState(size_bytes=0, mtime_ns=0)
