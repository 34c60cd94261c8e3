"""Finds one harmful minute in a long video: `python -m bench.long`.

A head is trained on short clips with `windows` sampling. Then it judges a video of hours at 1280 x 720 in which one
minute is harmful. Measured are where the highest score is and how much memory a decoding process needs.
"""

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import click
import numpy as np

from bench import measure
from bench.figures import show
from bench.measure import Measurement
from bench.networks import write_clip_config
from haechi.extract.samples import scene, write_video

FPS, SCALE = 25, 4
DRAWN = {
    "height": 180,
    "width": 320,
}  # pixels of the clips; frames of the long video are drawn in this size and enlarged by `SCALE`
NUM_CLIPS, CLIP_SECONDS = 24, 10.0
NUM_SAFE_MINUTES = 4  # different minutes, repeated in turn

MARK_MEGABYTES = 2000


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=measure.RESULTS, help="Folder of the JSON.")
@click.option("--minutes", type=click.IntRange(min=3), default=120, show_default=True, help="Length of the video.")
@click.option("--window-seconds", type=float, default=2.0, show_default=True)
@click.option("--clip-fps", type=float, default=2.0, show_default=True)
@click.option("--small", is_flag=True, help="Use tiny networks, to measure everything except the backbones.")
@click.option("--quick", is_flag=True, help="Three minutes of small frames: only checks that everything runs.")
@click.option(
    "--keep", type=click.Path(path_type=Path), help="Write all files to this folder, and reuse those that are there."
)
def main(
    *, out: Path, minutes: int, window_seconds: float, clip_fps: float, small: bool, quick: bool, keep: Path | None
) -> None:
    """Make clips and a long video, extract, train and predict; report the place of the maximum and the peak memory."""
    with tempfile.TemporaryDirectory() as name:
        folder = keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        minutes, scale, num_clips, seconds = (3, 1, 12, 4.0) if quick else (minutes, SCALE, NUM_CLIPS, CLIP_SECONDS)
        small |= quick
        clips, video, harmful_minute = folder / "clips", folder / f"{minutes}-minutes.mp4", minutes * 3 // 5
        if not clips.exists():
            write_clips(clips, num_clips, seconds=max(seconds, window_seconds))
        if not video.exists():
            write_long_video(video, minutes=minutes, harmful_minute=harmful_minute, scale=scale)
        program = "bench.tiny" if small else "haechi"
        weights = ["--clip-weights", "random:0", "--slowfast-weights", "random:0"]
        if small:
            weights += ["--clip-model", write_clip_config(folder / "clip")]
        sampling = ["--sampling", "windows", "--window-seconds", str(window_seconds), "--clip-fps", str(clip_fps)]
        cache, run, picture = folder / "cache", folder / "run", folder / "timeline.png"
        if not run.exists():
            measure.run([program, "extract", clips, "--out", cache, *sampling, *weights])
            measure.run(["haechi", "train", cache, "--out", run])
        where = ["--clip-model", weights[-1]] if small else []
        judged = measure.run(
            [program, "predict", run, video, "--json", "--timeline", picture, "--worker-memory-gb", "2", *where],
            watch=True,
        )
        prediction = json.loads(judged.stdout)
        rows = measurements(prediction, judged, harmful_minute)
        facts = {"minutes": minutes, "sampling": sampling, "networks": "miniatures" if small else "real"}
        show(measure.write(out, "long-small" if small else "long", rows, untrained=True, **facts))


def measurements(prediction: dict[str, Any], judged: measure.CommandResult, harmful_minute: int) -> list[Measurement]:
    """The measurements from the prediction of the long video."""
    scores = np.array([window["score"] for window in prediction["windows"]])
    middles = np.array([(w["start_seconds"] + w["end_seconds"]) / 2 for w in prediction["windows"]])
    inside = middles // 60 == harmful_minute
    moment = prediction["moment"]
    begins, ends = moment["start_seconds"], moment["end_seconds"]
    shared = max(0.0, min(ends, 60 * (harmful_minute + 1)) - max(begins, 60 * harmful_minute)) / (ends - begins)
    return [
        Measurement(what="windows", unit="", values=[len(scores)]),
        Measurement(
            what="share of the most harmful moment inside the harmful minute", unit="", values=[shared], at_least=0.5
        ),
        Measurement(what="lowest score in the harmful minute", unit="", values=[float(scores[inside].min())]),
        Measurement(what="highest score elsewhere", unit="", values=[float(scores[~inside].max())]),
        Measurement(what="score of the whole video", unit="", values=[prediction["score"]]),
        Measurement(
            what=f"peak memory of the decoding process, {DRAWN['width'] * SCALE} x {DRAWN['height'] * SCALE}",
            unit="MB",
            values=[judged.peak_child_megabytes],
            at_most=MARK_MEGABYTES,
        ),
        Measurement(what="peak memory of all processes", unit="MB", values=[judged.peak_megabytes]),
        Measurement(what="from command to result", unit="s", values=[judged.seconds]),
        Measurement(
            what="duration of the video / time", unit="x", values=[prediction["duration_seconds"] / judged.seconds]
        ),
    ]


def write_clips(folder: Path, num_clips: int, *, seconds: float) -> None:
    """Write short clips into class folders."""
    for i in range(num_clips):
        name = ("safe", "harmful")[i % 2]
        (folder / name).mkdir(parents=True, exist_ok=True)
        frames = scene(seed=i, restless=bool(i % 2), num_frames=round(seconds * FPS), **DRAWN)
        write_video(folder / name / f"{i:02d}.mp4", frames, fps=FPS)


def write_long_video(path: Path, *, minutes: int, harmful_minute: int, scale: int = SCALE) -> None:
    """Write a video in which all minutes but one are safe. Few minutes are encoded and then repeated in turn."""
    folder = path.with_suffix("")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    safe = [_write_minute(folder / f"{i}.mp4", 1000 + i, restless=False, scale=scale) for i in range(NUM_SAFE_MINUTES)]
    harmful = _write_minute(folder / "harmful.mp4", 2000, restless=True, scale=scale)
    with av.open(str(path), "w") as container:
        stream: Any = None
        for minute in range(minutes):
            part = harmful if minute == harmful_minute else safe[minute % NUM_SAFE_MINUTES]
            with av.open(str(part)) as source:
                source_stream = source.streams.video[0]
                stream = stream or container.add_stream_from_template(source_stream)
                for packet in source.demux(source_stream):
                    if packet.dts is None or packet.pts is None or packet.time_base is None:
                        continue
                    shift = round(60 * minute / packet.time_base)
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = stream
                    container.mux(packet)
    shutil.rmtree(folder)


class _Enlarged(Sequence[np.ndarray]):
    """Frames (H, W, 3) enlarged by `scale` when they are accessed."""

    def __init__(self, frames: Sequence[np.ndarray], scale: int) -> None:
        self._frames, self._scale = frames, scale

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, i: Any) -> Any:
        return self._frames[i].repeat(self._scale, axis=0).repeat(self._scale, axis=1)


def _write_minute(path: Path, seed: int, *, restless: bool, scale: int) -> Path:
    frames = scene(seed=seed, restless=restless, num_frames=60 * FPS, **DRAWN)
    return write_video(path, _Enlarged(frames, scale), fps=FPS, options={"preset": "ultrafast"})


if __name__ == "__main__":
    main()
