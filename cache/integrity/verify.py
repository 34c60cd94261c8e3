"""Checks every byte of a cache: each shard alone, and whether all shards have the same settings."""

import contextlib
import multiprocessing
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path

from haechi.cache import schema
from haechi.cache.atomic import PARTIAL_PREFIX
from haechi.cache.child_process import end_with_parent, without_interrupt
from haechi.cache.errors import CacheError
from haechi.cache.integrity.shard_check import Problem, ShardCheck
from haechi.cache.integrity.slice_check import slice_problems
from haechi.cache.location import SHARD_CACHE_GB, scheme_of
from haechi.cache.reader import existing_shard_paths
from haechi.cache.threads import num_threads

# From this size on, shards are checked by a process for each core. They start in about 0.3 s, and check 0.5 GB in that
# time. Threads do not help: h5py lets one work at a time.
LARGE_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The result of checking a cache."""

    path: Path
    location: str = ""
    """Where in an object store the cache is, if `path` is a copy of it."""
    num_shards: int
    num_videos: int
    """Rows of `/media` in all shards, including superseded ones."""
    num_failures: int
    num_bytes: int
    problems: list[Problem]
    notes: list[str]
    """Sentences for the user about things that break no rule."""

    @property
    def name(self) -> str:
        """What the user calls the cache."""
        return self.location or str(self.path)


def verify(path: Path | str, *, shard_cache_gb: float = SHARD_CACHE_GB) -> Verification:
    """Read every byte of every shard and return all problems; a bad shard does not stop the check of the others.

    A cache in a store, such as `s3://bucket/cache`, is copied before; `shard_cache_gb` is what copies of caches in
    stores may use together, 1e9 bytes.

    Raises `CacheError` only if there is no such folder or no shard in it, or if a record of a slice cannot be used; for
    a cache in a store, also if it cannot be copied whole.
    """
    if scheme_of(str(path)):
        from haechi.cache.local_copy import opened_copy  # only if there is a store

        with opened_copy(str(path), shard_cache_gb=shard_cache_gb) as (location, folder):
            return replace(verify(folder), location=str(location))
    path = Path(path)
    return summed_up(path, check_shards(path))


def check_shards(path: Path) -> list[ShardCheck]:
    """A finished check of every shard, in the order of the cache. Raises as `verify` does."""
    paths = existing_shard_paths(path)
    num_processes = min(num_threads(), len(paths)) if _num_bytes(paths) >= LARGE_BYTES else 1
    checks = _in_processes(paths, num_processes) if num_processes > 1 else [check_shard(shard) for shard in paths]
    known = [(check, schema.fingerprint_of(check.settings)) for check in checks if check.settings is not None]
    if known:
        counts = Counter(fingerprint for _, fingerprint in known)
        usual = max(counts, key=counts.__getitem__)
        reference = next(check for check, fingerprint in known if fingerprint == usual)
        for check, fingerprint in known:
            if fingerprint != usual:
                differing = schema.differing_fields(reference.settings or {}, check.settings or {})
                fields = ", ".join(f"{field} {a!r} against {b!r}" for field, a, b in differing)
                check.refuse(f"made with other settings than {reference.path.name}: {fields}")
    return checks


def check_shard(path: Path) -> ShardCheck:
    """A finished check of one shard."""
    check = ShardCheck(path)
    check.run()
    return check


def _num_bytes(paths: Sequence[Path]) -> int:
    total = 0
    for path in paths:
        with contextlib.suppress(OSError):  # its check says what is wrong
            total += path.stat().st_size
    return total


def _in_processes(paths: Sequence[Path], num_processes: int) -> list[ShardCheck]:
    """A finished check of each shard, by processes that leave Ctrl-C to this one."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_processes, context, end_with_parent, (os.getpid(),)) as pool:
        with without_interrupt():
            checks = pool.map(check_shard, paths)  # starts the processes
        try:
            return list(checks)
        except BrokenProcessPool as error:
            raise CacheError(
                f"{paths[0].parent}: a process that checked shards was killed, or a shard made HDF5 crash; check that "
                "there is enough memory, and run the command again"
            ) from error


def summed_up(path: Path, checks: list[ShardCheck]) -> Verification:
    """The checks of all shards of a cache as one result."""
    leftovers = sorted(path.glob(PARTIAL_PREFIX + schema.SHARD_PATTERN))
    problems, notes = slice_problems(path, checks)
    return Verification(
        path=path,
        num_shards=len(checks),
        num_videos=sum(check.num_rows.get("media", 0) for check in checks),
        num_failures=sum(check.num_rows.get("failure", 0) for check in checks),
        num_bytes=sum(check.path.stat().st_size for check in checks if check.path.is_file()),
        problems=[problem for check in checks for problem in check.problems] + problems,
        notes=[
            f"{file.name} was left by an interrupted run; the next `haechi extract` removes it" for file in leftovers
        ]
        + notes,
    )
