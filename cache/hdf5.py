"""A shard as HDF5 sees it: version 1 is read through HDF5, and version 2 is compared with it by `haechi verify`."""

import contextlib
import math
import os
import re
import traceback
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from haechi.cache import schema
from haechi.cache.content import IS_MISSING, MAX_ROW_BYTES, Array, Attributes
from haechi.cache.errors import CacheError, DamageError

MAX_ATTRIBUTE_BYTES = 60_000

CHUNK_CACHE_BYTES = 8 << 20  # for each dataset: the default of HDF5 2.0 (older versions: 1 MiB)

# Everything that h5py raises when it cannot read: HDF5's own errors as any of the first four, types that numpy lacks as
# TypeError, absurd sizes as OverflowError.
HDF5_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError)

# How HDF5 says that memory ran out; h5py raises no MemoryError then.
OUT_OF_MEMORY = re.compile(r"memory allocation failed|can't (re)?alloc|unable to allocate|out of memory", re.IGNORECASE)


@contextlib.contextmanager
def open_hdf5(path: Path, *, chunk_cache_bytes: int = CHUNK_CACHE_BYTES) -> Iterator[h5py.File]:
    """Open a shard with h5py for reading. Raises as `read_errors` does.

    Errors raised in the caller's block are not converted: wrap calls of h5py in it in `read_errors`.
    """
    with read_errors(path):
        file = h5py.File(path, "r", locking="best-effort", rdcc_nbytes=chunk_cache_bytes)
    try:
        yield file
    finally:
        with read_errors(path):
            file.close()


@contextlib.contextmanager
def read_errors(path: Path, name: str = "") -> Iterator[None]:
    """Convert the errors of h5py and of the system in a block that only reads a shard, or its dataset `name`.

    Raises `CacheError` if the system could not read or memory ran out, and `DamageError` for every other of
    `HDF5_ERRORS` that h5py raises. Those that our own code in the block raises are not converted.
    """
    try:
        yield
    except MemoryError as error:
        raise CacheError(f"{path}: cannot be read (not enough memory)") from error
    except HDF5_ERRORS as error:
        if not isinstance(error, OSError) and not _is_from_h5py(error):
            raise
        raise _read_error(error, path, name) from error


def _is_from_h5py(error: Exception) -> bool:
    """Whether h5py raised the error, and not code that calls it or is called by it."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    module: str = frame.f_globals["__name__"]
    return module.partition(".")[0] == "h5py"


def _read_error(error: Exception, path: Path, name: str) -> CacheError:
    """The error for the user, given one of `HDF5_ERRORS`."""
    # An error of the system has a number. HDF5 raises some as KeyError or RuntimeError, with the number in the text.
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (found := re.search(r", errno = (\d+), error message = ", str(error))):
        number = int(found[1])
    if number is not None:
        return CacheError(f"{path}: cannot be read ({os.strerror(number)})")
    if OUT_OF_MEMORY.search(str(error)):
        return CacheError(f"{path}: cannot be read (not enough memory)")
    if name:
        return DamageError(f"{path}: /{name} is damaged, its checksum does not match; see `haechi verify`")
    return DamageError(f"{path}: HDF5 cannot read it ({error}); see `haechi verify`")


class Hdf5Content:
    """The content of an open shard of version 1."""

    def __init__(self, file: h5py.File, path: Path) -> None:
        self._file, self._path = file, path
        self._datasets = Datasets(file)

    @cached_property
    def attributes(self) -> Attributes:
        """Raises as `read_errors` does."""
        with read_errors(self._path):
            return attributes(self._file)

    def array(self, name: str) -> Array | str:
        """Raises as `read_errors` does."""
        with read_errors(self._path):
            found = self._datasets.open(name)
            return found if isinstance(found, str) else _array(found, num_bytes=self._num_bytes)

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Raises as `read_errors` does."""
        found = self._sound_dataset(name)
        with read_errors(self._path, name):
            values: np.ndarray = found[start:stop]
        return values

    def read_into(self, result: np.ndarray, name: str, ranges: list[tuple[int, int]]) -> None:
        """Raises as `read_errors` does."""
        found, done = self._sound_dataset(name), 0
        with read_errors(self._path, name):
            for start, stop in ranges:
                found.read_direct(result, np.s_[start:stop], np.s_[done : done + stop - start])
                done += stop - start

    @cached_property
    def _num_bytes(self) -> int:
        return self._path.stat().st_size - schema.USER_BLOCK_BYTES

    def _sound_dataset(self, name: str) -> h5py.Dataset:
        with read_errors(self._path):
            found = self._datasets.open(name)
        if isinstance(found, str):
            raise DamageError(f"{self._path}: /{name} {found}")
        return h5py.Dataset(found)


class Datasets:
    """The datasets of an open file, as h5py's low-level objects: its others open slowly, and a shard has many.

    Only plain data inside this file is accepted, because a shard may come from a stranger: no soft or external links,
    virtual datasets, external storage, object types, or filters other than version 1's Fletcher32.
    """

    def __init__(self, file: h5py.File, *, version: int = 1) -> None:
        self._version = version
        self._groups: dict[bytes, Any] = {b"": file.id}

    def open(self, name: str) -> h5py.h5d.DatasetID | str:
        """The dataset under `name`, or a text that says why it is refused."""
        found = self._open(name.encode())
        if isinstance(found, str):
            return found
        if not isinstance(found, h5py.h5d.DatasetID):
            return "is not a dataset"
        plist = found.get_create_plist()
        layout = plist.get_layout()
        if layout == h5py.h5d.VIRTUAL or plist.get_external_count():
            return "keeps its data in another file; only data inside the shard is allowed"
        filters = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
        if self._version == 1 and (layout != h5py.h5d.CHUNKED or filters != [h5py.h5z.FILTER_FLETCHER32]):
            return "must be chunked, with the Fletcher32 filter and no other"
        if self._version > 1 and (layout != h5py.h5d.CONTIGUOUS or filters):
            return "must be contiguous, without filters"
        return found

    def _open(self, name: bytes) -> Any:
        """The object under a name, or a text that says why it is refused. Groups are kept open."""
        if name in self._groups:
            return self._groups[name]
        above, _, part = name.rpartition(b"/")
        parent = self._open(above)
        if isinstance(parent, str):
            return parent
        # h5py's `part in file[parent]` would follow an external link before the kind of the link can be checked.
        if not isinstance(parent, h5py.h5g.GroupID) or not parent.links.exists(part):
            return IS_MISSING
        if parent.links.get_info(part).type != h5py.h5l.TYPE_HARD:
            return "is a soft or external link; only data inside the shard is allowed"
        found = h5py.h5o.open(parent, part)
        if isinstance(found, h5py.h5g.GroupID):
            self._groups[name] = found
        return found


def is_utf8(dtype: np.dtype) -> bool:
    """Whether a type of HDF5 is text of fixed length in UTF-8."""
    info = h5py.check_string_dtype(dtype)
    return info is not None and info.encoding == "utf-8" and info.length is not None


def _array(found: h5py.h5d.DatasetID, *, num_bytes: int) -> Array:
    dtype, shape, chunks = found.dtype, found.shape, found.get_create_plist().get_chunk()
    flaw = ""
    if math.prod(chunks) * dtype.itemsize > max(num_bytes, MAX_ROW_BYTES):
        flaw = f"declares chunks of shape {chunks}, larger than the file"
    elif found.get_storage_size() < math.prod(shape) * dtype.itemsize:
        flaw = "has rows that were never written"
    return Array(dtype=dtype, is_text=is_utf8(dtype), shape=shape, block_rows=chunks[0], flaw=flaw)


def attributes(file: h5py.File) -> Attributes:
    """The root attributes that the contract names."""
    return {name: _attribute(file, name) for name in (*schema.TEXT_ATTRIBUTES, schema.VERSION_ATTRIBUTE)}


def _attribute(file: h5py.File, name: str) -> str | int | None:
    """A root attribute that is one text or one integer; None if it is missing or anything else.

    Text of variable length is not read at all: it is in a part of the file without checksums, and some damage there
    makes HDF5 hang.
    """
    if not h5py.h5a.exists(file.id, name.encode()):
        return None
    found = h5py.h5a.open(file.id, name.encode())  # `file.attrs` takes ten times as long
    dtype = found.dtype  # h5py reads it from the file each time
    if found.shape != () or dtype.kind not in "iuS" or dtype.itemsize > MAX_ATTRIBUTE_BYTES:
        return None
    value = np.empty((), dtype)
    found.read(value)
    if dtype.kind != "S":
        return int(value)
    try:
        return str(value.item().decode())
    except UnicodeDecodeError:
        return None
