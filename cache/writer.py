"""Writes shards. A shard under its final name is complete (see `haechi.cache.atomic`).

HDF5 builds each shard in memory: if it wrote to a disk that fills up, the process would crash when the file is closed.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from haechi.cache import schema
from haechi.cache.atomic import PARTIAL_PREFIX, replaced
from haechi.cache.schema import Failure, Item, Media, Provenance, Seal

PROVENANCE_TEXT = ("device", "precision", "producer")

# The file layout of HDF5 1.10: later versions read it, its metadata has checksums, and it is smaller than older ones.
LIBRARY_VERSION = ("v110", "v110")


def shard_path(cache: Path, number: int) -> Path:
    """The path of a shard, such as `shard-00000.h5`; `number` is its position in the order of the cache."""
    return cache / f"shard-{number:05d}.h5"


def write_shard(path: Path, items: Sequence[Item], failures: Sequence[Failure], provenance: Provenance) -> None:
    """Write one shard, whole or not at all, with rows in the order of `items` and `failures`.

    Raises `OSError` (disk full, no permission); no temporary file remains then, and an older shard stays as it was.
    """
    image = io.BytesIO()
    with h5py.File(image, "w", libver=LIBRARY_VERSION, userblock_size=schema.USER_BLOCK_BYTES) as file:
        _write_attributes(file, provenance)
        _write_table(file, "media", [item.media for item in items], schema.MEDIA_TYPES)
        _write_table(file, "failure", failures, schema.FAILURE_TYPES)
        for stream in schema.STREAMS:
            _write_stream(file, stream, items, provenance)
    _publish(path, image)


def rewrite_media(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Replace columns of a shard's `/media`, such as `label` or `mtime_ns`; everything else stays byte for byte.

    `columns`: name -> one value for each used video, in the shard's order. An `OSError` leaves the shard as it was.
    """
    image = io.BytesIO(path.read_bytes())
    with h5py.File(image, "r+", libver=LIBRARY_VERSION) as file:
        for name, values in columns.items():
            assert len(values) == len(file["media/id"]), f"{path}: {len(values)} values for /media/{name}"
            del file[f"media/{name}"]
            _write_column(file["media"], name, values, schema.MEDIA_TYPES[name])
    _publish(path, image)


def remove_leftovers(cache: Path) -> None:
    """Delete the temporary files that a killed run left. The caller must hold the cache's lock."""
    for leftover in cache.glob(PARTIAL_PREFIX + schema.SHARD_PATTERN):
        leftover.unlink()


def _publish(path: Path, image: io.BytesIO) -> None:
    """Seal a shard and write it to `path`, whole or not at all."""
    body = image.getbuffer()[schema.USER_BLOCK_BYTES :]
    seal = Seal(sha256=hashlib.sha256(body).hexdigest(), num_bytes=len(body))
    with replaced(path) as partial, partial.open("wb") as file:
        file.write(seal.encode())
        file.write(body)


def _write_attributes(file: h5py.File, provenance: Provenance) -> None:
    file.attrs["format_version"] = np.int64(schema.FORMAT_VERSION)
    text = {
        "format": schema.FORMAT,
        "fingerprint": schema.fingerprint_of(provenance.settings),
        "settings_json": schema.canonical_json(provenance.settings),
        "versions_json": schema.canonical_json(provenance.versions),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    text |= {f"{stream}_weights": provenance.weights[stream] for stream in schema.STREAMS}
    text |= {name: getattr(provenance, name) for name in PROVENANCE_TEXT}
    for name, value in text.items():
        encoded = value.encode()
        file.attrs.create(name, encoded, dtype=h5py.string_dtype("utf-8", len(encoded) or 1))


def _write_table(file: h5py.File, name: str, rows: Sequence[Media | Failure], types: dict[str, Any]) -> None:
    group = file.create_group(name)
    for column, dtype in types.items():
        _write_column(group, column, [getattr(row, column) for row in rows], dtype)


def _write_column(group: h5py.Group, name: str, values: Sequence[Any], dtype: Any) -> None:
    if dtype is str:
        encoded = [value.encode() for value in values]
        length = max(map(len, encoded), default=0) or 1  # HDF5 has no strings of length 0
        dtype, values = h5py.string_dtype("utf-8", length), encoded
    _write_array(group, name, np.array(values, dtype=dtype))


def _write_array(group: h5py.Group, name: str, array: np.ndarray) -> None:
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


def _write_stream(file: h5py.File, stream: str, items: Sequence[Item], provenance: Provenance) -> None:
    group = file.create_group(stream)
    store = provenance.settings["store"]
    widths = provenance.settings[stream]["widths"]
    lengths = [len(item.arrays[f"{stream}/features"]) for item in items]
    _write_array(group, "offset", np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
    for name, num_axes in schema.STREAMS[stream].items():
        dtype = store if num_axes == 2 else "float32"
        shape = (0, widths[name]) if num_axes == 2 else (0,)
        arrays = [item.arrays[f"{stream}/{name}"] for item in items]
        assert all(a.dtype == dtype and a.shape[1:] == shape[1:] for a in arrays), (
            f"/{stream}/{name}: wrong type or width"
        )
        _write_array(group, name, np.concatenate([np.empty(shape, dtype), *arrays]))
