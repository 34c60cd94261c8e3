"""Drops what is damaged in a cache, so that the next `haechi extract` does just that again."""

import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from haechi.cache import schema
from haechi.cache.errors import CacheError
from haechi.cache.integrity.shard_check import Fate, ShardCheck
from haechi.cache.integrity.verify import Report, check_shards, report_on
from haechi.cache.lock import locked
from haechi.cache.reader import shard_paths
from haechi.cache.schema import Failure, Item, Media
from haechi.cache.shard import dataset, open_hdf5, read_attributes, read_errors
from haechi.cache.writer import remove_leftovers, write_shard

DAMAGED_SUFFIX = ".damaged"

Rows = dict[str, set[int]]  # of the tables `media` and `failure`


@dataclass(frozen=True, kw_only=True)
class RepairedShard:
    """What was done to one shard: rewritten without some rows, or put aside whole."""

    shard: str
    """Its file name."""
    put_aside: str
    """The file name that it has now; empty: it was rewritten."""
    kept: int
    """Rows that it still has, used and failed."""
    videos: list[str]
    """Ids of bad rows of `/media` that it lost."""
    failures: list[str]
    """Ids of bad rows of `/failure` that it lost."""
    older: list[str]
    """Ids of sound rows that it lost: they would count again, now that a bad row in a later shard is gone."""
    num_nameless: int
    """Bad rows that it lost and whose ids cannot be read."""
    are_ids_lost: bool
    """Whether ids of lost rows are unknown, so that rows of theirs in earlier shards count again."""


@dataclass(frozen=True, kw_only=True)
class Repair:
    """What `repair` found and did."""

    found: Report
    """Before the repair."""
    left: Report
    """After it."""
    shards: list[RepairedShard]
    to_redo: list[str]
    """Ids of which no row is left."""

    @property
    def is_sound(self) -> bool:
        """Whether there is a cache, and nothing is wrong with it."""
        return self.left.num_shards > 0 and not self.left.problems

    @property
    def are_ids_lost(self) -> bool:
        """Whether there is more to redo than `to_redo` names."""
        return any(shard.are_ids_lost for shard in self.shards)


def repair(path: Path) -> Repair:
    """Check a cache, drop its bad rows, put aside what cannot be read, and check it again.

    Shards that are no damage of ours (no permission, an I/O error, another version, other settings) are left as they
    are. Raises `CacheError` where there are no shards, where another run is writing, and where a shard cannot be
    rewritten: it and those after it are as they were.
    """
    shard_paths(path)  # no lock where there is no directory
    with locked(path):
        remove_leftovers(path)
        checks = check_shards(path)
        found = report_on(path, checks)
        ids = [_ids(check) for check in checks]
        drops, to_redo = _plan(checks, ids)
        done: list[RepairedShard] = []
        # Oldest first: until the row that supersedes them is gone, no older row that is still there counts.
        for check, drop, known in zip(checks, drops, ids, strict=True):
            if check.fate is Fate.NOT_OURS or (check.fate is Fate.SOUND and not any(drop.values())):
                continue
            try:
                done.append(_put_aside(check, known) if check.fate is Fate.LOST else _rewrite(check, drop, known))
            except (OSError, CacheError) as error:
                reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
                raise CacheError(
                    f"{check.path}: could not be repaired ({reason}); it and the shards after it are as they were, "
                    f"{len(done)} before it are repaired; run the same command again when the cause is gone"
                ) from error
        left = found
        if done:
            left = report_on(path, check_shards(path) if shard_paths(path) else [])
    return Repair(found=found, left=left, shards=done, to_redo=to_redo)


def _plan(checks: list[ShardCheck], ids: list[dict[str, list[str] | None]]) -> tuple[list[Rows], list[str]]:
    """For each shard the rows to drop, and the ids of which no row stays.

    These are the bad rows, and where the row of an id that counts is bad, its rows in earlier shards too: they were
    superseded, and none of them must count again.
    """
    drops: list[Rows] = [{table: set(rows) for table, rows in check.bad_rows.items()} for check in checks]
    places: dict[str, list[tuple[int, str, int]]] = defaultdict(list)
    for i, (check, known) in enumerate(zip(checks, ids, strict=True)):
        if check.fate is Fate.NOT_OURS:
            continue
        for table, of_table in known.items():
            for row, id in enumerate(of_table or ()):
                if check.fate is Fate.LOST:
                    drops[i][table].add(row)
                places[id].append((i, table, row))
    places.pop("", None)
    to_redo = []
    for id, of_id in places.items():
        last, table, row = of_id[-1]
        if row in drops[last][table]:
            to_redo.append(id)
            for i, table, row in of_id:
                drops[i][table].add(row)
    return drops, to_redo


def _ids(check: ShardCheck) -> dict[str, list[str] | None]:
    """The ids of a shard's tables; where the shard could not be read they are tried alone."""
    if check.fate is not Fate.LOST:
        return check.ids
    return {table: known or _ids_alone(check.path, f"{table}/id") for table, known in check.ids.items()}


def _ids_alone(path: Path, name: str) -> list[str] | None:
    """The ids in one dataset, whatever else is wrong with the shard; None where they cannot be read."""
    try:
        with open_hdf5(path) as file, read_errors(path):
            found = dataset(file, name)
            if isinstance(found, str) or found.ndim != 1 or found.dtype.kind != "S":
                return None
            if found.size * found.dtype.itemsize > path.stat().st_size:
                return None
            values = found[:].tolist()
        return [value.decode(errors="replace") for value in values]
    except CacheError:
        return None


def _put_aside(check: ShardCheck, ids: dict[str, list[str] | None]) -> RepairedShard:
    """Rename a shard so that it is no part of the cache any more; never over another file."""
    target = check.path.with_name(check.path.name + DAMAGED_SUFFIX)
    number = 1
    while os.path.lexists(target):
        number += 1
        target = check.path.with_name(f"{check.path.name}{DAMAGED_SUFFIX}-{number}")
    check.path.rename(target)
    return RepairedShard(
        shard=check.path.name,
        put_aside=target.name,
        kept=0,
        videos=ids["media"] or [],
        failures=ids["failure"] or [],
        older=[],
        num_nameless=0,
        are_ids_lost=None in ids.values(),
    )


def _rewrite(check: ShardCheck, drop: Rows, ids: dict[str, list[str] | None]) -> RepairedShard:
    """Write a shard anew without the rows to drop."""
    keep = {
        table: np.array([row for row in range(number) if row not in drop[table]], np.int64)
        for table, number in check.num_rows.items()
    }
    with open_hdf5(check.path) as file:
        provenance, _ = read_attributes(file, check.path)
        items = _items(file, check.path, keep["media"])
        failures = [
            Failure(**row) for row in _table(file, check.path, "failure", schema.FAILURE_TYPES, keep["failure"])
        ]
    write_shard(check.path, items, failures, provenance)

    def named(table: str, rows: Iterable[int]) -> list[str]:
        known = ids[table] or []
        return [known[row] for row in sorted(rows) if row < len(known) and known[row]]

    bad = {table: named(table, rows) for table, rows in check.bad_rows.items()}
    num_nameless = sum(len(rows) for rows in check.bad_rows.values()) - sum(map(len, bad.values()))
    return RepairedShard(
        shard=check.path.name,
        put_aside="",
        kept=sum(map(len, keep.values())),
        videos=bad["media"],
        failures=bad["failure"],
        older=[id for table, rows in drop.items() for id in named(table, rows - check.bad_rows[table])],
        num_nameless=num_nameless,
        are_ids_lost=num_nameless > 0,
    )


def _items(file: h5py.File, path: Path, rows: np.ndarray) -> list[Item]:
    """The used videos in the rows (n,) of `/media`, which are sound, with their features."""
    if not len(rows):
        return []  # the offsets may be damaged
    arrays: list[dict[str, np.ndarray]] = [{} for _ in rows]
    for stream, names in schema.STREAMS.items():
        with read_errors(path, f"{stream}/offset"):
            offset = file[f"{stream}/offset"][:]
        lengths = offset[rows + 1] - offset[rows]  # (n,)
        ends = np.cumsum(lengths)
        stream_rows = np.arange(ends[-1]) + np.repeat(offset[rows] - (ends - lengths), lengths)
        for name in names:
            parts = np.split(_take(file, path, f"{stream}/{name}", stream_rows), ends[:-1])
            for item, part in zip(arrays, parts, strict=True):
                item[f"{stream}/{name}"] = part
    media = _table(file, path, "media", schema.MEDIA_TYPES, rows)
    return [Item(media=Media(**row), arrays=item) for row, item in zip(media, arrays, strict=True)]


def _table(file: h5py.File, path: Path, table: str, types: dict[str, Any], rows: np.ndarray) -> list[dict[str, Any]]:
    """Some rows (n,) of a table, each as column -> value."""
    columns = [_take(file, path, f"{table}/{column}", rows).tolist() for column in types]
    decoded = [
        [value.decode() for value in values] if dtype is str else values
        for values, dtype in zip(columns, types.values(), strict=True)
    ]
    return [dict(zip(types, row, strict=True)) for row in zip(*decoded, strict=True)]


def _take(file: h5py.File, path: Path, name: str, rows: np.ndarray) -> np.ndarray:
    """Rows (n,), ascending, of a dataset; reads no chunk that holds none of them, since it may be damaged."""
    with read_errors(path, name):
        found, step = file[name], file[name].chunks[0]
        parts = [found[:0]]
    for start in np.unique(rows // step * step).tolist():
        inside = rows[(rows >= start) & (rows < start + step)]
        with read_errors(path, name):
            chunk = found[start : start + step]
        parts.append(chunk[inside - start])
    return np.concatenate(parts)
