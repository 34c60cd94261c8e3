"""Checks every byte of a cache: each shard, and whether the shards belong together."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from haechi.cache import schema
from haechi.cache.errors import CacheError
from haechi.cache.integrity.shard_check import Problem, ShardCheck
from haechi.cache.reader import shard_paths
from haechi.cache.writer import TEMPORARY_PREFIX


@dataclass(frozen=True, kw_only=True)
class Report:
    """What `verify` found."""

    path: Path
    num_shards: int
    num_videos: int
    """Rows of `/media` in all shards, superseded ones too."""
    num_failures: int
    num_bytes: int
    problems: list[Problem]
    notes: list[str]
    """What is worth a word and breaks no rule."""


def verify(path: Path) -> Report:
    """Read every byte of every shard and return all that is wrong; one bad shard hides nothing of another.

    Raises `CacheError` only where there is nothing to check: no such directory, or no shards in it.
    """
    return report_on(path, check_shards(path))


def check_shards(path: Path) -> list[ShardCheck]:
    """A finished check of every shard, in the cache's order. Raises as `verify` does."""
    paths = shard_paths(path)
    if not paths:
        raise CacheError(f"{path}: no shards ({schema.SHARD_PATTERN}) in it; make them with `haechi extract`")
    checks = [ShardCheck(shard) for shard in paths]
    for check in checks:
        check.run()
    known = [(check, schema.fingerprint_of(check.settings)) for check in checks if check.settings is not None]
    if known:
        counts = Counter(fingerprint for _, fingerprint in known)
        usual = max(counts, key=counts.__getitem__)
        model = next(check for check, fingerprint in known if fingerprint == usual)
        for check, fingerprint in known:
            if fingerprint != usual:
                differing = schema.differing_fields(model.settings or {}, check.settings or {})
                fields = ", ".join(f"{field} {a!r} against {b!r}" for field, a, b in differing)
                check.refuse(f"made with other settings than {model.path.name}: {fields}")
    return checks


def report_on(path: Path, checks: list[ShardCheck]) -> Report:
    """What the checks of a cache's shards found."""
    leftovers = sorted(path.glob(TEMPORARY_PREFIX + schema.SHARD_PATTERN))
    return Report(
        path=path,
        num_shards=len(checks),
        num_videos=sum(check.num_rows.get("media", 0) for check in checks),
        num_failures=sum(check.num_rows.get("failure", 0) for check in checks),
        num_bytes=sum(check.path.stat().st_size for check in checks if check.path.is_file()),
        problems=[problem for check in checks for problem in check.problems],
        notes=[f"{file.name} was left by an interrupted run; `haechi extract` removes it" for file in leftovers],
    )
