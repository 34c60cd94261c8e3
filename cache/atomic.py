"""Writes files whole or not at all: first under a temporary name in the same folder, then renamed."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

PARTIAL_PREFIX = ".partial-"


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`. When the block ends without an error, its file replaces `path`.

    The new file is on disk, not only in the system's memory, before it gets its final name. If the block or the disk
    raises an error, `path` is unchanged and the temporary file is removed. A killed process leaves the temporary file.
    """
    partial = path.with_name(PARTIAL_PREFIX + path.name)
    try:
        yield partial
        _flush(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    _flush(path.parent)  # so that the rename survives a power cut


def replace_text(path: Path, text: str) -> None:
    """Write a text file, UTF-8, whole or not at all. Raises `OSError` if the disk is full or may not be written."""
    with replaced(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


def _flush(path: Path) -> None:
    """Write the content of a file or folder from the system's memory to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
