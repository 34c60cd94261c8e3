"""Compares reading and checking a cache with what the machine can do with the same bytes: `python -m bench.read`.

Everything is warm. `cat` is the limit of reading shard by shard, and plain reads into one array are that of reading all
into memory, where getting the memory may take longer than reading. `cat` into XXH3 in a second process is the limit of
checking, which is measured as a command, with its start. `inspect` is measured with caches of many videos that have few
features.
"""

import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import xxhash

from bench import measure
from bench.figures import show
from bench.measure import CommandResult, Measurement
from bench.options import common
from bench.synthetic import write_cache, write_table
from haechi.cache import schema
from haechi.cache.reader import Cache, shard_paths
from haechi.memory import reuse_freed_memory

MARK_CAT = 0.5
MARK_HASH = 0.5
MARK_VERIFY_MEGABYTES = 2000

# Videos of a cache -> the marks of `haechi inspect`: seconds, and MB of memory.
INSPECT_MARKS = {100_000: (2.0, None), 1_000_000: (15.0, 200.0)}
QUICK_SIZES = (1_000, 2_000)

# Of the report's 3,866 videos: 0.7 GB to read, and 3.7 GB to check, since a command takes half a second to start.
SHARE, CHECKED_SHARE, QUICK_SHARE = 5.0, 25.0, 0.02


@click.command()
@common
def main(*, data: Path | None, out: Path, rounds: int, quick: bool) -> None:
    """Time reading and checking a whole cache (or the cache --data), and showing caches of up to a million videos."""
    reuse_freed_memory()  # as every command does
    with tempfile.TemporaryDirectory() as folder:
        path = data or write_cache(Path(folder, "cache"), share=QUICK_SHARE if quick else SHARE)
        checked = data or write_cache(Path(folder, "checked"), share=QUICK_SHARE if quick else CHECKED_SHARE)
        shards, checked_shards = shard_paths(path), shard_paths(checked)
        num_bytes, num_checked_bytes = (
            sum(shard.stat().st_size for shard in each) for each in (shards, checked_shards)
        )
        contestants = {
            "read": lambda: measure.timed(lambda: _read(path)),
            "load": lambda: _timed_with_memory(lambda: _load(path), num_bytes),
            "plain": lambda: _timed_with_memory(lambda: _plain(shards, num_bytes), num_bytes),
            "cat": lambda: measure.timed(lambda: _cat(shards)),
            "verify": lambda: measure.timed(lambda: measure.run(["haechi", "verify", checked])),
            "hash": lambda: measure.timed(lambda: _hash(checked_shards)),
        }
        measure.in_turn(contestants, rounds=1)  # warms up
        times = measure.in_turn(contestants, rounds=rounds)
        sizes = QUICK_SIZES if quick else tuple(INSPECT_MARKS)
        tables = {size: write_table(Path(folder, f"table-{size}"), num_videos=size) for size in sizes}
        inspections = {size: [_inspect(table) for _ in range(rounds)] for size, table in tables.items()}
    megabytes = {
        name: [(num_checked_bytes if name in ("verify", "hash") else num_bytes) / 1e6 / second for second in seconds]
        for name, seconds in times.items()
    }
    ratios = {
        ours: measure.ratios(times[limit], times[ours])
        for limit, ours in (("cat", "read"), ("plain", "load"), ("hash", "verify"))
    }
    rows = [
        Measurement(what="Haechi, open the cache and read all arrays, shard by shard", unit="s", values=times["read"]),
        Measurement(what="cat to /dev/null", unit="s", values=times["cat"]),
        Measurement(what="Haechi, shard by shard", unit="MB/s", values=megabytes["read"]),
        Measurement(what="cat / Haechi, shard by shard", unit="x", values=ratios["read"], at_least=MARK_CAT),
        Measurement(what="Haechi, all into memory", unit="MB/s", values=megabytes["load"]),
        Measurement(what="plain reads into one array", unit="MB/s", values=megabytes["plain"]),
        Measurement(what="plain reads / Haechi, all into memory", unit="x", values=ratios["load"], at_least=MARK_CAT),
        Measurement(what="haechi verify", unit="MB/s", values=megabytes["verify"], at_least=MARK_VERIFY_MEGABYTES),
        Measurement(what="cat into XXH3", unit="MB/s", values=megabytes["hash"]),
        Measurement(what="cat into XXH3 / haechi verify", unit="x", values=ratios["verify"], at_least=MARK_HASH),
        *(row for size, found in inspections.items() for row in _inspection(size, found)),
    ]
    show(measure.write(out, "read", rows, untrained=False, num_bytes=num_bytes, num_shards=len(shards)))


def _read(path: Path) -> None:
    cache = Cache.open(path)
    for stream, arrays in schema.STREAMS.items():
        for name in arrays:
            for _ in cache.rows_by_shard(stream, name):
                pass


def _timed_with_memory(work: Callable[[], None], num_bytes: int) -> float:
    """Seconds of a call that needs new memory. A virtual machine may have to get it from its host, which takes several
    times as long as reading; that is done before."""
    np.empty(num_bytes, np.uint8)[::4096] = 1
    return measure.timed(work)


def _load(path: Path) -> None:
    cache = Cache.open(path)
    arrays = [cache.rows(stream, name) for stream, names in schema.STREAMS.items() for name in names]
    assert arrays


def _plain(shards: list[Path], num_bytes: int) -> None:
    content, done = np.empty(num_bytes, np.uint8), 0
    for shard in shards:
        with shard.open("rb", buffering=0) as file:
            while count := file.readinto(content[done:].data):
                done += count
    assert done == num_bytes


def _cat(shards: list[Path]) -> None:
    subprocess.run(["cat", *shards], stdout=subprocess.DEVNULL, check=True)  # noqa: S603, S607


def _hash(shards: list[Path]) -> None:
    digest, buffer = xxhash.xxh3_128(), memoryview(bytearray(1 << 20))
    with subprocess.Popen(["cat", *shards], stdout=subprocess.PIPE, bufsize=0) as cat:  # noqa: S603, S607
        assert cat.stdout is not None
        while count := cat.stdout.readinto(buffer):  # type: ignore[attr-defined]
            digest.update(buffer[:count])


def _inspect(path: Path) -> CommandResult:
    return measure.run(["haechi", "inspect", path], watch=True)


def _inspection(size: int, runs: list[CommandResult]) -> list[Measurement]:
    seconds, megabytes = INSPECT_MARKS.get(size, (None, None))
    what = f"inspect, {size:,} videos"
    return [
        Measurement(what=f"{what}: time", unit="s", values=[run.seconds for run in runs], at_most=seconds),
        Measurement(what=f"{what}: memory", unit="MB", values=[run.peak_megabytes for run in runs], at_most=megabytes),
    ]


if __name__ == "__main__":
    main()
