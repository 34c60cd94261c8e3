"""Opens one shard and refuses what is not one. Everything that reads a shard goes through here."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cache import schema
from cache.errors import CacheError, bullet_list
from cache.schema import Provenance, Seal

MAX_ATTRIBUTE_BYTES = 60_000  # HDF5 keeps attributes below 64 KiB in the object header


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A shard whose seal, attributes and structure were found in order when it was opened."""

    path: Path
    seal: Seal
    provenance: Provenance
    fingerprint: str
    created: str
    """When it was written, ISO 8601, UTC."""
    num_items: int
    num_failures: int

    @classmethod
    def open(cls, path: Path) -> "Shard":
        """Read a shard's head. Raises `CacheError` that lists everything wrong with it."""
        seal = read_seal(path)
        with open_hdf5(path) as file:
            provenance, attributes = _read_attributes(file, path)
            if problems := structure_problems(file, provenance.settings, num_bytes=seal.num_bytes):
                raise CacheError(f"{path}: breaks the rules of cache_schema.md:\n{bullet_list(problems)}")
            return cls(
                path=path,
                seal=seal,
                provenance=provenance,
                fingerprint=attributes["fingerprint"],
                created=attributes["created"],
                num_items=len(file["media/id"]),
                num_failures=len(file["failure/id"]),
            )

    def read(self, *names: str) -> list[np.ndarray]:
        """Whole datasets, each in one sequential read; strings come as objects of type str.

        Raises `CacheError` where HDF5's checksums find altered bytes.
        """
        with open_hdf5(self.path) as file:
            return [_read_dataset(file, name, self.path) for name in names]


def read_seal(path: Path) -> Seal:
    """The shard's seal, checked against the file's size: tells a shard that was cut off."""
    try:
        with path.open("rb") as file:
            block = file.read(schema.USER_BLOCK_BYTES)
        size = path.stat().st_size
    except OSError as error:
        raise CacheError(f"{path}: cannot be read ({error.strerror})") from error
    seal = Seal.decode(block, where=str(path))
    if size != schema.USER_BLOCK_BYTES + seal.num_bytes:
        raise CacheError(
            f"{path}: {size} bytes long, sealed as {schema.USER_BLOCK_BYTES + seal.num_bytes}: "
            "cut off or appended to; delete it and run extract again"
        )
    return seal


@contextlib.contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """h5py's File for reading; its errors on a damaged file become `CacheError` that names the shard."""
    try:
        file = h5py.File(path, "r", locking="best-effort")
    except OSError as error:
        raise CacheError(f"{path}: HDF5 cannot open it ({error}); see `haechi verify`") from error
    with file:
        yield file


def dataset(file: h5py.File, name: str) -> h5py.Dataset | str:
    """The dataset under `name`, or what is wrong with it.

    Only plain chunked data inside this file is accepted: soft and external links, virtual datasets, external storage,
    filters other than Fletcher32 and object types are refused, since a shard may come from a stranger.
    """
    parent: Any = file
    for part in name.split("/"):
        if not isinstance(parent, h5py.Group) or part not in parent:
            return f"/{name} is missing"
        if not isinstance(parent.get(part, getlink=True), h5py.HardLink):
            return f"/{name} is a soft or external link; only data inside the shard is allowed"
        parent = parent[part]
    if not isinstance(parent, h5py.Dataset):
        return f"/{name} is a group, not a dataset"
    if parent.is_virtual or parent.external:
        return f"/{name} keeps its data in another file; only data inside the shard is allowed"
    if parent.chunks is None or not parent.fletcher32 or parent.compression or parent.scaleoffset is not None:
        return f"/{name} must be chunked, with the Fletcher32 filter and no other"
    return parent


def structure_problems(file: h5py.File, settings: dict[str, Any], *, num_bytes: int) -> list[str]:
    """Everything about names, types and shapes that breaks the contract; reads no rows."""
    problems: list[str] = []

    def check(name: str, dtype: Any, shape: tuple[int | None, ...]) -> int | None:
        """Note what is wrong with a dataset; its number of rows where nothing is."""
        found = dataset(file, name)
        if isinstance(found, str):
            problems.append(found)
            return None
        if dtype is str:
            info = h5py.check_string_dtype(found.dtype)
            right_type = info is not None and info.encoding == "utf-8" and info.length is not None
        else:
            right_type = found.dtype == np.dtype(dtype)
        expected = "fixed-length UTF-8" if dtype is str else np.dtype(dtype).name
        if not right_type:
            problems.append(f"/{name} has type {found.dtype}, expected {expected}")
        elif len(found.shape) != len(shape) or any(
            want is not None and got != want for got, want in zip(found.shape, shape, strict=True)
        ):
            wanted = ", ".join("any" if want is None else str(want) for want in shape)
            problems.append(f"/{name} has shape {found.shape}, expected ({wanted})")
        elif found.nbytes > num_bytes:
            problems.append(f"/{name} declares {found.nbytes} bytes, more than the file holds")
        else:
            return int(found.shape[0])
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


def _read_dataset(file: h5py.File, name: str, path: Path) -> np.ndarray:
    found = dataset(file, name)
    if isinstance(found, str):
        raise CacheError(f"{path}: {found}")
    try:
        values: np.ndarray = found[:]
        if values.dtype.kind == "S":
            return np.array([value.decode() for value in values], dtype=object)
    except OSError as error:
        raise CacheError(f"{path}: /{name} is damaged, its checksum does not match; see `haechi verify`") from error
    except UnicodeDecodeError as error:
        raise CacheError(f"{path}: /{name} holds bytes that are not UTF-8; see `haechi verify`") from error
    return values


def _read_attributes(file: h5py.File, path: Path) -> tuple[Provenance, dict[str, str]]:
    """The root attributes, checked: those that make a `Provenance`, and all that are text."""
    try:
        version = file.attrs.get("format_version")
        names = ("format", "fingerprint", "settings_json", "created", "versions_json")
        names += ("clip_weights", "slowfast_weights", "device", "precision", "producer")
        text = {name: file.attrs[name] for name in names if name in file.attrs}
    except (OSError, RuntimeError, ValueError) as error:
        raise CacheError(f"{path}: its root attributes cannot be read ({error})") from error
    problems = [f"root attribute {name} is missing" for name in names if name not in text]
    problems += [
        f"root attribute {name} is not text of at most {MAX_ATTRIBUTE_BYTES} bytes"
        for name, value in text.items()
        if not isinstance(value, str) or len(value) > MAX_ATTRIBUTE_BYTES
    ]
    if problems:
        raise CacheError(f"{path}: breaks the rules of cache_schema.md:\n{bullet_list(problems)}")
    if text["format"] != schema.FORMAT or version != schema.FORMAT_VERSION:
        raise CacheError(
            f"{path}: format {text['format']!r} version {version}, "
            f"this Haechi reads {schema.FORMAT!r} version {schema.FORMAT_VERSION}"
        )
    try:
        settings, versions = json.loads(text["settings_json"]), json.loads(text["versions_json"])
        well_formed = schema.fingerprint_of(settings) == text["fingerprint"] and settings_are_complete(settings)
    except (ValueError, TypeError, RecursionError):
        well_formed = False
    if not well_formed:
        raise CacheError(f"{path}: settings_json is damaged: it does not hash to the fingerprint, or lacks fields")
    provenance = Provenance(
        settings=settings,
        versions=versions,
        **{name: text[name] for name in ("clip_weights", "slowfast_weights", "device", "precision", "producer")},
    )
    return provenance, text


def settings_are_complete(settings: Any) -> bool:
    """Whether settings_json holds what every reader relies on: storage type, widths, and whether weights are trained."""
    if not isinstance(settings, dict) or settings.get("store") not in schema.STORE_TYPES:
        return False
    for stream, arrays in schema.STREAMS.items():
        part = settings.get(stream)
        if not isinstance(part, dict) or not isinstance(part.get("trained"), bool):
            return False
        widths, wide = part.get("widths"), {name for name, num_axes in arrays.items() if num_axes == 2}
        if not isinstance(widths, dict) or widths.keys() != wide:
            return False
        if not all(isinstance(width, int) and 0 < width <= 1 << 20 for width in widths.values()):
            return False
    return True
