"""Drops the damaged rows of a cache, so that the next `haechi extract` redoes exactly these videos."""

import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from haechi.cache.errors import CacheError
from haechi.cache.hdf5 import read_errors
from haechi.cache.integrity.shard_check import Condition, ShardCheck
from haechi.cache.integrity.slice_check import rewrite_records
from haechi.cache.integrity.verify import Verification, check_shards, summed_up
from haechi.cache.lock import locked
from haechi.cache.reader import existing_shard_paths, shard_paths
from haechi.cache.rows import read_failures, read_items
from haechi.cache.shard import open_content, read_attributes
from haechi.cache.text import counted
from haechi.cache.writer import remove_leftovers, write_shard

DAMAGED_SUFFIX = ".damaged"

RowNumbers = dict[str, set[int]]  # table (`media` or `failure`) -> numbers of rows in it


@dataclass(frozen=True, kw_only=True)
class RepairedShard:
    """What was done to one shard: it was rewritten without some rows, or renamed whole."""

    shard: str
    """Its file name."""
    put_aside: str
    """Its file name after it was renamed; empty if it was rewritten instead."""
    kept: int
    """Number of rows that it still has, used and failed."""
    videos: list[str]
    """Ids of dropped rows of `/media` that were bad."""
    failures: list[str]
    """Ids of dropped rows of `/failure` that were bad."""
    older: list[str]
    """Ids of sound rows that were dropped because a bad row in a later shard superseded them; with that row gone, they
    would count again."""
    num_nameless: int
    """Number of dropped bad rows whose ids cannot be read."""
    are_ids_lost: bool
    """Whether ids of dropped rows are unknown. Rows of these ids in earlier shards then count again."""


@dataclass(frozen=True, kw_only=True)
class Repair:
    """What `repair` found and did."""

    found: Verification
    """The cache before the repair."""
    left: Verification
    """The cache after the repair."""
    shards: list[RepairedShard]
    to_redo: list[str]
    """Ids that have no row any more."""

    @property
    def is_sound(self) -> bool:
        """Whether there is a cache without problems."""
        return self.left.num_shards > 0 and not self.left.problems

    @property
    def are_ids_lost(self) -> bool:
        """Whether videos must be redone that `to_redo` does not list, because their ids are unknown."""
        return any(shard.are_ids_lost for shard in self.shards)


def repair(path: Path) -> Repair:
    """Check a cache, drop its bad rows, rename shards that cannot be read, and check it again.

    Shards with problems other than damage (no permission, an I/O error, another version, other settings) are not
    changed. Raises `CacheError` if there are no shards, if another run is writing, or if a shard cannot be rewritten;
    that shard and the later ones are unchanged then.
    """
    existing_shard_paths(path)  # raises before the lock file would be created
    with locked(path):
        remove_leftovers(path)
        checks = check_shards(path)
        found = summed_up(path, checks)
        ids = [_ids(check) for check in checks]
        drops, to_redo = _plan(checks, ids)
        done: list[RepairedShard] = []
        # Oldest shard first: older rows are dropped before the row that supersedes them, so they never count again.
        for check, drop, known in zip(checks, drops, ids, strict=True):
            if check.condition is Condition.NOT_DAMAGE or (
                check.condition is Condition.SOUND and not any(drop.values())
            ):
                continue
            try:
                done.append(
                    _put_aside(check, known) if check.condition is Condition.LOST else _rewrite(check, drop, known)
                )
            except (OSError, CacheError) as error:
                reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
                raise CacheError(
                    f"{check.path}: could not be repaired ({reason}); it and the shards after it are unchanged, "
                    f"repaired before it: {counted(len(done), 'shard')}; "
                    "remove the cause and run the same command again"
                ) from error
        has_new_records = bool(found.problems) and rewrite_records(path)
        left = found
        if done or has_new_records:
            left = summed_up(path, check_shards(path) if shard_paths(path) else [])
    return Repair(found=found, left=left, shards=done, to_redo=to_redo)


def _plan(checks: list[ShardCheck], ids: list[dict[str, list[str] | None]]) -> tuple[list[RowNumbers], list[str]]:
    """The rows to drop from each shard, and the ids that have no row any more after that.

    Bad rows are dropped. If the row of an id that counts is bad, its rows in earlier shards are dropped too: they were
    superseded and must not count again.
    """
    drops: list[RowNumbers] = [{table: set(rows) for table, rows in check.bad_rows.items()} for check in checks]
    locations: dict[str, list[tuple[int, str, int]]] = defaultdict(list)
    for i, (check, known) in enumerate(zip(checks, ids, strict=True)):
        if check.condition is Condition.NOT_DAMAGE:
            continue
        for table, table_ids in known.items():
            for row, id in enumerate(table_ids or ()):
                if check.condition is Condition.LOST:
                    drops[i][table].add(row)
                locations[id].append((i, table, row))
    locations.pop("", None)
    to_redo = []
    for id, id_locations in locations.items():
        last, table, row = id_locations[-1]
        if row in drops[last][table]:
            to_redo.append(id)
            for i, table, row in id_locations:
                drops[i][table].add(row)
    return drops, to_redo


def _ids(check: ShardCheck) -> dict[str, list[str] | None]:
    """Table -> the ids in it. If the check could not read them, they are read here without the rest of the shard."""
    if check.condition is not Condition.LOST:
        return check.ids
    return {table: known or _ids_alone(check, f"{table}/id") for table, known in check.ids.items()}


def _ids_alone(check: ShardCheck, name: str) -> list[str] | None:
    """The ids in one dataset of a damaged shard; None if they cannot be read."""
    try:
        with open_content(check.path, check.index) as content, read_errors(check.path):
            found = content.array(name)
            if isinstance(found, str) or len(found.shape) != 1 or found.dtype.kind != "S":
                return None
            if found.shape[0] * found.dtype.itemsize > check.path.stat().st_size:
                return None
            values = content.read(name, 0, found.shape[0]).tolist()
        return [value.decode(errors="replace") for value in values]
    except CacheError:
        return None


def _put_aside(check: ShardCheck, ids: dict[str, list[str] | None]) -> RepairedShard:
    """Rename a shard so that it is no longer part of the cache; no other file is overwritten."""
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


def _rewrite(check: ShardCheck, drop: RowNumbers, ids: dict[str, list[str] | None]) -> RepairedShard:
    """Write a shard again without the rows to drop."""
    keep = {
        table: np.array([row for row in range(number) if row not in drop[table]], np.int64)
        for table, number in check.num_rows.items()
    }
    with open_content(check.path, check.index) as content:
        provenance, _ = read_attributes(content, check.path, version=check.version)
        items = read_items(content, check.path, keep["media"])
        failures = read_failures(content, check.path, keep["failure"])
    write_shard(check.path, items, failures, provenance, version=check.version)

    def ids_at(table: str, rows: Iterable[int]) -> list[str]:
        known = ids[table] or []
        return [known[row] for row in sorted(rows) if row < len(known) and known[row]]

    bad = {table: ids_at(table, rows) for table, rows in check.bad_rows.items()}
    num_nameless = sum(len(rows) for rows in check.bad_rows.values()) - sum(map(len, bad.values()))
    return RepairedShard(
        shard=check.path.name,
        put_aside="",
        kept=sum(map(len, keep.values())),
        videos=bad["media"],
        failures=bad["failure"],
        older=[id for table, rows in drop.items() for id in ids_at(table, rows - check.bad_rows[table])],
        num_nameless=num_nameless,
        are_ids_lost=num_nameless > 0,
    )
