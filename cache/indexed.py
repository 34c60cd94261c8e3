"""Version 2: an index says where each dataset is in the file, so that it is read without HDF5 and checked by block."""

import json
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from xxhash import xxh3_64_hexdigest

from haechi.cache import schema
from haechi.cache.content import IS_MISSING, Array, Attributes
from haechi.cache.errors import DamageError
from haechi.cache.hdf5 import read_errors

CHECKSUM_DIGITS = 16
# Ours: enough for 64 GB of features. Parsed, an index of this size made to be large takes less than a gigabyte.
MAX_INDEX_BYTES = 1 << 25
MAX_NUMBER = (1 << 63) - 1  # of rows and bytes: HDF5 and the system cannot have more

# Blocks are read this many at a time: they are still in the processor's cache when they are checked.
BLOCKS_PER_READ = 16

TYPES = re.compile(r"<f[248]|<i[48]|\|i1|\|S[1-9][0-9]{0,6}")
"""Types of numpy that a dataset can have. Others are refused before numpy sees them."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the rows of one dataset are, and their checksums."""

    dtype: str
    """Name of the type in numpy, such as `<f2`; `|S19` is text of 19 bytes."""
    shape: tuple[int, ...]
    offset: int
    """The first byte in the file. Not used if there are no rows."""
    checksums: str
    """XXH3 (64 bits) of each block as 16 hexadecimal digits, without separators."""

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape[1:]) * np.dtype(self.dtype).itemsize

    @property
    def block_rows(self) -> int:
        return max(1, schema.BLOCK_BYTES // max(1, self.row_bytes))

    @property
    def num_bytes(self) -> int:
        return self.shape[0] * self.row_bytes


def place(values: np.ndarray, offset: int) -> Place:
    """The place of a dataset with these rows."""
    content = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
    found = Place(dtype=values.dtype.str, shape=values.shape, offset=offset, checksums="")
    step = max(1, found.block_rows * found.row_bytes)
    checksums = [xxh3_64_hexdigest(content[start : start + step]) for start in range(0, len(content), step)]
    return Place(dtype=found.dtype, shape=found.shape, offset=offset, checksums="".join(checksums))


@dataclass(frozen=True, kw_only=True)
class BadRows:
    """Numbers of rows of features that break the contract: the writer refuses them, other writers may not."""

    zero: int
    """All values are zero."""
    nonfinite: int
    """A value is NaN or infinite."""


@dataclass(frozen=True, kw_only=True)
class Index:
    """All that a reader needs to know about a shard before it reads rows."""

    attributes: dict[str, str | int]
    """The root attributes."""
    datasets: dict[str, Place]
    bad_rows: BadRows
    """In all two-dimensional arrays together."""

    def encode(self) -> bytes:
        """The index as canonical JSON on one line, and the checksum of this line (with its end) on a second."""
        line = schema.canonical_json(asdict(self)).encode("ascii") + b"\n"
        return line + xxh3_64_hexdigest(line).encode("ascii") + b"\n"

    @classmethod
    def decode(cls, content: bytes, *, where: str) -> "Index":
        """Raises `DamageError` if the checksum does not match, or a field is missing or is not what it must be."""
        line, checksum = content[: -CHECKSUM_DIGITS - 1], content[-CHECKSUM_DIGITS - 1 :]
        if checksum != xxh3_64_hexdigest(line).encode("ascii") + b"\n":
            raise DamageError(f"{where}: its index is damaged; see `haechi verify`")
        try:
            fields = json.loads(line)
            datasets = {
                _text(name): Place(
                    dtype=_text(found["dtype"]),
                    shape=tuple(_number(length) for length in _checked(list, found["shape"])),
                    offset=_number(found["offset"]),
                    checksums=_text(found["checksums"]),
                )
                for name, found in _checked(dict, fields["datasets"]).items()
            }
            attributes = {
                name: _text(value) if isinstance(value, str) else _number(value)
                for name, value in _checked(dict, fields["attributes"]).items()
            }
            bad_rows = BadRows(**{name: _number(fields["bad_rows"][name]) for name in ("zero", "nonfinite")})
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise DamageError(f"{where}: its index is not as cache_schema.md requires ({error})") from error
        return cls(attributes=attributes, datasets=datasets, bad_rows=bad_rows)


def _checked(kind: type, value: Any) -> Any:
    """`value`, which must be of a type."""
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{value!r:.40} is a {type(value).__name__}")
    return value


def _number(value: Any) -> int:
    """`value`, which must be a number of rows or bytes."""
    number: int = _checked(int, value)
    if not 0 <= number <= MAX_NUMBER:
        raise ValueError(f"a number is not from 0 to {MAX_NUMBER}")
    return number


def _text(value: Any) -> str:
    """`value`, which must be text that UTF-8 can write: JSON can escape half a character."""
    text: str = _checked(str, value)
    text.encode()
    return text


def read_index(path: Path, start: int, length: int) -> Index:
    """The index in the bytes of a file from `start` on. Raises as `Index.decode` and `read_errors` do."""
    if length > MAX_INDEX_BYTES:
        raise DamageError(f"{path}: declares an index of {length} bytes, at most {MAX_INDEX_BYTES} are allowed")
    with read_errors(path), path.open("rb", buffering=0) as file:
        if start + length > os.fstat(file.fileno()).st_size:
            raise DamageError(f"{path}: its index is damaged, it would lie outside the file; see `haechi verify`")
        file.seek(start)
        content = file.read(length)
    return Index.decode(content, where=str(path))


class IndexedContent:
    """The content of an open shard of version 2."""

    def __init__(self, file: FileIO, path: Path, index: Index) -> None:
        self._file, self._path = file, path
        self.index = index
        self._arrays: dict[str, Array | str] = {}
        self._kept: tuple[str, int, memoryview] | None = None  # the block that was read last: name, number, bytes

    @property
    def attributes(self) -> Attributes:
        return self.index.attributes

    def user_block(self) -> bytes:
        """The first bytes of the open file. Raises as `read_errors` does."""
        with read_errors(self._path):
            self._file.seek(0)
            return self._file.read(schema.USER_BLOCK_BYTES)

    def array(self, name: str) -> Array | str:
        """Raises as `read_errors` does."""
        if name not in self._arrays:
            self._arrays[name] = self._array(name)
        return self._arrays[name]

    def _array(self, name: str) -> Array | str:
        found = self.index.datasets.get(name)
        if found is None:
            return IS_MISSING
        if not TYPES.fullmatch(found.dtype):
            return f"has type {found.dtype!r:.20}, which no dataset of a shard has"
        if len(found.shape) not in (1, 2):
            return f"has {len(found.shape)} axes, expected 1 or 2"
        return Array(
            dtype=np.dtype(found.dtype),
            is_text=found.dtype.startswith("|S"),
            shape=found.shape,
            block_rows=found.block_rows,
            flaw=self._flaw(found),
        )

    def _flaw(self, found: Place) -> str:
        num_bytes = found.num_bytes
        if num_bytes and not schema.USER_BLOCK_BYTES <= found.offset <= self._num_bytes - num_bytes:
            return f"lies at byte {found.offset}, outside the shard"
        wanted = CHECKSUM_DIGITS * (-(-found.shape[0] // found.block_rows) if found.row_bytes else 0)
        if len(found.checksums) != wanted:
            return f"has checksums of {len(found.checksums)} digits, expected {wanted}"
        return ""

    @cached_property
    def _num_bytes(self) -> int:
        with read_errors(self._path):
            return os.fstat(self._file.fileno()).st_size

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Raises as `read_into` does."""
        found = self._place(name)
        result = np.empty((max(0, stop - start), *found.shape[1:]), found.dtype)
        self.read_into(result, name, [(start, stop)])
        return result

    def read_into(self, result: np.ndarray, name: str, ranges: list[tuple[int, int]]) -> None:
        """Whole blocks are read directly into `result`, which must be contiguous.

        Raises `DamageError` if a checksum does not match, or the file ends early; and as `read_errors` does.
        """
        found = self._place(name)
        width, step, length = found.row_bytes, found.block_rows, found.shape[0]
        target, done = result.reshape(-1).view(np.uint8).data, 0
        for row, stop in ranges:
            while row < stop:
                first, skipped = divmod(row, step)
                last = -(-length // step) if stop >= length else stop // step
                if skipped or last <= first:  # a part of a block
                    block = self._block(found, name, first)
                    end = min(stop, (first + 1) * step)
                    target[done : done + (end - row) * width] = block[skipped * width : (skipped + end - row) * width]
                else:
                    last = min(last, first + BLOCKS_PER_READ)
                    end = min(length, last * step)
                    self._read_blocks(target[done : done + (end - row) * width], found, name, first)
                done += (end - row) * width
                row = end

    def _place(self, name: str) -> Place:
        refused = self.array(name)
        if not isinstance(refused, str) and not refused.flaw:
            return self.index.datasets[name]
        raise DamageError(f"{self._path}: /{name} {refused if isinstance(refused, str) else refused.flaw}")

    def _block(self, found: Place, name: str, number: int) -> memoryview:
        """The bytes of one block."""
        if self._kept is not None and self._kept[:2] == (name, number):
            return self._kept[2]
        rows = min(found.block_rows, found.shape[0] - number * found.block_rows)
        block = memoryview(bytearray(rows * found.row_bytes))
        self._read_blocks(block, found, name, number)
        self._kept = (name, number, block)
        return block

    def _read_blocks(self, target: memoryview, found: Place, name: str, first: int) -> None:
        """Fill `target` with whole blocks, from number `first` on, and check them."""
        size, done = found.block_rows * found.row_bytes, 0
        if not size:  # rows of width 0
            return
        with read_errors(self._path):
            self._file.seek(found.offset + first * size)
            while done < len(target):
                count = self._file.readinto(target[done:])
                if not count:
                    raise DamageError(f"{self._path}: cut off while it was read")
                done += count
        for i, start in enumerate(range(0, len(target), size), start=first):
            wanted = found.checksums[CHECKSUM_DIGITS * i : CHECKSUM_DIGITS * (i + 1)]
            if xxh3_64_hexdigest(target[start : start + size]) != wanted:
                raise DamageError(f"{self._path}: /{name} is damaged, its checksum does not match; see `haechi verify`")


@contextmanager
def open_indexed(path: Path, index: Index) -> Iterator[IndexedContent]:
    """Open a shard of version 2 for reading. Raises as `read_errors` does."""
    with read_errors(path):
        file = path.open("rb", buffering=0)
    with file:
        yield IndexedContent(file, path, index)
