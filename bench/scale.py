"""Time and peak memory of four commands with 100, 1,000 and 10,000 videos: `python -m bench.scale`.

A few short videos are repeated under many ids, and both networks are tiny (`bench.networks`), so that the cost of
everything except the backbones is measured.
"""

import tempfile
from pathlib import Path

import click

from bench import measure
from bench.figures import show
from bench.measure import Measurement
from bench.networks import write_clip_config
from bench.options import common
from bench.videos import pick_videos, write_manifest

SIZES, QUICK_SIZES = (100, 1_000, 10_000), (10, 20, 40)
NUM_VIDEOS, NUM_FRAMES, EPOCHS = 8, 8, 2

# Our mark: memory does not grow; 10 % are allowed for noise.
MARK_GROWTH = 1.10


@click.command()
@common
def main(*, data: Path | None, out: Path, rounds: int, quick: bool) -> None:
    """Run extract, extract with nothing to do, inspect and train on more and more videos."""
    sizes = QUICK_SIZES if quick else SIZES
    runs: dict[str, dict[int, list[measure.CommandResult]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = write_clip_config(folder / "clip")
        videos = pick_videos(data, folder / "videos", num_videos=NUM_VIDEOS, height=48, width=64, num_frames=20)
        for round_number in range(rounds):
            for size in sizes:
                manifest = write_manifest(folder / f"{size}.csv", videos, num_rows=size)
                cache, trained = folder / f"cache-{size}-{round_number}", folder / f"run-{size}-{round_number}"
                extract: list[str | Path] = [
                    "extract",
                    manifest,
                    "--out",
                    cache,
                    "--frames",
                    str(NUM_FRAMES),
                    "--clip-model",
                    model,
                ]
                extract += ["--clip-weights", "random:0", "--slowfast-weights", "random:0"]
                commands: dict[str, list[str | Path]] = {
                    "extract": ["bench.tiny", *extract],
                    "extract, nothing to do": ["haechi", *extract],
                    "inspect": ["haechi", "inspect", cache],
                    f"train, {EPOCHS} epochs": ["haechi", "train", cache, "--out", trained, "--epochs", str(EPOCHS)],
                }
                for what, command in commands.items():
                    run = measure.run(command, watch=True)
                    runs.setdefault(what, {}).setdefault(size, []).append(run)

    rows = [
        row for what, found in runs.items() for size in sizes for row in _rows(f"{what}, {size:,} videos", found[size])
    ]
    before, after = (_peaks(runs["extract"][size]) for size in sizes[-2:])
    growth = f"memory of extract, {sizes[-1]:,} videos / {sizes[-2]:,}"
    rows.append(Measurement(what=growth, unit="x", values=measure.ratios(after, before), at_most=MARK_GROWTH))
    show(
        measure.write(out, "scale", rows, untrained=True, commands=list(runs), sizes=list(sizes), networks="miniatures")
    )


def _rows(what: str, runs: list[measure.CommandResult]) -> list[Measurement]:
    seconds = [run.seconds for run in runs]
    return [
        Measurement(what=f"{what}: time", unit="s", values=seconds),
        Measurement(what=f"{what}: memory", unit="MB", values=_peaks(runs)),
    ]


def _peaks(runs: list[measure.CommandResult]) -> list[float]:
    return [run.peak_megabytes for run in runs]


if __name__ == "__main__":
    main()
