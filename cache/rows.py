"""Copies some rows of a shard, with their features, as the writer takes them."""

from pathlib import Path
from typing import Any

import numpy as np

from haechi.cache import schema
from haechi.cache.content import Content
from haechi.cache.schema import Failure, Item, Media
from haechi.cache.shard import is_left_out, sound_array


def read_items(content: Content, path: Path, rows: np.ndarray) -> list[Item]:
    """The used videos, with their features, of the ascending rows (n,) of `/media`, which must be sound."""
    if not len(rows):
        return []  # the offsets may be damaged
    arrays: list[dict[str, np.ndarray]] = [{} for _ in rows]
    for stream, names in schema.STREAMS.items():
        offset = content.read(f"{stream}/offset", 0, sound_array(content, f"{stream}/offset", path).shape[0])
        lengths = offset[rows + 1] - offset[rows]  # (n,)
        ends = np.cumsum(lengths)
        stream_rows = np.arange(ends[-1]) + np.repeat(offset[rows] - (ends - lengths), lengths)
        for name in names:
            parts = np.split(_take(content, path, f"{stream}/{name}", stream_rows), ends[:-1])
            for item, part in zip(arrays, parts, strict=True):
                item[f"{stream}/{name}"] = part
    media = _table(content, path, "media", schema.MEDIA_TYPES, rows)
    return [Item(media=Media(**row), arrays=item) for row, item in zip(media, arrays, strict=True)]


def read_failures(content: Content, path: Path, rows: np.ndarray) -> list[Failure]:
    """The ascending rows (n,) of `/failure`, which must be sound."""
    return [Failure(**row) for row in _table(content, path, "failure", schema.FAILURE_TYPES, rows)]


def _table(content: Content, path: Path, table: str, types: dict[str, Any], rows: np.ndarray) -> list[dict[str, Any]]:
    """Some rows (n,) of a table, each as column -> value, without columns that are left out."""
    types = {column: dtype for column, dtype in types.items() if not is_left_out(content, f"{table}/{column}")}
    columns = [_take(content, path, f"{table}/{column}", rows).tolist() for column in types]
    decoded = [
        [value.decode() for value in values] if dtype is str else values
        for values, dtype in zip(columns, types.values(), strict=True)
    ]
    return [dict(zip(types, row, strict=True)) for row in zip(*decoded, strict=True)]


def _take(content: Content, path: Path, name: str, rows: np.ndarray) -> np.ndarray:
    """Ascending rows (n,) of a dataset. Blocks without any of these rows are not read: they may be damaged."""
    found = sound_array(content, name, path)
    length, step = found.shape[0], found.block_rows
    parts = [content.read(name, 0, 0)]
    for start in np.unique(rows // step * step).tolist():
        inside = rows[(rows >= start) & (rows < start + step)]
        block = content.read(name, start, min(start + step, length))
        parts.append(block[inside - start])
    return np.concatenate(parts)
