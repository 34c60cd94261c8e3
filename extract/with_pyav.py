"""PyAV: decodes every frame from the first on, so that counting cannot go wrong. Slow on long videos."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import av.error
import av.logging
import numpy as np

from extract import ffmpeg_log
from extract.reasons import Reason, UnusableError
from extract.sampling import uniform
from extract.timeline import Timeline
from extract.validate import Header, open_container, video_stream

LEVELS = {av.logging.PANIC: "panic", av.logging.FATAL: "fatal", av.logging.ERROR: "error"}


def read(path: Path, header: Header, num_samples: int, show: Callable[[int, np.ndarray], None]) -> Timeline:
    """Show each of the sampled frames, (H, W, 3) uint8 RGB, in order; the times of all frames.

    Raises `UnusableError` where a frame does not decode, is marked corrupt, or FFmpeg logs damage.
    """
    num_expected = header.num_packets
    while True:
        timeline = _read_expecting(path, header, num_expected, num_samples, show)
        if timeline.num_frames == num_expected:
            return timeline
        num_expected = timeline.num_frames  # fields or hidden frames: a packet is not always a frame


def _read_expecting(
    path: Path, header: Header, num_expected: int, num_samples: int, show: Callable[[int, np.ndarray], None]
) -> Timeline:
    """Decode all, showing what would be sampled of `num_expected` frames."""
    wanted: dict[int, list[int]] = {}
    for position, index in enumerate(uniform(max(num_expected, 1), num_samples)):
        wanted.setdefault(index, []).append(position)
    times: list[tuple[float | None, float]] = []
    num_corrupt = 0
    size = (0, 0)
    av.logging.set_level(av.logging.INFO)
    av.logging.set_skip_repeated(False)  # it compares with the last line of any file: the file before would decide
    try:
        with av.logging.Capture() as log:
            for index, (frame, fps) in enumerate(_frames(path)):
                num_corrupt += frame.is_corrupt
                duration = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 1 / fps
                times.append((None if header.container == "avi" else frame.time, duration))  # AVI has no times
                if index in wanted:
                    # rotation is in degrees counter-clockwise, as numpy turns
                    picture = np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90))
                    size = picture.shape[:2]
                    for position in wanted[index]:
                        show(position, picture)
            lines = [
                ffmpeg_log.Line(source=name, level=LEVELS.get(level, "info"), text=text.strip())
                for level, name, text in log
            ]
    except av.error.MemoryError:
        raise  # the worker's limit
    except av.error.FFmpegError as error:
        raise UnusableError(Reason.DAMAGED, f"does not decode ({error.strerror})") from error
    finally:
        av.logging.set_level(None)
    if told := ffmpeg_log.damage(lines, ignored_sources=header.other_codecs):
        raise UnusableError(Reason.DAMAGED, f"the decoder met damage: {told}")
    if num_corrupt:
        raise UnusableError(Reason.DAMAGED, f"the decoder marks {num_corrupt} of {len(times)} frames as corrupt")
    if not times:
        raise UnusableError(Reason.NO_FRAMES, "its video stream holds no frames")
    return _timeline(times, fps=fps, height=size[0], width=size[1])


def _frames(path: Path) -> Iterator[tuple[Any, float]]:
    with open_container(path) as container:
        stream = video_stream(container)
        stream.codec_context.thread_count = 1  # several workers keep all cores busy; logs stay in this thread
        if stream.codec_context.name == "vp8":  # with slices alone it sees that a frame's data end too soon
            stream.codec_context.thread_count, stream.codec_context.thread_type = 2, "SLICE"
        fps = float(stream.average_rate or stream.guessed_rate or 25)
        for frame in container.decode(stream):
            yield frame, fps


def _timeline(times: list[tuple[float | None, float]], *, fps: float, width: int, height: int) -> Timeline:
    """Times by the container; where it lacks some or they do not rise, evenly by the frame rate."""
    starts = np.array([np.nan if start is None else start for start, _ in times])
    if not (np.diff(starts) > 0).all() or np.isnan(starts).any():
        starts = np.arange(len(times)) / fps
    ends = np.append(starts[1:], starts[-1] + times[-1][1])
    return Timeline(start_seconds=starts, end_seconds=ends, fps=fps, width=width, height=height)
