"""Checks the records of slices against what their shards hold: every row once, in its own slice, and none missing."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from haechi.cache.atomic import replace_text
from haechi.cache.errors import CacheError
from haechi.cache.integrity.shard_check import Problem, ShardCheck
from haechi.cache.shard import Shard
from haechi.cache.slices import (
    PIN_NAME,
    Pin,
    Record,
    SliceShard,
    content_digest,
    finished_work,
    ids_digest,
    read_records,
    record_path,
    slice_of,
    unfinished_slices,
    unnamed_shards,
)
from haechi.cache.text import counted


def slice_problems(path: Path, checks: Sequence[ShardCheck]) -> tuple[list[Problem], list[str]]:
    """What is wrong with the slices of a cache, whose shards were checked, and notes; nothing without slices.

    Raises `CacheError` if the pin or a record cannot be used.
    """
    pin = Pin.read(path)
    if pin is None:
        return [], []
    records, by_name = read_records(pin), {check.path.name: check for check in checks}
    problems = [
        Problem(shard=record_path(path, record.number).name, what=what)
        for record in records.values()
        for what in _record_problems(record, by_name)
    ]
    problems += [
        Problem(shard=check.path.name, what=f"made with other settings than {PIN_NAME} has")
        for check in checks
        if check.settings is not None and check.settings != pin.settings
    ]
    return problems, _notes(pin, records)


def _record_problems(record: Record, checks: Mapping[str, ShardCheck]) -> list[str]:
    """What a record says otherwise than its shards.

    Nothing for shards with problems of their own, and for a slice that was committed after its shards were looked for.
    """
    found = [checks[each.name] for each in record.shards if each.name in checks]
    if len(found) < len(record.shards) or any(check.problems for check in found):
        return []
    problems = [
        f"{each.name} has another content than when it was committed"
        for each, check in zip(record.shards, found, strict=True)
        if check.index is None or content_digest(check.index) != each.digest
    ]
    for table, number in (("media", record.num_used), ("failure", record.num_failed)):
        if (rows := sum(check.num_rows[table] for check in found)) != number:
            problems.append(f"says {number} rows of /{table}, its shards have {rows}")
    for each, check in zip(record.shards, found, strict=True):
        if (rows := sum(check.num_rows.values())) != each.num_rows:
            problems.append(f"says {counted(each.num_rows, 'row')} in {each.name}, which has {rows}")
    ids = [id for check in found for known in check.ids.values() for id in known or ()]
    if len(set(ids)) != len(ids):
        problems.append(f"{counted(len(ids) - len(set(ids)), 'row')} with an id that the slice has twice")
    if foreign := sum(slice_of(id, record.num_slices) != record.number for id in ids):
        problems.append(f"{counted(foreign, 'row')} of other slices")
    if not problems and ids_digest(ids) != record.ids_sha256:
        problems.append("its shards have other ids than when it was committed")
    return problems


def _notes(pin: Pin, records: Mapping[int, Record]) -> list[str]:
    """Sentences about slices that are not finished, and about what stopped runs left."""
    notes = []
    if unfinished := unfinished_slices(pin.path):
        notes.append(unfinished)
    lengths = sorted({record.num_manifest_rows for record in records.values()})
    num_rows = sum(record.num_rows for record in records.values())
    if len(lengths) > 1:
        numbers = ", ".join(map(str, lengths))
        notes.append(
            f"slices were cut from manifests of different lengths ({numbers} rows); `haechi extract` without --slice "
            "adds what is missing"
        )
    elif not unfinished and lengths != [num_rows]:
        notes.append(
            f"the slices have {num_rows} rows, their manifest had {lengths[0]}; `haechi extract` without --slice adds "
            "what is missing"
        )
    left = "was left by a stopped or slower run; the next `haechi extract` removes it"
    notes += [f"{shard.name} is named by no record: it {left}" for shard in unnamed_shards(pin, records.values())]
    notes += [
        f"{folder.relative_to(pin.path)} is the work folder of a finished slice: it {left}"
        for folder in finished_work(pin.path, records)
    ]
    return notes


def rewrite_records(path: Path) -> bool:
    """Let the records of slices say what their shards hold after a repair, so that they name no shard that is gone.

    Returns whether any record changed. Records of shards that cannot be read are left as they are.
    """
    pin, has_changed = Pin.read(path), False
    for record in read_records(pin).values() if pin is not None else ():
        try:
            shards = [Shard.open(path / each.name) for each in record.shards if (path / each.name).exists()]
            tables = [shard.read("media/id", "failure/id", "failure/reason") for shard in shards]
        except CacheError:
            continue
        reasons = [reason for _, _, found in tables for reason in found]
        new = replace(
            record,
            num_used=sum(len(ids) for ids, _, _ in tables),
            failures={reason: reasons.count(reason) for reason in sorted(set(reasons))},
            ids_sha256=ids_digest(id for used, failed, _ in tables for id in (*used, *failed)),
            shards=tuple(
                SliceShard(
                    name=shard.path.name,
                    num_rows=shard.num_items + shard.num_failures,
                    digest=content_digest(shard.index) if shard.index is not None else "",
                )
                for shard in shards
            ),
        )
        if new != record:
            replace_text(record_path(path, record.number), new.encode())
            has_changed = True
    return has_changed
