"""Commits a finished slice: its rows in the order of their ids as shards of the cache, then one record that names them.

Several processes may commit one slice. Each shard's name contains the digest of its bytes, and the record is created
only if it does not exist, so exactly one of them commits.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from haechi.cache.atomic import create, create_text
from haechi.cache.reader import Cache
from haechi.cache.rows import read_failures, read_items
from haechi.cache.schema import Failure, Item, Provenance
from haechi.cache.shard import Shard, open_content
from haechi.cache.slices import (
    Pin,
    Record,
    Slice,
    SliceShard,
    content_digest,
    ids_digest,
    record_path,
    shard_name,
    unnamed_shards,
)
from haechi.cache.writer import write_shard
from haechi.extract.shard_queue import WriteError


def commit(
    work: Path, pin: Pin, part: Slice, ids: Sequence[str], *, num_manifest_rows: int, drafts: Path
) -> tuple[Record, bool]:
    """Commit the rows `ids`, in ascending order, of the cache `work`.

    `drafts` is a folder for temporary files in the same file system as the cache. Returns the record of the slice, and
    whether it is ours: False if another process committed the slice first. Raises `WriteError` if the disk cannot be
    written; the slice is not committed then, and `work` is as it was.
    """
    try:
        drafts.mkdir(exist_ok=True)
        shards, failures = _write_shards(work, pin, part, ids, drafts)
        ours = Record(
            number=part.number,
            num_slices=part.num_slices,
            fingerprint=pin.fingerprint,
            num_manifest_rows=num_manifest_rows,
            num_used=len(ids) - failures.total(),
            failures=dict(sorted(failures.items())),
            ids_sha256=ids_digest(ids),
            shards=tuple(shards),
        )
        is_ours = create_text(record_path(pin.path, part.number), ours.encode(), folder=drafts)
    except OSError as error:
        raise WriteError(
            f"{pin.path}: slice {part} cannot be written ({error.strerror or error}); it is not committed, and its "
            f"{len(ids)} finished rows are safe; run the same command again when the disk can be written"
        ) from error
    record = Record.read(pin, part.number)
    assert record is not None
    for path in unnamed_shards(pin, [record]):
        path.unlink(missing_ok=True)
    return record, is_ours


def _write_shards(
    work: Path, pin: Pin, part: Slice, ids: Sequence[str], drafts: Path
) -> tuple[list[SliceShard], Counter[str]]:
    """Write all shards of the slice into the cache. Returns what the record says of them, and reason -> failures."""
    shards: list[SliceShard] = []
    failures = Counter[str]()
    cache = Cache.open(work) if ids else None
    for start in range(0, len(ids), pin.shard_size):
        assert cache is not None
        rows, provenance = _read_rows(cache, ids[start : start + pin.shard_size])
        failed = [row for row in rows if isinstance(row, Failure)]
        failures.update(row.reason for row in failed)
        draft = drafts / f"{len(shards):05d}.h5"
        write_shard(draft, [row for row in rows if isinstance(row, Item)], failed, provenance, created=pin.created)
        shard = Shard.open(draft)
        assert shard.index is not None
        name = shard_name(part.number, len(shards), shard.seal.digest)
        create(draft, pin.path / name)  # if it is there, it has the same bytes
        draft.unlink()
        shards.append(SliceShard(name=name, num_rows=len(rows), digest=content_digest(shard.index)))
    return shards, failures


def _read_rows(cache: Cache, ids: Sequence[str]) -> tuple[list[Item | Failure], Provenance]:
    """The rows that count of some ids, in their order, and how they were made."""
    wanted: dict[int, dict[str, list[int]]] = defaultdict(lambda: {"media": [], "failure": []})
    for id in ids:
        number, table, row = cache.locations[id]
        wanted[number][table].append(row)
    found: dict[str, Item | Failure] = {}
    for number, rows in sorted(wanted.items()):
        shard = cache.shards[number]
        with open_content(shard.path, shard.index) as content:
            media, failure = (np.array(sorted(rows[table]), np.int64) for table in ("media", "failure"))
            found |= {item.media.id: item for item in read_items(content, shard.path, media)}
            found |= {row.id: row for row in read_failures(content, shard.path, failure)}
    return [found[id] for id in ids], _joined([cache.shards[number].provenance for number in sorted(wanted)])


def _joined(sources: Sequence[Provenance]) -> Provenance:
    """How rows of several shards were made. Where they differ, as after a stop on another device, all are named."""

    def each(values: Sequence[str]) -> str:
        return ", ".join(sorted(set(values)))

    packages = sorted({package for source in sources for package in source.versions})
    return replace(
        sources[0],
        device=each([source.device for source in sources]),
        precision=each([source.precision for source in sources]),
        producer=each([source.producer for source in sources]),
        versions={
            package: each([source.versions[package] for source in sources if package in source.versions])
            for package in packages
        },
    )
