"""decord: decodes only the frames between a sampled frame and the key frame before it. Needs decord to be installed."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import decord
import numpy as np
from decord._ffi import base as decord_base

from haechi.extract.decoding import ffmpeg_log
from haechi.extract.decoding.container import Header
from haechi.extract.decoding.frame_times import FrameTimes
from haechi.extract.decoding.reasons import Reason, UnusableError
from haechi.extract.sampling import uniform

# decord replaces a frame that does not decode with a neighbour, and raises only above this share of the video.
FAULT_TOLERANCE = 1e-9

# Containers round times to milliseconds.
TOLERANCE_SECONDS = 0.002

AV_LOG_PRINT_LEVEL = 2  # from FFmpeg's libavutil/log.h
LOG_LINE = re.compile(r"^\[(?P<source>[^\s@\]]+) @ 0x[0-9a-f]+\] \[(?P<level>\w+)\] (?P<text>.*)$")

# What decord raises; the second derives from Exception only. RuntimeError: a file that it cannot open.
ERRORS = (decord.DECORDError, decord_base.DECORDLimitReachedError, RuntimeError, IndexError, StopIteration)


def is_exact(header: Header) -> bool:
    """Whether decord decodes exactly the frames that are asked for.

    It does so, frame by frame, in MP4 for VP9, and for H.264 and HEVC if no frame after a key frame depends on a frame
    before it. It counts hidden frames as shown, it chooses another stream than FFmpeg's command line, and it knows the
    turns of a container by 90, 180 and 270 degrees alone. PyAV decodes all other files.
    """
    can_seek = header.has_closed_gops or (header.codec == "vp9" and "mp4" in header.container.split(","))
    is_turned = header.is_turned_by_container and header.orientation.is_rotation
    return can_seek and is_turned and header.num_streams == 1 and header.num_hidden == 0


def read(path: Path, header: Header, num_samples: int, show: Callable[[int, np.ndarray], None]) -> FrameTimes:
    """Call `show` with each sampled frame, (H, W, 3) uint8 RGB, in order. The times of all frames.

    Raises `UnusableError` if decord fails, if it counts other frames than the container, or if FFmpeg logs damage.
    """
    with _captured_log() as log:
        try:
            # Several workers keep all cores busy, so one decoder thread in each is the most efficient.
            reader = decord.VideoReader(str(path), num_threads=1, fault_tol=FAULT_TOLERANCE)
            num_frames = len(reader)
            if num_frames != header.num_packets:
                raise UnusableError(
                    Reason.DAMAGED, f"decord counts {num_frames} frames, the container {header.num_packets} packets"
                )
            indices = uniform(num_frames, num_samples)
            frame: np.ndarray = np.empty((0, 0, 3), np.uint8)
            for position, index in enumerate(indices):
                if position == 0 or index != indices[position - 1]:
                    frame = reader[index].asnumpy()  # rotation metadata applied
                show(position, frame)
            starts, ends = np.asarray(reader.get_frame_timestamp(range(num_frames)), np.float64).T  # (n,) each
            fps = float(reader.get_avg_fps())
        except AssertionError as error:
            raise UnusableError(Reason.NO_FRAMES, f"its video stream holds no frames (decord: {error})") from error
        except ERRORS as error:
            raise UnusableError(Reason.DAMAGED, f"does not decode (decord: {_first_line(error)})") from error
        lines = _lines(log)
    if message := ffmpeg_log.damage(lines, ignored_sources=header.other_codecs):
        raise UnusableError(Reason.DAMAGED, f"the decoder found damage: {message}")
    following = np.append(starts[1:], starts[-1] + (header.last_frame_seconds or 1 / fps))
    # decord's FFmpeg shortens the last frame by the time at which the first one starts.
    if abs(ends[-1] - following[-1]) > TOLERANCE_SECONDS:
        ends[-1] = following[-1]
    return FrameTimes(
        start_seconds=starts,
        end_seconds=np.where(ends > starts, ends, following),  # VP9's packets have no duration
        fps=fps,
        width=frame.shape[1],
        height=frame.shape[0],
    )


@contextmanager
def _captured_log() -> Iterator[int]:
    """Redirect standard error, to which decord's FFmpeg writes, to a file in memory; yield its descriptor."""
    decord.logging.set_level(decord.logging.INFO)
    decord_base._LIB.av_log_set_flags(AV_LOG_PRINT_LEVEL)  # in the FFmpeg that decord is linked with
    saved, memory = os.dup(2), os.memfd_create("haechi-decoder-log")
    os.dup2(memory, 2)
    try:
        yield memory
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(memory)


def _lines(log: int) -> list[ffmpeg_log.Line]:
    content = os.pread(log, min(os.fstat(log).st_size, 1 << 20), 0).decode(errors="replace")
    return [ffmpeg_log.Line(**m.groupdict()) for m in map(LOG_LINE.match, content.splitlines()) if m]


def _first_line(error: Exception) -> str:
    """decord's error without its C++ stack."""
    return re.sub(r"^(\[\d+:\d+:\d+\] \S+: )+", "", (str(error).splitlines() or [type(error).__name__])[0])
