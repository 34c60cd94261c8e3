"""PyAV: decodes every frame from the first on, so that frames are counted exactly. Slow if few frames are needed."""

import contextlib
import functools
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import av
import av.error
import av.logging
import numpy as np

from haechi.extract.decoding import ffmpeg_log
from haechi.extract.decoding.container import CUT_ANYWHERE, Header, open_container
from haechi.extract.decoding.frame_times import MAX_TIME_SECONDS, Clock, DecodedMedia, FrameTimes
from haechi.extract.decoding.reasons import Reason, UnusableError
from haechi.extract.decoding.shared_frames import Sink
from haechi.extract.decoding.windows import WindowStream, timed_frames
from haechi.extract.sampling import Windows, uniform
from haechi.extract.timing import Stopwatch

LEVELS = {av.logging.PANIC: "panic", av.logging.FATAL: "fatal", av.logging.ERROR: "error"}

# Longest mean time per frame. Our choice: longer than a slide in a lecture is normally shown.
MAX_STILL_SECONDS = 600.0

# FFmpeg's log is checked after this many frames, so that a long damaged video is not decoded to its end.
CHECK_FRAMES = 256


def read(path: Path, header: Header, num_samples: int, show: Callable[[int, np.ndarray], None]) -> FrameTimes:
    """Call `show` with each sampled frame, (H, W, 3) uint8 RGB, in order. The times of all frames.

    Raises `UnusableError` if a frame does not decode or is marked as corrupt, or if FFmpeg logs damage.
    """
    num_expected = header.num_shown
    while True:
        with _unusable_if_av_fails():
            frame_times = _read_expecting(path, header, num_expected, num_samples, show)
        if frame_times.num_frames == num_expected:
            return frame_times
        num_expected = frame_times.num_frames  # with fields or hidden frames, a packet is not always a frame


def read_windows(
    path: Path, header: Header, sampling: Windows, sink: Sink, watch: Stopwatch, *, max_samples: int
) -> DecodedMedia:
    """Pass all windows and CLIP frames of a video to `sink`; few are in memory at a time, for any length.

    Raises as `read` does, possibly after some frames were passed on, and if more than `max_samples` frames would be
    sampled.
    """
    windows = WindowStream(sampling, sink, watch, pixel_aspect=header.pixel_aspect, max_samples=max_samples)
    num_frames, origin, width, height, fps = 0, 0.0, 0, 0, 0.0

    def timed() -> Iterator[tuple[Any, float | None, float]]:
        nonlocal fps
        for frame, rate in _decoded(path, header):
            fps = rate
            yield frame, _time(frame, header), _duration(frame, rate)

    with _unusable_if_av_fails():
        for shown in timed_frames(timed(), _clock(header)):
            if abs(shown.end_seconds) > MAX_TIME_SECONDS:
                raise UnusableError(Reason.DAMAGED, "its frames have no valid times")
            frame = shown.frame
            origin = origin if num_frames else shown.start_seconds
            _refuse_stills(shown.end_seconds - origin, header)
            windows.show(functools.partial(_picture, frame, header), shown.start_seconds, shown.end_seconds)
            width, height = frame.width, frame.height
            num_frames += 1
    clip_seconds, starts, ends = windows.finish(shown.end_seconds)
    if header.orientation.is_transposed:
        width, height = height, width
    return DecodedMedia(
        clip_seconds=np.array(clip_seconds),
        window_start_seconds=np.array(starts),
        window_end_seconds=np.array(ends),
        duration_seconds=round(shown.end_seconds - origin, 6),
        fps=fps,
        num_frames=num_frames,
        width=width,
        height=height,
    )


def _read_expecting(
    path: Path, header: Header, num_expected: int, num_samples: int, show: Callable[[int, np.ndarray], None]
) -> FrameTimes:
    """Decode all frames; call `show` for those that are sampled if there are `num_expected` frames."""
    wanted: dict[int, list[int]] = {}
    for position, index in enumerate(uniform(max(num_expected, 1), num_samples)):
        wanted.setdefault(index, []).append(position)
    times: list[tuple[float | None, float]] = []
    size = (0, 0)
    for index, (frame, fps) in enumerate(_decoded(path, header)):
        times.append((_time(frame, header), _duration(frame, fps)))
        if index in wanted:
            picture = _picture(frame, header)
            size = picture.shape[:2]
            for position in wanted[index]:
                show(position, picture)
    return _frame_times(times, _clock(header), fps=fps, height=size[0], width=size[1])


def _decoded(path: Path, header: Header) -> Iterator[tuple[Any, float]]:
    """Yield each frame, at least one, with the average frame rate. Raises `UnusableError` as `read` does."""
    num_frames = num_corrupt = 0
    av.logging.set_level(av.logging.INFO)
    av.logging.set_skip_repeated(False)  # lines are compared with the last line of the previous file too
    try:
        with av.logging.Capture() as log, contextlib.closing(_frames(path, header, log)) as frames:
            for frame, fps in frames:
                num_frames += 1
                num_corrupt += frame.is_corrupt
                yield frame, fps
                if num_frames % CHECK_FRAMES == 0:
                    _refuse_damage(log, header, num_corrupt, num_frames)
            _refuse_damage(log, header, num_corrupt, num_frames)
    finally:
        av.logging.set_level(None)
    if not num_frames:
        raise UnusableError(Reason.NO_FRAMES, "its video stream holds no frames")


@contextlib.contextmanager
def _unusable_if_av_fails() -> Iterator[None]:
    """Raise `UnusableError` for each error of FFmpeg."""
    try:
        yield
    except av.error.MemoryError:
        raise  # the worker's limit
    except av.error.FFmpegError as error:
        raise UnusableError(Reason.DAMAGED, f"does not decode ({error.strerror})") from error


def _refuse_damage(log: list[tuple[int, str, str]], header: Header, num_corrupt: int, num_frames: int) -> None:
    """Raise `UnusableError` if FFmpeg logged damage so far; clear the log."""
    lines = [
        ffmpeg_log.Line(source=name, level=LEVELS.get(level, "info"), text=text.strip()) for level, name, text in log
    ]
    log.clear()
    if message := ffmpeg_log.damage(lines, ignored_sources=header.other_codecs):
        raise UnusableError(Reason.DAMAGED, f"the decoder found damage: {message}")
    if num_corrupt:
        raise UnusableError(Reason.DAMAGED, f"the decoder marks {num_corrupt} of {num_frames} frames as corrupt")


def _frames(path: Path, header: Header, log: list[tuple[int, str, str]]) -> Generator[tuple[Any, float]]:
    """Yield each frame with the average frame rate.

    Packets before the first key frame are left out if they are useless: after them, decoders would take frames whose
    references are missing for damaged. What decoders logged about them when the file was opened is removed from `log`.
    """
    with open_container(path) as container:
        stream: Any = container.streams[header.stream_index]
        stream.codec_context.thread_count = 1  # several workers keep all cores busy; the log needs one thread
        if stream.codec_context.name == "vp8":  # with slice threads only, it detects that a frame's data are cut off
            stream.codec_context.thread_count, stream.codec_context.thread_type = 2, "SLICE"
        fps = float(stream.average_rate or stream.guessed_rate or 25)
        if header.num_skipped:
            log[:] = [line for line in log if line[1] == header.container]
        num_left_out = 0
        for packet in container.demux(stream):
            if packet.size and num_left_out < header.num_skipped:
                num_left_out += 1
                continue
            for frame in packet.decode():
                yield frame, fps


def _picture(frame: Any, header: Header) -> np.ndarray:
    """(H, W, 3) uint8 RGB, upright."""
    return header.orientation.applied(frame.to_ndarray(format="rgb24"))


def _time(frame: Any, header: Header) -> float | None:
    """When a frame is shown, seconds, according to the container."""
    seconds: float | None = None if header.container == "avi" else frame.time  # AVI has no times
    return seconds


def _duration(frame: Any, fps: float) -> float:
    """How long a frame is shown, seconds: according to the container, or from the frame rate."""
    return float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 1 / fps


def _clock(header: Header) -> Clock:
    return Clock(may_jump=header.container in CUT_ANYWHERE)


def _refuse_stills(seconds: float, header: Header) -> None:
    """Raise `UnusableError` if few frames claim a long time: a small file could cause days of work."""
    if seconds > header.num_packets * MAX_STILL_SECONDS:
        message = f"{header.num_packets} frames in {seconds:,.0f} s: more than {MAX_STILL_SECONDS:g} s per frame"
        raise UnusableError(Reason.TOO_LARGE, message)


def _frame_times(
    times: list[tuple[float | None, float]], clock: Clock, *, fps: float, width: int, height: int
) -> FrameTimes:
    starts = np.array([clock.next_start(time, duration) for time, duration in times])
    ends = np.append(starts[1:], starts[-1] + times[-1][1])
    return FrameTimes(start_seconds=starts, end_seconds=ends, fps=fps, width=width, height=height)
