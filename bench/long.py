"""A long video, from clips to the moment: `python -m bench.long`.

Short clips train a head on windows; a video of hours at 1280 x 720, in which one minute is of the other kind, is judged
with it. Does the timeline find the minute, and what does a decoding process hold meanwhile?
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
from bench.measure import Row
from bench.networks import write_clip_config
from haechi.extract.samples import scene, write_video

FPS, SCALE = 25, 4
DRAWN = {"height": 180, "width": 320}  # pixels of clips; the long video is drawn so, and shown `SCALE` times as large
NUM_CLIPS, CLIP_SECONDS = 24, 10.0
NUM_SAFE_MINUTES = 4  # different ones, which take turns

MARK_MEGABYTES = 2000


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=measure.RESULTS, help="Folder of the JSON.")
@click.option("--minutes", type=click.IntRange(min=3), default=120, show_default=True, help="Of the video.")
@click.option("--window-seconds", type=float, default=2.0, show_default=True)
@click.option("--clip-fps", type=float, default=2.0, show_default=True)
@click.option("--small", is_flag=True, help="With networks in miniature: what it costs around them.")
@click.option("--quick", is_flag=True, help="Three minutes of small pictures: to see that it runs.")
@click.option("--keep", type=click.Path(path_type=Path), help="Make all in this folder, and use what is there.")
def main(
    *, out: Path, minutes: int, window_seconds: float, clip_fps: float, small: bool, quick: bool, keep: Path | None
) -> None:
    """Make clips and a long video, extract, train, predict; write where the maximum was found and the peak memory."""
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
        prediction = json.loads(judged.told)
        rows = rows_of(prediction, judged, harmful_minute)
        facts = {"minutes": minutes, "sampling": sampling, "networks": "miniatures" if small else "real"}
        show(measure.write(out, "long-small" if small else "long", rows, untrained=True, **facts))


def rows_of(prediction: dict[str, Any], judged: measure.Run, harmful_minute: int) -> list[Row]:
    """The figures of one judged video."""
    scores = np.array([window["score"] for window in prediction["windows"]])
    middles = np.array([(w["start_seconds"] + w["end_seconds"]) / 2 for w in prediction["windows"]])
    inside = middles // 60 == harmful_minute
    moment = prediction["moment"]
    begins, ends = moment["start_seconds"], moment["end_seconds"]
    shared = max(0.0, min(ends, 60 * (harmful_minute + 1)) - max(begins, 60 * harmful_minute)) / (ends - begins)
    return [
        Row(what="windows", unit="", values=[len(scores)]),
        Row(what="part of the most harmful moment that lies in the minute", unit="", values=[shared], at_least=0.5),
        Row(what="lowest score in the minute", unit="", values=[float(scores[inside].min())]),
        Row(what="highest score elsewhere", unit="", values=[float(scores[~inside].max())]),
        Row(what="score of the whole video", unit="", values=[prediction["score"]]),
        Row(
            what=f"peak memory of the decoding process, {DRAWN['width'] * SCALE} x {DRAWN['height'] * SCALE}",
            unit="MB",
            values=[judged.peak_child_megabytes],
            at_most=MARK_MEGABYTES,
        ),
        Row(what="peak memory of all processes", unit="MB", values=[judged.peak_megabytes]),
        Row(what="from command to result", unit="s", values=[judged.seconds]),
        Row(what="seconds of video a second", unit="x", values=[prediction["duration_seconds"] / judged.seconds]),
    ]


def write_clips(folder: Path, num_clips: int, *, seconds: float) -> None:
    """Class folders of short clips."""
    for i in range(num_clips):
        name = ("safe", "harmful")[i % 2]
        (folder / name).mkdir(parents=True, exist_ok=True)
        frames = scene(seed=i, restless=bool(i % 2), num_frames=round(seconds * FPS), **DRAWN)
        write_video(folder / name / f"{i:02d}.mp4", frames, fps=FPS)


def write_long_video(path: Path, *, minutes: int, harmful_minute: int, scale: int = SCALE) -> None:
    """A video of so many minutes, all of them safe but one: a scene a minute, encoded once and used in turn."""
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
                of_source = source.streams.video[0]
                stream = stream or container.add_stream_from_template(of_source)
                for packet in source.demux(of_source):
                    if packet.dts is None or packet.pts is None or packet.time_base is None:
                        continue
                    shift = round(60 * minute / packet.time_base)
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = stream
                    container.mux(packet)
    shutil.rmtree(folder)


class _Enlarged(Sequence[np.ndarray]):
    """Frames (H, W, 3) at `scale` times their size, made when they are asked for."""

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
