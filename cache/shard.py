"""Opens one shard, and refuses files that are not one. All reading of shards goes through this module."""

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from haechi.cache import schema
from haechi.cache.content import IS_MISSING, Array, Content
from haechi.cache.errors import CacheError, DamageError
from haechi.cache.hdf5 import CHUNK_CACHE_BYTES, MAX_ATTRIBUTE_BYTES, Hdf5Content, open_hdf5, read_errors
from haechi.cache.indexed import BadRows, Index, IndexedContent, open_indexed, read_index
from haechi.cache.schema import Provenance, Seal
from haechi.cache.text import bullet_list

# Bytes that are read and checked at once: they stay in the processor's cache.
PIECE_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A shard whose seal, attributes and structure were checked when it was opened."""

    path: Path
    seal: Seal
    provenance: Provenance
    fingerprint: str
    created: str
    """When it was written: ISO 8601, UTC."""
    num_items: int
    num_failures: int
    num_rows: dict[str, int]
    """Stream -> number of rows of its arrays."""
    index: Index | None = field(repr=False)
    """Of a shard of version 2."""

    @classmethod
    def open(cls, path: Path) -> "Shard":
        """Open a shard and check it without reading its rows.

        Raises `DamageError` that lists every problem of its structure, and `CacheError` if it cannot be read or has
        another version.
        """
        while True:
            seal = read_seal(path)
            try:
                return cls._open(path, seal)
            except DamageError:
                if read_seal(path) == seal:
                    raise
                # It was replaced in between, as for new labels: old seal and new content do not fit together.

    @classmethod
    def _open(cls, path: Path, seal: Seal) -> "Shard":
        index = read_index(path, *seal.index) if seal.version > 1 else None
        with open_content(path, index) as content:
            provenance, attributes = read_attributes(content, path, version=seal.version)
            problems, lengths = structure_problems(content, provenance.settings, num_bytes=seal.num_bytes)
            if problems:
                lines = [f"/{name} {what}" for name, what in problems]
                raise DamageError(f"{path}: breaks the rules of cache_schema.md:\n{bullet_list(lines)}")
            return cls(
                path=path,
                seal=seal,
                provenance=provenance,
                fingerprint=attributes["fingerprint"],
                created=attributes["created"],
                num_items=lengths["media/id"],
                num_failures=lengths["failure/id"],
                num_rows={stream: lengths[f"{stream}/features"] for stream in schema.STREAMS},
                index=index,
            )

    @property
    def version(self) -> int:
        """Its format version."""
        return self.seal.version

    @property
    def bad_rows(self) -> BadRows | None:
        """How many rows of features break the contract, as its writer counted them; None in version 1."""
        return self.index.bad_rows if self.index is not None else None

    def read(self, *names: str, rows: slice = slice(None)) -> list[np.ndarray]:
        """The given rows of datasets, each in one sequential read; text columns as arrays of `str` objects.

        Raises `DamageError` if checksums find altered bytes, and `CacheError` if the file cannot be read.
        """
        raw = self.read_raw(*names, rows=rows)
        return [_decoded(values, name, self.path) for name, values in zip(names, raw, strict=True)]

    def read_raw(self, *names: str, rows: slice = slice(None)) -> list[np.ndarray]:
        """As `read`, with texts as bytes."""
        with self._content() as content:
            return [
                self._without_values(name, rows)
                if is_left_out(content, name)
                else content.read(name, *_bounds(content, name, self.path, rows))
                for name in names
            ]

    def _without_values(self, name: str, rows: slice) -> np.ndarray:
        """The rows of a column that was left out since all its values are empty."""
        length = self.num_items if name.startswith("media/") else self.num_failures
        return np.zeros(len(range(*rows.indices(length))), "S1")

    def read_into(self, result: np.ndarray, name: str, *, ranges: list[tuple[int, int]]) -> None:
        """Fill `result` with the rows of a dataset of numbers that are in `ranges`: (start, stop) pairs, ascending.

        Raises as `read` does.
        """
        # Without HDF5's chunk cache, one range is read in half the time. Several ranges may share a chunk, and with the
        # cache it is read only once.
        with self._content(chunk_cache_bytes=CHUNK_CACHE_BYTES if len(ranges) > 1 else 0) as content:
            length = sound_array(content, name, self.path).shape[0]
            if ranges and ranges[-1][1] > length:  # h5py would silently read fewer rows
                raise CacheError(f"{self.path}: /{name} has {length} rows, row {ranges[-1][1] - 1} was requested")
            content.read_into(result, name, ranges)

    @contextmanager
    def _content(self, *, chunk_cache_bytes: int = CHUNK_CACHE_BYTES) -> Iterator[Content]:
        """Its content; that of the new file if the shard was replaced since it was opened, as for new labels.

        Raises `CacheError` if the new one has other rows.
        """
        with open_content(self.path, self.index, chunk_cache_bytes=chunk_cache_bytes) as content:
            if not isinstance(content, IndexedContent) or content.user_block() == self.seal.encode():
                yield content
                return
        new = Shard.open(self.path)
        if (new.fingerprint, new._rows) != (self.fingerprint, self._rows):
            raise CacheError(f"{self.path}: was replaced by a shard with other rows; run the command again")
        with new._content(chunk_cache_bytes=chunk_cache_bytes) as content:
            yield content

    @property
    def _rows(self) -> dict[str, tuple[str, tuple[int, ...], str]]:
        """Types, shapes and checksums of all datasets that new labels leave as they are; empty in version 1."""
        return {
            name: (place.dtype, place.shape, place.checksums)
            for name, place in (self.index.datasets.items() if self.index is not None else ())
            if name == "media/id" or not name.startswith("media/")
        }


@contextmanager
def open_content(path: Path, index: Index | None, *, chunk_cache_bytes: int = CHUNK_CACHE_BYTES) -> Iterator[Content]:
    """Open a shard for reading: with its index, or of version 1. Raises as `read_errors` does."""
    if index is not None:
        with open_indexed(path, index) as content:
            yield content
    else:
        with open_hdf5(path, chunk_cache_bytes=chunk_cache_bytes) as file:
            yield Hdf5Content(file, path)


def read_seal(path: Path) -> Seal:
    """The shard's seal, checked against the file's size: finds a shard that was cut off.

    Raises `DamageError` if the seal or the size is wrong, and `CacheError` if the file cannot be read.
    """
    with read_errors(path):
        if path.exists() and not path.is_file():  # reading a named pipe would block
            raise CacheError(f"{path}: not a file")
        with path.open("rb", buffering=0) as file:
            block = file.read(schema.USER_BLOCK_BYTES)
            size = os.fstat(file.fileno()).st_size
    seal = Seal.decode(block, where=str(path))
    if size != schema.USER_BLOCK_BYTES + seal.num_bytes:
        raise DamageError(
            f"{path}: {size} bytes long, sealed as {schema.USER_BLOCK_BYTES + seal.num_bytes}: "
            "cut off or appended to; see `haechi verify --repair`"
        )
    return seal


def sealed_digest(path: Path, version: int) -> str:
    """The digest of all bytes after the user block, as `Seal.digest` has it. Raises `CacheError`."""
    with read_errors(path), path.open("rb", buffering=0) as file:
        file.seek(schema.USER_BLOCK_BYTES)
        digest, buffer = schema.new_digest(version), memoryview(bytearray(PIECE_BYTES))
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return str(digest.hexdigest())


def is_left_out(content: Content, name: str) -> bool:
    """Whether a column is not there because all its values are empty."""
    return name in schema.OPTIONAL and content.array(name) == IS_MISSING


def sound_array(content: Content, name: str, path: Path) -> Array:
    """A dataset that can be read. Raises `DamageError` if it is refused."""
    found = content.array(name)
    if isinstance(found, str):
        raise DamageError(f"{path}: /{name} {found}")
    return found


def structure_problems(
    content: Content, settings: dict[str, Any], *, num_bytes: int
) -> tuple[list[tuple[str, str]], dict[str, int]]:
    """All names, types and shapes that break the contract, as (dataset, problem). Reads no rows.

    Returns the number of rows of each dataset without a problem too. Raises `CacheError` if the file cannot be read.
    """
    problems: list[tuple[str, str]] = []
    lengths: dict[str, int] = {}

    def check(name: str, dtype: Any, shape: tuple[int | None, ...]) -> int | None:
        """Check one dataset and note its problem; returns its number of rows, or None if there is a problem."""
        try:
            found = content.array(name)
            if is_left_out(content, name):
                return None
            what = found if isinstance(found, str) else _mismatch(found, dtype, shape, num_bytes=num_bytes)
        except DamageError as error:
            found, what = "", f"cannot be opened ({error.__cause__})"
        if what or isinstance(found, str):
            problems.append((name, what))
            return None
        return lengths.setdefault(name, found.shape[0])

    def check_table(group: str, types: dict[str, Any]) -> int | None:
        num_rows = check(f"{group}/id", str, (None,))
        for column, dtype in types.items():
            if column != "id":
                check(f"{group}/{column}", dtype, (num_rows,))
        return num_rows

    num_items = check_table("media", schema.MEDIA_TYPES)
    check_table("failure", schema.FAILURE_TYPES)
    for stream, arrays in schema.STREAMS.items():
        check(f"{stream}/offset", np.int64, (None if num_items is None else num_items + 1,))
        num_rows = check(f"{stream}/features", settings["store"], (None, settings[stream]["widths"]["features"]))
        for name, num_axes in arrays.items():
            if name == "features":
                continue
            if num_axes == 2:
                check(f"{stream}/{name}", settings["store"], (num_rows, settings[stream]["widths"][name]))
            else:
                check(f"{stream}/{name}", np.float32, (num_rows,))
    return problems, lengths


def _mismatch(found: Array, dtype: Any, shape: tuple[int | None, ...], *, num_bytes: int) -> str:
    """How a dataset differs from the expected type and shape (None: any length); empty if it does not differ."""
    if dtype is str:
        if not found.is_text:
            return f"has type {found.dtype}, expected fixed-length UTF-8"
    elif found.dtype != np.dtype(dtype):
        return f"has type {found.dtype}, expected {np.dtype(dtype).name}"
    if len(found.shape) != len(shape) or any(
        want not in (None, got) for got, want in zip(found.shape, shape, strict=True)
    ):
        wanted = ("any" if want is None else str(want) for want in shape)
        return f"has shape {found.shape}, expected ({', '.join(wanted)})"
    size = math.prod(found.shape) * found.dtype.itemsize
    if size > num_bytes:
        return f"declares {size} bytes, more than the file holds"
    return found.flaw


def _bounds(content: Content, name: str, path: Path, rows: slice) -> tuple[int, int]:
    start, stop, _ = rows.indices(sound_array(content, name, path).shape[0])
    return start, max(start, stop)


def _decoded(values: np.ndarray, name: str, path: Path) -> np.ndarray:
    """A column of bytes as `str` objects; others unchanged."""
    if values.dtype.kind != "S":
        return values
    try:
        return np.array([value.decode() for value in values.tolist()], dtype=object)
    except UnicodeDecodeError as error:
        raise DamageError(f"{path}: /{name} holds bytes that are not UTF-8; see `haechi verify`") from error


def read_attributes(content: Content, path: Path, *, version: int) -> tuple[Provenance, dict[str, str]]:
    """The root attributes of a shard of a version: a `Provenance`, and a dict of every text attribute by its name.

    Raises `CacheError` for another format or version, and `DamageError` if an attribute is missing or has the wrong
    type, or if settings_json does not hash to the fingerprint or lacks fields that readers need.
    """
    found = content.attributes
    given = found.get(schema.VERSION_ATTRIBUTE)
    text = {
        name: value
        for name in schema.TEXT_ATTRIBUTES
        if isinstance(value := found.get(name), str) and len(value.encode()) <= MAX_ATTRIBUTE_BYTES
    }
    if problems := [f"root attribute {name}" for name in schema.TEXT_ATTRIBUTES if name not in text]:
        raise DamageError(
            f"{path}: missing, or not fixed-length UTF-8 text of at most {MAX_ATTRIBUTE_BYTES} bytes:\n"
            f"{bullet_list(problems)}"
        )
    if text["format"] != schema.FORMAT or given != version:
        kind = DamageError if given is None else CacheError
        raise kind(
            f"{path}: format {text['format']!r} version {given}, expected {schema.FORMAT!r} version {version} as in "
            "its seal"
        )
    try:
        settings, versions = json.loads(text["settings_json"]), json.loads(text["versions_json"])
        canonical = schema.canonical_json(settings) == text["settings_json"]
    except (ValueError, TypeError, RecursionError):
        settings, versions, canonical = None, None, False
    if not canonical or schema.fingerprint_of(settings) != text["fingerprint"]:
        raise DamageError(f"{path}: settings_json is not the canonical JSON whose hash is the fingerprint")
    if not settings_are_complete(settings):
        raise DamageError(
            f"{path}: settings_json lacks fields that cache_schema.md requires, or has them with other types"
        )
    if not isinstance(versions, dict) or not all(isinstance(version, str) for version in versions.values()):
        raise DamageError(f"{path}: versions_json is not a JSON object of texts")
    provenance = Provenance(
        settings=settings,
        versions=versions,
        weights={stream: text[f"{stream}_weights"] for stream in schema.STREAMS},
        device=text["device"],
        precision=text["precision"],
        producer=text["producer"],
    )
    return provenance, text


def settings_are_complete(settings: Any) -> bool:
    """Whether settings have the fields that readers need, with the right types."""
    if not isinstance(settings, dict) or settings.get("store") not in schema.STORE_TYPES:
        return False
    for stream, arrays in schema.STREAMS.items():
        part = settings.get(stream)
        if not isinstance(part, dict) or not isinstance(part.get("trained"), bool):
            return False
        if not isinstance(part.get("model"), str) or not isinstance(part.get("weights_sha256"), str):
            return False
        widths, wide = part.get("widths"), {name for name, num_axes in arrays.items() if num_axes == 2}
        if not isinstance(widths, dict) or widths.keys() != wide:
            return False
        if part["model"] == schema.NO_MODEL:
            if part != schema.without_model(stream):
                return False
        elif not all(isinstance(width, int) and 0 < width <= 1 << 20 for width in widths.values()):
            return False
    return any(schema.has_features(settings, stream) for stream in schema.STREAMS)
