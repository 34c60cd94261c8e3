"""Compares reading a cache with `cat` of the same bytes, both warm: `python -m bench.read`."""

import subprocess
import tempfile
from pathlib import Path

import click

from bench import measure
from bench.figures import show
from bench.measure import Measurement
from bench.options import common
from bench.synthetic import write_cache
from haechi.cache import schema
from haechi.cache.reader import Cache, shard_paths

MARK_CAT = 0.5


@click.command()
@common
def main(*, data: Path | None, out: Path, rounds: int, quick: bool) -> None:
    """Time reading a whole cache of the report's size (or the cache --data), with HDF5's checksums, and `cat`."""
    with tempfile.TemporaryDirectory() as folder:
        path = data or write_cache(Path(folder, "cache"), share=0.02 if quick else 1.0)
        shards = shard_paths(path)
        num_bytes = sum(shard.stat().st_size for shard in shards)
        contestants = {"ours": lambda: _read(path), "cat": lambda: _cat(shards)}
        measure.in_turn(contestants, rounds=1)  # warms up
        times = measure.in_turn(contestants, rounds=rounds)
    rows = [
        Measurement(what="Haechi, open the cache and read all arrays", unit="s", values=times["ours"]),
        Measurement(what="cat to /dev/null", unit="s", values=times["cat"]),
        Measurement(what="Haechi", unit="MB/s", values=[num_bytes / 1e6 / second for second in times["ours"]]),
        Measurement(
            what="cat / Haechi", unit="x", values=measure.ratios(times["cat"], times["ours"]), at_least=MARK_CAT
        ),
    ]
    show(measure.write(out, "read", rows, untrained=False, num_bytes=num_bytes, num_shards=len(shards)))


def _read(path: Path) -> float:
    def work() -> None:
        cache = Cache.open(path)
        for stream, arrays in schema.STREAMS.items():
            for name in arrays:
                cache.rows(stream, name)

    return measure.timed(work)


def _cat(shards: list[Path]) -> float:
    def work() -> None:
        subprocess.run(["cat", *shards], stdout=subprocess.DEVNULL, check=True)  # noqa: S603, S607

    return measure.timed(work)


if __name__ == "__main__":
    main()
