"""Writes files whole or not at all: first under a temporary name in the same folder, then renamed."""

import contextlib
import ctypes
import errno
import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

PARTIAL_PREFIX = ".partial-"

# Of renameat2 (Linux) and renamex_np (macOS), from the systems' header files.
AT_FDCWD, RENAME_EXCHANGE = -100, 2
RENAME_SWAP = 2


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`. When the block ends without an error, its file replaces `path`.

    The new file is on disk, not only in the system's memory, before it gets its final name. If the block or the disk
    raises an error, `path` is unchanged and the temporary file is removed. A killed process leaves the temporary file.
    """
    partial = path.with_name(PARTIAL_PREFIX + path.name)
    try:
        yield partial
        flush(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    flush(path.parent)  # so that the rename survives a power cut


def replace_text(path: Path, text: str) -> None:
    """Write a text file, UTF-8, whole or not at all. Raises `OSError` if the disk is full or may not be written."""
    with replaced(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


def create(source: Path, path: Path) -> bool:
    """Give a whole file a second name `path` in the same file system, unless that name exists.

    Returns whether the name is new. Of several processes that create one name, exactly one gets True. Raises `OSError`
    as `os.link` does.
    """
    flush(source)
    links = source.stat().st_nlink
    try:
        os.link(source, path)
    except FileExistsError:
        # A network file system may lose the first answer and repeat the request: open(2), O_EXCL.
        return source.stat().st_nlink > links
    flush(path.parent)
    return True


def create_text(path: Path, text: str, *, folder: Path) -> bool:
    """Write a text file whole, unless the name exists. Its temporary file is in `folder`.

    Returns and raises as `create`.
    """
    partial = folder / f"{PARTIAL_PREFIX}{path.name}-{uuid.uuid4().hex}"
    try:
        partial.write_text(text, encoding="utf-8", newline="")
        return create(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def exchange(first: Path, second: Path) -> None:
    """Exchange two files or folders of one file system in a single step: at no time is one of the names missing.

    Raises `OSError` where the operating system or the file system cannot do it; then both are as they were.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(first), os.fsencode(second)
    try:
        if sys.platform == "darwin":
            failed = libc.renamex_np(names[0], names[1], RENAME_SWAP)
        else:
            failed = libc.renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE)
    except AttributeError as error:  # an old C library
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), str(first)) from error
    if failed:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(first))


def flush(path: Path) -> None:
    """Write what a file or a folder holds from the system's memory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
