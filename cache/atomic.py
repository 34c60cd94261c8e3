"""A file is written whole or not at all: under a temporary name beside it, then renamed."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

PARTIAL_PREFIX = ".partial-"


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`. The file written there replaces `path` when the block ends well.

    The new file is on disk, not only in the system's memory, before it has its final name. Where the block raises, or
    the disk fails, `path` is as it was and the temporary file is removed; a killed process leaves it behind.
    """
    partial = path.with_name(PARTIAL_PREFIX + path.name)
    try:
        yield partial
        _flush(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    _flush(path.parent)  # the rename itself survives a power cut


def replace_text(path: Path, text: str) -> None:
    """Write a text file, UTF-8, whole or not at all. Raises `OSError` as the disk does."""
    with replaced(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


def _flush(path: Path) -> None:
    """Make what a file or a folder holds durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
