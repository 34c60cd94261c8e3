"""Opens one shard, and refuses files that are not one. All reading of shards goes through this module."""

import contextlib
import json
import math
import os
import re
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from haechi.cache import schema
from haechi.cache.errors import CacheError, DamageError
from haechi.cache.schema import Provenance, Seal
from haechi.cache.text import bullet_list

MAX_ATTRIBUTE_BYTES = 60_000
MAX_ROW_BYTES = 4 << 20  # limit for one row of float32 values, from the widths that settings may declare

CHUNK_CACHE_BYTES = 8 << 20  # for each dataset: the default of HDF5 2.0 (older versions: 1 MiB)

# Everything that h5py raises when it cannot read: HDF5's own errors as any of the first four, types that numpy lacks as
# TypeError, absurd sizes as OverflowError.
HDF5_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError)

# How HDF5 says that memory ran out; h5py raises no MemoryError then.
OUT_OF_MEMORY = re.compile(r"memory allocation failed|can't (re)?alloc|unable to allocate|out of memory", re.IGNORECASE)

TEXT_ATTRIBUTES = (
    "format",
    "fingerprint",
    "settings_json",
    "versions_json",
    *(f"{stream}_weights" for stream in schema.STREAMS),
    "device",
    "precision",
    "producer",
    "created",
)


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

    @classmethod
    def open(cls, path: Path) -> "Shard":
        """Open a shard and check it without reading its rows.

        Raises `DamageError` that lists every problem of its structure, and `CacheError` if it cannot be read or has
        another version.
        """
        seal = read_seal(path)
        with open_hdf5(path) as file:
            provenance, attributes = read_attributes(file, path)
            if problems := structure_problems(file, path, provenance.settings, num_bytes=seal.num_bytes):
                lines = [f"/{name} {what}" for name, what in problems]
                raise DamageError(f"{path}: breaks the rules of cache_schema.md:\n{bullet_list(lines)}")
            return cls(
                path=path,
                seal=seal,
                provenance=provenance,
                fingerprint=attributes["fingerprint"],
                created=attributes["created"],
                num_items=count_rows(file, "media/id", path),
                num_failures=count_rows(file, "failure/id", path),
                num_rows={stream: count_rows(file, f"{stream}/features", path) for stream in schema.STREAMS},
            )

    def read(self, *names: str, rows: slice = slice(None)) -> list[np.ndarray]:
        """The given rows of datasets, each in one sequential read; text columns as arrays of `str` objects.

        Raises `DamageError` if HDF5's checksums find altered bytes, and `CacheError` if the file cannot be read.
        """
        with open_hdf5(self.path) as file:
            return [_read_dataset(file, name, self.path, rows) for name in names]

    def read_into(self, result: np.ndarray, name: str, *, ranges: list[tuple[int, int]]) -> None:
        """Fill `result` with the rows of a dataset of numbers that are in `ranges`: (start, stop) pairs, ascending.

        Raises as `read` does.
        """
        # Without HDF5's chunk cache, one range is read in half the time. Several ranges may share a chunk, and with the
        # cache it is read only once.
        with open_hdf5(self.path, chunk_cache_bytes=CHUNK_CACHE_BYTES if len(ranges) > 1 else 0) as file:
            found, length = _sound_dataset(file, name, self.path), count_rows(file, name, self.path)
            if ranges and ranges[-1][1] > length:  # h5py would silently read fewer rows
                raise CacheError(f"{self.path}: /{name} has {length} rows, row {ranges[-1][1] - 1} was requested")
            done = 0
            with read_errors(self.path, name):
                for start, stop in ranges:
                    found.read_direct(result, np.s_[start:stop], np.s_[done : done + stop - start])
                    done += stop - start


def read_seal(path: Path) -> Seal:
    """The shard's seal, checked against the file's size: finds a shard that was cut off.

    Raises `DamageError` if the seal or the size is wrong, and `CacheError` if the file cannot be read.
    """
    with read_errors(path):
        if path.exists() and not path.is_file():  # reading a named pipe would block
            raise CacheError(f"{path}: not a file")
        with path.open("rb") as file:
            block = file.read(schema.USER_BLOCK_BYTES)
        size = path.stat().st_size
    seal = Seal.decode(block, where=str(path))
    if size != schema.USER_BLOCK_BYTES + seal.num_bytes:
        raise DamageError(
            f"{path}: {size} bytes long, sealed as {schema.USER_BLOCK_BYTES + seal.num_bytes}: "
            "cut off or appended to; see `haechi verify --repair`"
        )
    return seal


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


def count_rows(file: h5py.File, name: str, path: Path) -> int:
    """The number of rows of a dataset that `dataset` accepts. Raises as `read_errors` does."""
    with read_errors(path):
        return len(file[name])


def dataset(file: h5py.File, name: str) -> h5py.Dataset | str:
    """The dataset under `name`, or a text that says why it is refused.

    Only plain chunked data inside this file is accepted, because a shard may come from a stranger: no soft or external
    links, virtual datasets, external storage, object types, or filters other than Fletcher32.
    """
    parent: Any = file.id  # h5py's low-level objects: its groups open slowly, and a shard has many datasets
    for part in name.encode().split(b"/"):
        # h5py's `part in file[parent]` would follow an external link before the kind of the link can be checked.
        if not isinstance(parent, h5py.h5g.GroupID) or not parent.links.exists(part):
            return "is missing"
        if parent.links.get_info(part).type != h5py.h5l.TYPE_HARD:
            return "is a soft or external link; only data inside the shard is allowed"
        parent = h5py.h5o.open(parent, part)
    if not isinstance(parent, h5py.h5d.DatasetID):
        return "is not a dataset"
    plist = parent.get_create_plist()
    if plist.get_layout() == h5py.h5d.VIRTUAL or plist.get_external_count():
        return "keeps its data in another file; only data inside the shard is allowed"
    filters = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
    if plist.get_layout() != h5py.h5d.CHUNKED or filters != [h5py.h5z.FILTER_FLETCHER32]:
        return "must be chunked, with the Fletcher32 filter and no other"
    return h5py.Dataset(parent)


def structure_problems(
    file: h5py.File, path: Path, settings: dict[str, Any], *, num_bytes: int
) -> list[tuple[str, str]]:
    """All names, types and shapes that break the contract, as (dataset, problem). Reads no rows.

    Raises `CacheError` if the file cannot be read.
    """
    problems: list[tuple[str, str]] = []

    def check(name: str, dtype: Any, shape: tuple[int | None, ...]) -> int | None:
        """Check one dataset and note its problem; returns its number of rows, or None if there is a problem."""
        try:
            with read_errors(path):
                found = dataset(file, name)
                if isinstance(found, str):
                    what = found
                elif not (what := _mismatch(found, dtype, shape, num_bytes=num_bytes)):
                    return int(found.shape[0])
        except DamageError as error:
            what = f"cannot be opened ({error.__cause__})"
        problems.append((name, what))
        return None

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
    return problems


def _mismatch(found: h5py.Dataset, dtype: Any, shape: tuple[int | None, ...], *, num_bytes: int) -> str:
    """How a dataset differs from the expected type and shape (None: any length); empty if it does not differ."""
    has_type, has_shape = found.dtype, found.shape  # h5py reads them from the file each time
    if dtype is str:
        info = h5py.check_string_dtype(has_type)
        if info is None or info.encoding != "utf-8" or info.length is None:
            return f"has type {has_type}, expected fixed-length UTF-8"
    elif has_type != np.dtype(dtype):
        return f"has type {has_type}, expected {np.dtype(dtype).name}"
    wanted = tuple("any" if want is None else str(want) for want in shape)
    if len(has_shape) != len(shape) or any(
        want not in ("any", str(got)) for got, want in zip(has_shape, wanted, strict=True)
    ):
        return f"has shape {has_shape}, expected ({', '.join(wanted)})"
    size = math.prod(has_shape) * has_type.itemsize
    if size > num_bytes:
        return f"declares {size} bytes, more than the file holds"
    if math.prod(found.chunks) * has_type.itemsize > max(num_bytes, MAX_ROW_BYTES):
        return f"declares chunks of shape {found.chunks}, larger than the file"
    if found.id.get_storage_size() < size:
        return "has rows that were never written"
    return ""


def _read_dataset(file: h5py.File, name: str, path: Path, rows: slice) -> np.ndarray:
    found = _sound_dataset(file, name, path)
    with read_errors(path, name):
        values: np.ndarray = found[rows]
    if values.dtype.kind != "S":
        return values
    try:
        return np.array([value.decode() for value in values], dtype=object)
    except UnicodeDecodeError as error:
        raise DamageError(f"{path}: /{name} holds bytes that are not UTF-8; see `haechi verify`") from error


def _sound_dataset(file: h5py.File, name: str, path: Path) -> h5py.Dataset:
    with read_errors(path):
        found = dataset(file, name)
    if isinstance(found, str):
        raise DamageError(f"{path}: /{name} {found}")
    return found


def _attribute(file: h5py.File, name: str) -> str | int | None:
    """A root attribute that is one text or one integer; None if it is missing or anything else.

    Text of variable length is not read at all: it is in a part of the file without checksums, and some damage there
    makes HDF5 hang.
    """
    if not h5py.h5a.exists(file.id, name.encode()):
        return None
    found = file.attrs.get_id(name)
    if found.shape != () or found.dtype.kind not in "iuS" or found.dtype.itemsize > MAX_ATTRIBUTE_BYTES:
        return None
    value = np.empty((), found.dtype)
    found.read(value)
    if found.dtype.kind != "S":
        return int(value)
    try:
        return str(value.item().decode())
    except UnicodeDecodeError:
        return None


def read_attributes(file: h5py.File, path: Path) -> tuple[Provenance, dict[str, str]]:
    """The root attributes: a `Provenance`, and a dict of every text attribute by its name.

    Raises `CacheError` for another format or version, and `DamageError` if an attribute is missing or has the wrong
    type, or if settings_json does not hash to the fingerprint or lacks fields that readers need.
    """
    with read_errors(path):
        version = _attribute(file, "format_version")
        found = {name: _attribute(file, name) for name in TEXT_ATTRIBUTES}
    text = {name: value for name, value in found.items() if isinstance(value, str)}
    if problems := [f"root attribute {name}" for name in TEXT_ATTRIBUTES if name not in text]:
        raise DamageError(
            f"{path}: missing, or not fixed-length UTF-8 text of at most {MAX_ATTRIBUTE_BYTES} bytes:\n"
            f"{bullet_list(problems)}"
        )
    if text["format"] != schema.FORMAT or version != schema.FORMAT_VERSION:
        kind = DamageError if version is None else CacheError
        raise kind(
            f"{path}: format {text['format']!r} version {version}, "
            f"this Haechi reads {schema.FORMAT!r} version {schema.FORMAT_VERSION}"
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
