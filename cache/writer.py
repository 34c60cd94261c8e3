"""Writes shards. A shard under its final name is complete (see `haechi.cache.atomic`).

HDF5 builds each shard in memory: if it wrote to a disk that fills up, the process would crash when the file is closed.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from haechi.cache import schema
from haechi.cache.atomic import PARTIAL_PREFIX, replaced
from haechi.cache.bad_rows import find_bad_rows
from haechi.cache.hdf5 import read_errors
from haechi.cache.indexed import BadRows, Index, Place, place
from haechi.cache.schema import Failure, Item, Media, Provenance, Seal
from haechi.cache.shard import Shard
from haechi.cache.slices import remove_unnamed

PROVENANCE_TEXT = ("device", "precision", "producer")

# The file layout of HDF5 1.10: later versions read it, its metadata has checksums, and it is smaller than older ones.
LIBRARY_VERSION = ("v110", "v110")

# Version 2: datasets of at least the first number of bytes start at a multiple of the second, for programs that map
# them into memory.
ALIGNMENT = {"alignment_threshold": 4096, "alignment_interval": 64}


@dataclass(kw_only=True)
class _Draft:
    """What is known of a new index while the datasets are written."""

    places: dict[str, Place] = field(default_factory=dict)
    num_zero: int = 0
    num_nonfinite: int = 0


def shard_path(cache: Path, number: int) -> Path:
    """The path of a shard, such as `shard-00000.h5`; `number` is its position in the order of the cache."""
    return cache / f"shard-{number:05d}.h5"


def write_shard(
    path: Path,
    items: Sequence[Item],
    failures: Sequence[Failure],
    provenance: Provenance,
    *,
    version: int = schema.FORMAT_VERSION,
    created: str = "",
) -> None:
    """Write one shard, whole or not at all, with rows in the order of `items` and `failures`.

    `created`: what it says about when it was written, ISO 8601; empty: now.

    Raises `OSError` (disk full, no permission); no temporary file remains then, and an older shard stays as it was.
    """
    image = io.BytesIO()
    draft = _Draft() if version > 1 else None
    with _open_image(image, "w", version) as file:
        attributes = _write_attributes(file, provenance, version, created or now())
        _write_table(file, "media", [item.media for item in items], schema.MEDIA_TYPES, draft)
        _write_table(file, "failure", failures, schema.FAILURE_TYPES, draft)
        for stream in schema.STREAMS:
            _write_stream(file, stream, items, provenance, draft)
        index = (0, 0) if draft is None else _write_index(file, attributes, draft)
    _publish(path, image, version=version, index=index)


def rewrite_media(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Replace columns of a shard's `/media`, such as `label` or `mtime_ns`; everything else stays byte for byte.

    `columns`: name -> one value for each used video, in the shard's order. Raises as `Shard.open` does, and
    `DamageError` if HDF5 cannot read the shard, whose rows may be sound; an `OSError` leaves the shard as it was.
    """
    shard = Shard.open(path)
    image = io.BytesIO(path.read_bytes())
    draft = None
    if shard.index is not None:
        # The other columns and the features keep their checksums, so that damage to them is still found.
        bad_rows = shard.index.bad_rows
        draft = _Draft(places=dict(shard.index.datasets), num_zero=bad_rows.zero, num_nonfinite=bad_rows.nonfinite)
    with read_errors(path), _open_image(image, "r+", shard.version) as file:
        for name, values in columns.items():
            assert len(values) == shard.num_items, f"{path}: {len(values)} values for /media/{name}"
            dtype = schema.MEDIA_TYPES[name]
            del file[f"media/{name}"]
            _write_column(file["media"], name, values, dtype, draft)
        index = (0, 0)
        if shard.index is not None and draft is not None:
            del file[schema.INDEX]
            index = _write_index(file, shard.index.attributes, draft)
    _publish(path, image, version=shard.version, index=index)


def remove_leftovers(cache: Path) -> None:
    """Delete what killed runs left: temporary files, and of finished slices what is not part of the cache.

    The caller must hold the cache's lock.
    """
    for leftover in cache.glob(PARTIAL_PREFIX + schema.SHARD_PATTERN):
        leftover.unlink()
    remove_unnamed(cache)


def _publish(path: Path, image: io.BytesIO, *, version: int, index: tuple[int, int]) -> None:
    """Seal a shard and write it to `path`, whole or not at all."""
    body = image.getbuffer()[schema.USER_BLOCK_BYTES :]
    digest = schema.new_digest(version)
    digest.update(body)
    seal = Seal(version=version, digest=digest.hexdigest(), num_bytes=len(body), index=index)
    with replaced(path) as partial, partial.open("wb") as file:
        file.write(seal.encode())
        file.write(body)


def _open_image(image: io.BytesIO, mode: str, version: int) -> h5py.File:
    options = {} if version == 1 else ALIGNMENT
    if mode == "w":
        options = options | {"userblock_size": schema.USER_BLOCK_BYTES}
    return h5py.File(image, mode, libver=LIBRARY_VERSION, **options)


def now() -> str:
    """The time in the form that a shard has it: ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _write_attributes(file: h5py.File, provenance: Provenance, version: int, created: str) -> dict[str, str | int]:
    """Write the root attributes, and return them."""
    file.attrs[schema.VERSION_ATTRIBUTE] = np.int64(version)
    text = {
        "format": schema.FORMAT,
        "fingerprint": schema.fingerprint_of(provenance.settings),
        "settings_json": schema.canonical_json(provenance.settings),
        "versions_json": schema.canonical_json(provenance.versions),
        "created": created,
    }
    text |= {f"{stream}_weights": provenance.weights[stream] for stream in schema.STREAMS}
    text |= {name: getattr(provenance, name) for name in PROVENANCE_TEXT}
    for name, value in text.items():
        encoded = value.encode()
        file.attrs.create(name, encoded, dtype=h5py.string_dtype("utf-8", len(encoded) or 1))
    return {**text, schema.VERSION_ATTRIBUTE: version}


def _write_index(file: h5py.File, attributes: dict[str, str | int], draft: _Draft) -> tuple[int, int]:
    """Write the index of all datasets; returns its first byte in the file and its number of bytes."""
    bad_rows = BadRows(zero=draft.num_zero, nonfinite=draft.num_nonfinite)
    content = Index(attributes=attributes, datasets=draft.places, bad_rows=bad_rows).encode()
    dtype = h5py.string_dtype("utf-8", len(content))
    written = file.create_dataset(schema.INDEX, data=np.array(content, dtype=dtype), track_times=False)
    return written.id.get_offset(), len(content)


def _write_table(
    file: h5py.File, name: str, rows: Sequence[Media | Failure], types: dict[str, Any], draft: _Draft | None
) -> None:
    group = file.create_group(name)
    for column, dtype in types.items():
        values = [getattr(row, column) for row in rows]
        if any(values) or f"{name}/{column}" not in schema.OPTIONAL:
            _write_column(group, column, values, dtype, draft)


def _write_column(group: h5py.Group, name: str, values: Sequence[Any], dtype: Any, draft: _Draft | None) -> None:
    if dtype is str:
        encoded = [value.encode() for value in values]
        length = max(map(len, encoded), default=0) or 1  # HDF5 has no strings of length 0
        dtype, values = h5py.string_dtype("utf-8", length), encoded
    _write_array(group, name, np.array(values, dtype=dtype), draft)


def _write_array(group: h5py.Group, name: str, array: np.ndarray, draft: _Draft | None) -> None:
    """Write a dataset: of version 1, or of version 2 with its place and its bad rows in the draft of the index."""
    if draft is None:
        row_bytes = max(1, array[:1].nbytes)
        chunk_rows = max(1, min(len(array), schema.CHUNK_BYTES // row_bytes))
        group.create_dataset(
            name,
            data=array,
            chunks=(chunk_rows, *(max(1, number) for number in array.shape[1:])),
            maxshape=tuple(number or None for number in array.shape),  # chunks must fit into the shape
            fletcher32=True,
            track_times=False,
        )
        return
    written = group.create_dataset(name, data=array, track_times=False)
    draft.places[f"{group.name[1:]}/{name}"] = place(array, written.id.get_offset() or 0)
    if array.ndim == 2:
        nonfinite, zero = find_bad_rows(array)
        draft.num_nonfinite += int(nonfinite.sum())
        draft.num_zero += int(zero.sum())


def _write_stream(
    file: h5py.File, stream: str, items: Sequence[Item], provenance: Provenance, draft: _Draft | None
) -> None:
    group = file.create_group(stream)
    store = provenance.settings["store"]
    widths = provenance.settings[stream]["widths"]
    lengths = [len(item.arrays[f"{stream}/features"]) for item in items]
    _write_array(group, "offset", np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), draft)
    for name, num_axes in schema.STREAMS[stream].items():
        dtype = store if num_axes == 2 else "float32"
        shape = (0, widths[name]) if num_axes == 2 else (0,)
        arrays = [item.arrays[f"{stream}/{name}"] for item in items]
        assert all(a.dtype == dtype and a.shape[1:] == shape[1:] for a in arrays), (
            f"/{stream}/{name}: wrong type or width"
        )
        _write_array(group, name, np.concatenate([np.empty(shape, dtype), *arrays]), draft)
