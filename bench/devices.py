"""Compares `--devices cpu:2` with two processes that are started by hand: `python -m bench.devices [--data VIDEOS]`."""

import functools
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from bench import measure
from bench.figures import show
from bench.measure import Measurement
from bench.networks import write_clip_config
from bench.options import common
from bench.videos import pick_videos, write_manifest

# Our mark: to share the work out costs at most a twentieth.
MARK = 0.95

NUM_PROCESSES = 2


@click.command()
@common
@click.option("--videos", "num_videos", type=click.IntRange(min=2), default=64, show_default=True)
def main(*, data: Path | None, out: Path, rounds: int, quick: bool, num_videos: int) -> None:
    """Time both commands from their start to the end, in turn, on the same videos, with random weights."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        flags = ["--clip-weights", "random:0", "--slowfast-weights", "random:0"]
        small = {"height": 96, "width": 128, "num_frames": 40} if quick else {}
        if quick:
            flags += ["--clip-model", write_clip_config(folder / "clip")]
        videos = pick_videos(data, folder / "videos", num_videos=min(num_videos, 8), **small)
        manifest = write_manifest(folder / "manifest.csv", videos, num_rows=num_videos)
        program = "bench.tiny" if quick else "haechi"
        number = 0

        def timed(slices: list[list[str]]) -> float:
            """Seconds of commands that run at the same time."""
            nonlocal number
            number += 1
            command: list[str | Path] = [program, "extract", manifest, "--out", folder / f"cache-{number}", *flags]
            return measure.timed(lambda: _run_all([[*command, *each] for each in slices]))

        by_hand = [["--slice", f"{i}/{NUM_PROCESSES}", "--device", "cpu"] for i in range(NUM_PROCESSES)]
        times = measure.in_turn(
            {
                "together": functools.partial(timed, [["--devices", f"cpu:{NUM_PROCESSES}"]]),
                "by hand": functools.partial(timed, by_hand),
            },
            rounds=rounds,
        )

    rows = [
        Measurement(what=f"--devices cpu:{NUM_PROCESSES}, {num_videos} videos", unit="s", values=times["together"]),
        Measurement(what=f"{NUM_PROCESSES} processes by hand", unit="s", values=times["by hand"]),
        Measurement(
            what="speed of --devices / by hand",
            unit="x",
            values=measure.ratios(times["by hand"], times["together"]),
            at_least=MARK,
        ),
    ]
    show(measure.write(out, "devices", rows, untrained=True, videos="given" if data else "generated"))


def _run_all(commands: Sequence[Sequence[str | Path]]) -> None:
    with ThreadPoolExecutor(len(commands)) as threads:
        for _ in threads.map(measure.run, commands):
            pass


if __name__ == "__main__":
    main()
