"""Decodes the sampled frames of one video, or an image. Runs in worker processes, which may die of it.

decord decodes where it is exact. It finds a frame by seeking to a key frame and counting, which gives wrong frames
without a word where pictures before a key frame depend on what lies before it (open GOP, intra refresh), and where
packets carry no times. Such files, and those on which decord fails, are decoded from their beginning with PyAV.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cache.kinds import IMAGE, VIDEO
from extract import still, validate, with_decord, with_pyav
from extract.limits import Limits
from extract.reasons import Reason, UnusableError
from extract.sampling import uniform
from extract.steps import DECODE, READ, RESIZE, Stopwatch
from extract.timeline import Timeline
from extract.transforms import FrameTransform


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """What is known of a file after its frames were decoded: all of `schema.Media` that the file itself tells."""

    kind: str
    """`video` or `image`. An image is one frame, without length or times."""
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
    seconds: dict[str, float]
    """What it took, by step."""


def sample(
    path: Path,
    *,
    num_samples: int,
    limits: Limits,
    outputs: list[tuple[FrameTransform, list[int], np.ndarray]],
    on_header: Callable[[validate.Header], None] = lambda header: None,
) -> Sampled:
    """Check a video, decode its sampled frames once, write each transform's result.

    An output (transform, positions, array) receives the frames at those positions of the T sampled ones: the array
    has shape (len(positions), size, size, 3). Frames are transformed one by one, so that memory holds one
    frame of the source at a time. Of an image, only the first output receives its one frame, at row 0: motion is
    nothing that it has. `on_header` hears what the header says, before anything is decoded.

    Raises `UnusableError` for every way in which the file, its header or a sampled frame is not sound.
    """
    watch = Stopwatch()
    try:
        with watch.time(READ):
            validate.check_file(path)
            state = validate.FileState.of(path)
            kind = IMAGE if still.is_image(path) else VIDEO
        if kind == IMAGE:
            timeline = _read_image(path, limits, outputs[:1], watch)
            num_samples = 1
        else:
            with watch.time(READ):
                header = validate.read_header(path, max_pixels=limits.max_pixels, max_frames=limits.max_frames)
                on_header(header)
            with watch.time(DECODE):
                timeline = _read(path, header, num_samples, outputs, watch)
        with watch.time(READ):
            sha256 = validate.sha256_of(path)
    except UnusableError:
        validate.check_file(path)  # a file that vanished meanwhile is missing, whatever a decoder made of that
        raise
    except OSError as error:  # its disk or network fails
        validate.check_file(path)
        raise UnusableError(Reason.UNREADABLE, f"cannot be read ({error.strerror or error})") from error
    timeline.check()
    indices = uniform(timeline.num_frames, num_samples)
    watch.seconds[DECODE] -= watch.seconds[RESIZE]  # frames are resized as they are decoded
    return Sampled(
        kind=kind,
        state=state,
        sha256=sha256,
        duration_seconds=timeline.duration_seconds,
        fps=timeline.fps,
        num_frames=timeline.num_frames,
        width=timeline.width,
        height=timeline.height,
        start_seconds=timeline.start_seconds[indices].astype(np.float32),
        end_seconds=timeline.end_seconds[indices].astype(np.float32),
        seconds=watch.seconds,
    )


def _read_image(
    path: Path, limits: Limits, outputs: list[tuple[FrameTransform, list[int], np.ndarray]], watch: Stopwatch
) -> Timeline:
    with watch.time(DECODE):
        picture = still.read(path, max_pixels=limits.max_pixels)
    with watch.time(RESIZE):
        for transform, _, array in outputs:
            array[0] = transform(picture)
    watch.seconds[DECODE] += watch.seconds[RESIZE]  # as of videos, whose frames are resized as they are decoded
    return Timeline(
        start_seconds=np.zeros(1), end_seconds=np.zeros(1), fps=0.0, width=picture.shape[1], height=picture.shape[0]
    )


def _read(
    path: Path,
    header: validate.Header,
    num_samples: int,
    outputs: list[tuple[FrameTransform, list[int], np.ndarray]],
    watch: Stopwatch,
) -> Timeline:
    def show(position: int, frame: np.ndarray) -> None:
        """Take the sampled frame of this position, (H, W, 3) uint8 RGB."""
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise UnusableError(Reason.DAMAGED, f"decodes to pictures of shape {frame.shape}")
        with watch.time(RESIZE):
            for transform, positions, array in outputs:
                rows = [row for row, wanted in enumerate(positions) if wanted == position]
                if rows:
                    array[rows] = transform(frame)

    if with_decord.is_exact(header):
        try:
            return with_decord.read(path, header, num_samples, show)
        except UnusableError:
            pass  # PyAV has the last word: it seeks nowhere and counts nothing
    return with_pyav.read(path, header, num_samples, show)
