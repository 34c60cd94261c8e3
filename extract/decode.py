"""Decodes the sampled frames of one video with decord. Runs in worker processes, which may die of it."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import decord
import numpy as np
from decord._ffi import base as decord_base

from extract import validate
from extract.reasons import Reason, UnusableError
from extract.sampling import uniform
from extract.transforms import FrameTransform

# decord puts a neighbour in place of a frame that does not decode, and raises only beyond this share of the video.
FAULT_TOLERANCE = 1e-9

# FFmpeg's decoders conceal damage and only log it, so their log is what tells damage: lines of level error, and those
# that count concealed blocks (level info). These few errors are logged for sound files too, when a seek lands before a
# frame whose references lie earlier (open GOP, recovery points).
BENIGN_LINES = re.compile(
    r"mmco: unref short failure|number of reference frames .* exceeds max|reference picture missing during reorder|"
    r"Missing reference picture|co located POCs unavailable|Could not find ref with POC|"
    r"SEI type .* truncated|SPS unavailable in decode_picture_timing|"
    r"Missing key frame while searching for timestamp|Cannot find an index entry before timestamp"
)
LOG_LINE = re.compile(r"^\[(?P<source>[^\s@\]]+) @ 0x[0-9a-f]+\] \[(?P<level>\w+)\] (?P<text>.*)$")
DAMAGE_LEVELS = {"panic", "fatal", "error"}
CONCEALMENT = re.compile(r"concealing \d+ DC, \d+ AC, \d+ MV errors")
AV_LOG_PRINT_LEVEL = 2  # of FFmpeg's libavutil/log.h


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """What is known of a video after its frames were decoded: all of `schema.Media` that the file itself tells."""

    state: validate.FileState
    sha256: str
    duration_seconds: float
    fps: float
    num_frames: int
    width: int
    height: int
    start_seconds: np.ndarray
    """(T,) float32: when each sampled frame is first shown, as the container says."""
    end_seconds: np.ndarray
    """(T,) float32: until when it is shown."""


def sample(
    path: Path, *, num_samples: int, max_pixels: int, outputs: list[tuple[FrameTransform, list[int], np.ndarray]]
) -> Sampled:
    """Check a video, decode its sampled frames once, write each transform's result.

    An output (transform, positions, array) receives the frames at those positions of the T sampled ones: the array
    has shape (len(positions), size, size, 3), uint8. Frames are transformed one by one, so that memory holds one
    frame of the source at a time.

    Raises `UnusableError` for every way in which the file, its header or a sampled frame is not sound.
    """
    validate.check_file(path)
    state = validate.FileState.of(path)
    header = validate.read_header(path, max_pixels=max_pixels)
    with _captured_log() as log:
        try:
            sampled = _decode(path, num_samples, outputs, state)
        except AssertionError as error:
            raise UnusableError(Reason.NO_FRAMES, f"its video stream holds no frames (decord: {error})") from error
        except (decord.DECORDError, RuntimeError, IndexError, StopIteration) as error:
            # RuntimeError: a file that decord cannot open
            raise UnusableError(Reason.DAMAGED, _decord_message(error, log.read())) from error
        complaints = _complaints(log.read(), header)
    if complaints:
        more = f" (and {len(complaints) - 1} more)" if len(complaints) > 1 else ""
        raise UnusableError(Reason.DAMAGED, f"the decoder met damage: {complaints[0]}{more}")
    return sampled


def _decode(
    path: Path,
    num_samples: int,
    outputs: list[tuple[FrameTransform, list[int], np.ndarray]],
    state: validate.FileState,
) -> Sampled:
    # Several workers keep all cores busy; one decoder thread each wastes least.
    reader = decord.VideoReader(str(path), num_threads=1, fault_tol=FAULT_TOLERANCE)
    num_frames = len(reader)
    indices = uniform(num_frames, num_samples)
    frame: np.ndarray = np.empty((0, 0, 3), np.uint8)
    for position, index in enumerate(indices):
        if position == 0 or index != indices[position - 1]:
            frame = reader[index].asnumpy()  # (H, W, 3) uint8 RGB, rotation metadata applied
        for transform, positions, array in outputs:
            for row in (row for row, wanted in enumerate(positions) if wanted == position):
                array[row] = transform(frame)
    times = np.asarray(reader.get_frame_timestamp(range(num_frames)))  # (n, 2) float32: start, end in seconds
    if not np.isfinite(times).all():
        raise UnusableError(Reason.DAMAGED, "its frames have no valid times")
    return Sampled(
        state=state,
        sha256=validate.sha256_of(path),
        duration_seconds=round(float(times[:, 1].max() - times[:, 0].min()), 6),  # decord tells float32
        fps=float(reader.get_avg_fps()),
        num_frames=num_frames,
        width=frame.shape[1],
        height=frame.shape[0],
        start_seconds=times[indices, 0].astype(np.float32),
        end_seconds=times[indices, 1].astype(np.float32),
    )


class _Log:
    """What was written to standard error since the capture began."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self) -> str:
        size = os.fstat(self._descriptor).st_size
        return os.pread(self._descriptor, min(size, 1 << 20), 0).decode(errors="replace")


@contextmanager
def _captured_log() -> Iterator[_Log]:
    """Send this process's standard error, where FFmpeg and decord write, to memory."""
    decord.logging.set_level(decord.logging.INFO)
    decord_base._LIB.av_log_set_flags(AV_LOG_PRINT_LEVEL)  # of the FFmpeg that decord is linked with
    saved, memory = os.dup(2), os.memfd_create("haechi-decoder-log")
    os.dup2(memory, 2)
    try:
        yield _Log(memory)
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(memory)


def _complaints(log: str, header: validate.Header) -> list[str]:
    """The lines by which FFmpeg says that the pictures, or the file they lie in, are damaged."""
    return [
        f"{m['source']}: {m['text']}"
        for m in map(LOG_LINE.match, log.splitlines())
        if m
        and m["source"] not in header.other_codecs
        and (m["level"] in DAMAGE_LEVELS or CONCEALMENT.match(m["text"]))
        and not BENIGN_LINES.search(m["text"])
    ]


def _decord_message(error: Exception, log: str) -> str:
    """decord's error without its C++ stack, after FFmpeg's last word on the matter."""
    lines = str(error).splitlines() or [type(error).__name__]
    text = re.sub(r"^(\[\d+:\d+:\d+\] \S+: )+", "", lines[0])
    said = [m["text"] for m in map(LOG_LINE.match, log.splitlines()) if m and m["level"] in DAMAGE_LEVELS]
    return f"does not decode: {text}" + (f" (FFmpeg: {said[-1]})" if said else "")
