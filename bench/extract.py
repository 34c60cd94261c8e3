"""Compares extraction with the report's method and with its own limits: `python -m bench.extract [--data VIDEOS]`."""

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import click

from bench import measure
from bench.figures import show
from bench.measure import Measurement
from bench.networks import write_clip_config
from bench.options import common
from bench.videos import pick_videos, write_manifest

# Our marks: at least five times as fast as the report's method; on a CPU at most 10 % slower than decoding alone plus
# backbones alone; on a GPU, where both run in parallel, nearly as fast as the slower of them.
MARK_REPORT, MARK_SUM, MARK_SLOWER = 5.0, 1.10, 0.9
MARK_MEGABYTES = 4000.0
MARK_DEVICE_GROWTH = 1.05

HD = {"height": 720, "width": 1280, "num_frames": 60}


@click.command()
@common
@click.option("--videos", "num_videos", type=click.IntRange(min=2), default=8, show_default=True)
@click.option("--clip-weights", default="random:0", show_default=True, help="As for haechi extract.")
@click.option("--slowfast-weights", default="random:0", show_default=True, help="As for haechi extract.")
def main(
    *,
    data: Path | None,
    out: Path,
    rounds: int,
    quick: bool,
    num_videos: int,
    clip_weights: str,
    slowfast_weights: str,
) -> None:
    """Time Haechi, the report's method, decoding alone and the backbones alone, in turn, on the same videos."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = {"clip_weights": clip_weights, "slowfast_weights": slowfast_weights}
        small = {"height": 96, "width": 128, "num_frames": 40} if quick else {}
        if quick:
            settings["clip_model"] = write_clip_config(folder / "clip")
        videos = pick_videos(data, folder / "videos", num_videos=num_videos, **small)
        manifest = write_manifest(folder / "manifest.csv", videos)
        hd_videos = pick_videos(None, folder / "hd", num_videos=4, **(small or HD))
        hd_manifest = write_manifest(folder / "hd.csv", hd_videos, num_rows=max(8, num_videos))

        found: list[dict[str, Any]] = []
        start_seconds: list[float] = []

        def ours() -> float:
            run = _ours(manifest, folder / f"cache-{len(found)}", settings, small=quick)
            found.append(json.loads(run.stdout))
            start_seconds.append(run.seconds - found[-1]["work_seconds"])
            return float(found[-1]["work_seconds"])

        def contestant(name: str) -> float:
            flags = ["--settings", json.dumps(settings), *(["--small"] if quick else [])]
            return float(json.loads(measure.run(["bench.contestants", name, manifest, *flags]).stdout)["work_seconds"])

        contestants = {"ours": ours} | {
            name: functools.partial(contestant, name) for name in ("report", "model", "decode")
        }
        times = measure.in_turn(contestants, rounds=rounds)
        hd = _ours(hd_manifest, folder / "hd-cache", settings, small=quick, watch=True)

    per_video = {name: [second / len(videos) for second in times[name]] for name in times}
    rows = [
        Measurement(what="Haechi, per video", unit="s", values=per_video["ours"]),
        Measurement(what="the report's method, per video", unit="s", values=per_video["report"]),
        Measurement(what="backbones alone, per video", unit="s", values=per_video["model"]),
        Measurement(what="decoding alone on all cores, per video", unit="s", values=per_video["decode"]),
        Measurement(what="Haechi, start-up", unit="s", values=start_seconds),
        Measurement(
            what="the report's method / Haechi",
            unit="x",
            values=measure.ratios(times["report"], times["ours"]),
            at_least=MARK_REPORT,
        ),
        *_limits(times),
        Measurement(
            what="peak memory of all processes, 1280 x 720",
            unit="MB",
            values=[hd.peak_megabytes],
            at_most=MARK_MEGABYTES,
        ),
        *_device_rows(hd.device_megabytes),
    ]
    path = measure.write(
        out,
        "extract",
        rows,
        untrained=clip_weights.startswith("random") or slowfast_weights.startswith("random"),
        num_videos=len(videos),
        videos="given" if data else "generated",
        precision=found[0]["precision"],
        steps=[run["steps"] for run in found],
    )
    show(path)


def _ours(
    manifest: Path, cache: Path, settings: dict[str, str], *, small: bool, watch: bool = False
) -> measure.CommandResult:
    flags = [text for name, value in settings.items() for text in (f"--{name.replace('_', '-')}", value)]
    command = ["bench.tiny" if small else "haechi", "extract", manifest, "--out", cache, "--strict", "--json", *flags]
    return measure.run(command, watch=watch)


def _limits(times: dict[str, list[float]]) -> list[Measurement]:
    parts = list(zip(times["model"], times["decode"], strict=True))
    if measure.device_kind() == "cuda":
        values = measure.ratios([max(pair) for pair in parts], times["ours"])
        return [
            Measurement(
                what="the slower of backbones and decoding / Haechi", unit="x", values=values, at_least=MARK_SLOWER
            )
        ]
    values = measure.ratios(times["ours"], [sum(pair) for pair in parts])
    return [Measurement(what="Haechi / (backbones + decoding)", unit="x", values=values, at_most=MARK_SUM)]


def _device_rows(megabytes: list[float]) -> list[Measurement]:
    """Peak memory of the GPU, and the peak in the second half of the run over that in the first half."""
    if not megabytes:
        return []
    middle = len(megabytes) // 2
    growth = max(megabytes[middle:]) / max(megabytes[:middle])
    return [
        Measurement(what="peak device memory", unit="MB", values=[max(megabytes)]),
        Measurement(
            what="device memory, second half / first half", unit="x", values=[growth], at_most=MARK_DEVICE_GROWTH
        ),
    ]


if __name__ == "__main__":
    main()
