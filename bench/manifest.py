"""Manifests of 100,000 rows and of a million, without decoding: `python -m bench.manifest`.

All rows are in a cache of slices, with made-up features, and their files are on disk, as hard links to a few. Measured
are the commands that have nothing to decode: a slice that is committed already, the state of all slices, and the whole
manifest again. It needs 3 GB of disk.
"""

import csv
import os
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np

from bench import measure
from bench.figures import show
from bench.measure import CommandResult, Measurement
from bench.networks import write_clip_config
from bench.options import common
from bench.synthetic import clip_arrays, media
from bench.videos import pick_videos, write_manifest
from haechi.cache.reader import Cache
from haechi.cache.schema import Item, Provenance
from haechi.cache.slices import Pin, Slice, slice_of
from haechi.cache.writer import now, shard_path, write_shard
from haechi.extract.commit import commit

SIZES, QUICK_SIZES = (100_000, 1_000_000), (240, 300)
ROWS_IN_SLICE, QUICK_ROWS_IN_SLICE = 10_000, 60
SHARD_SIZE = 4096
LINKS_OF_A_FILE = 50_000  # ext4 allows 65,000

# The marks: seconds of each command with the most rows, MB of memory, and time by row against that with fewer rows.
MARKS_SECONDS = {"slice": 60.0, "status": 60.0, "resume": 20.0}
MARK_MEGABYTES, MARK_GROWTH = 2000.0, 1.3

WHAT = {
    "slice": "extract --slice, of a slice that is committed",
    "status": "status",
    "resume": "extract with nothing to do",
}


@click.command()
@common
def main(*, data: Path | None, out: Path, rounds: int, quick: bool) -> None:
    """Time commands on manifests of up to a million rows that have nothing to decode."""
    small, large = sizes = QUICK_SIZES if quick else SIZES
    found: dict[tuple[str, int], list[CommandResult]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        videos = pick_videos(data, folder / "videos", num_videos=2, height=48, width=64, num_frames=20)
        flags: list[str | Path] = ["--clip-model", write_clip_config(folder / "clip"), "--clip-weights", "random:0"]
        flags += ["--slowfast-model", "none", "--frames", "1", "--shard-size", str(SHARD_SIZE)]
        two = folder / "two"
        measure.run(["haechi", "extract", write_manifest(folder / "two.csv", videos), "--out", two, *flags])
        source = Cache.open(two).shards[0].provenance
        for size in sizes:
            num_slices = size // (QUICK_ROWS_IN_SLICE if quick else ROWS_IN_SLICE)
            cache = folder / f"cache-{size}"
            manifest = write_rows(folder / f"rows-{size}", cache, source, num_rows=size, num_slices=num_slices)
            extract: list[str | Path] = ["haechi", "extract", manifest, "--out", cache, *flags]
            commands: dict[str, list[str | Path]] = {
                "slice": [*extract, "--slice", f"0/{num_slices}"],
                "status": ["haechi", "status", cache],
                "resume": extract,
            }
            for _ in range(rounds):
                for what, command in commands.items():
                    found.setdefault((what, size), []).append(measure.run(command, watch=True))
    rows = []
    for what, text in WHAT.items():
        seconds = {size: [run.seconds for run in found[what, size]] for size in sizes}
        for size in sizes:
            at_most = MARKS_SECONDS[what] if size == large else None
            rows.append(Measurement(what=f"{text}, {size:,} rows", unit="s", values=seconds[size], at_most=at_most))
        growth = [ratio / (large / small) for ratio in measure.ratios(seconds[large], seconds[small])]
        memory = [run.peak_megabytes for run in found[what, large]]
        rows += [
            Measurement(what="the same: growth of time by row", unit="x", values=growth, at_most=MARK_GROWTH),
            Measurement(what="the same: memory", unit="MB", values=memory, at_most=MARK_MEGABYTES),
        ]
    show(measure.write(out, "manifest", rows, untrained=False))


def write_rows(folder: Path, cache: Path, source: Provenance, *, num_rows: int, num_slices: int) -> Path:
    """Write files, a manifest of them, and a cache whose slices are all committed. Returns the manifest."""
    folder.mkdir()
    found = [media(f"clips/{i // 1000:04d}/{i:07d}.mp4", split="", label=i % 2) for i in range(num_rows)]
    _link_files(folder, [each.id for each in found])
    manifest = folder / "all.csv"
    with manifest.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        writer.writerows([each.id, ("safe", "harmful")[each.label]] for each in found)
    pin = Pin(
        path=cache,
        num_slices=num_slices,
        shard_size=SHARD_SIZE,
        created=now(),
        settings=source.settings,
        weights=source.weights,
    ).create()
    features = clip_arrays(
        np.ones((1, source.settings["clip"]["widths"]["features"]), np.float16), np.zeros(1, np.float32)
    )
    slices: dict[int, list[Any]] = {number: [] for number in range(num_slices)}
    for each in sorted(found, key=lambda each: each.id):
        slices[slice_of(each.id, num_slices)].append(each)
    for number, members in slices.items():
        with tempfile.TemporaryDirectory(dir=folder) as work:
            for i, start in enumerate(range(0, len(members), SHARD_SIZE)):
                items = [Item(media=each, arrays=features) for each in members[start : start + SHARD_SIZE]]
                write_shard(shard_path(Path(work), i), items, [], source)
            part, ids = Slice(number=number, num_slices=num_slices), [each.id for each in members]
            commit(Path(work), pin, part, ids, num_manifest_rows=num_rows, drafts=Path(work, "drafts"))
    return manifest


def _link_files(folder: Path, ids: list[str]) -> None:
    """Files of one byte, all written at the time that `media` gives."""
    for i, id in enumerate(ids):
        path = folder / id
        if i % 1000 == 0:
            path.parent.mkdir(parents=True)
        if i % LINKS_OF_A_FILE == 0:
            first = path
            path.write_bytes(b"0")
            os.utime(path, ns=(1, 1))
        else:
            path.hardlink_to(first)


if __name__ == "__main__":
    main()
