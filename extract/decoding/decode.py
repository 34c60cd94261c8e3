"""Decodes what is sampled of one video, or an image. Runs in worker processes, which may die of it.

For `uniform` sampling decord decodes where it is exact. It finds a frame by seeking to a key frame and counting, which
gives wrong frames without a word where pictures before a key frame depend on what lies before it (open GOP, intra
refresh), and where packets carry no times. Such files, and those on which decord fails, are decoded from their
beginning with PyAV. So are all for `windows`, for which every frame passes anyhow: decord grows with them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from haechi.cache.kinds import IMAGE, VIDEO
from haechi.extract.decoding import container, decord_reader, files, image, pyav_reader
from haechi.extract.decoding.frame_times import Taken, Timeline
from haechi.extract.decoding.limits import Limits
from haechi.extract.decoding.reasons import Reason, UnusableError
from haechi.extract.decoding.shared_frames import Sink
from haechi.extract.decoding.transforms import FrameTransform
from haechi.extract.sampling import Sampling, Uniform, uniform
from haechi.extract.timing import DECODE, READ, RESIZE, Stopwatch


@dataclass(frozen=True, kw_only=True)
class Sampled(Taken):
    """What is known of a file after it was decoded: all of `schema.Media` that the file itself tells."""

    kind: str
    """`video` or `image`. An image is one frame, without length or times."""
    state: files.FileState
    sha256: str
    seconds: dict[str, float]
    """What it took, by step."""


def sample(
    path: Path,
    *,
    sampling: Sampling,
    limits: Limits,
    sink: Sink,
    on_header: Callable[[container.Header], None] = lambda header: None,
) -> Sampled:
    """Check a video, decode it once, hand each transform's frames to `sink`: with `uniform` at once, when the file was
    found sound to its last byte; with `windows` in pieces, on the way.

    Frames are transformed one by one, so that memory holds few frames of the source at a time. Of an image, only the
    first output receives its one frame: motion is nothing that it has. `on_header` hears what the header says, before
    anything is decoded.

    Raises `UnusableError` for every way in which the file, its header or a sampled frame is not sound.
    """
    watch = Stopwatch()
    counts: list[int] | None = None  # of what waits to be handed on
    try:
        with watch.time(READ):
            files.check_file(path)
            state = files.FileState.of(path)
            kind = IMAGE if image.is_image(path) else VIDEO
        if kind == IMAGE:
            taken = _read_image(path, limits, sink, watch)
            counts = [int(i == 0) for i in range(len(sink.outputs))]
        else:
            with watch.time(READ):
                header = container.read_header(path, max_pixels=limits.max_pixels, max_frames=limits.max_frames)
                on_header(header)
            with watch.time(DECODE):
                if isinstance(sampling, Uniform):
                    taken = _read(path, header, sampling.frames, sink, watch)
                    counts = [output.num_frames for output in sink.outputs]
                else:
                    taken = pyav_reader.read_windows(path, header, sampling, sink, watch, max_samples=limits.max_frames)
        with watch.time(READ):
            sha256 = files.sha256_of(path)
    except UnusableError:
        files.check_file(path)  # a file that vanished meanwhile is missing, whatever a decoder made of that
        raise
    except OSError as error:  # its disk or network fails
        files.check_file(path)
        raise UnusableError(Reason.UNREADABLE, f"cannot be read ({error.strerror or error})") from error
    if counts is not None:
        sink.publish(counts)
    watch.seconds[DECODE] -= watch.seconds[RESIZE] + sink.waited_seconds  # frames are resized as they are decoded
    return Sampled(**vars(taken), kind=kind, state=state, sha256=sha256, seconds=watch.seconds)


def _read_image(path: Path, limits: Limits, sink: Sink, watch: Stopwatch) -> Taken:
    with watch.time(DECODE):
        picture = image.read(path, max_pixels=limits.max_pixels)
    with watch.time(RESIZE):
        for output, array in zip(sink.outputs[:1], sink.room()[:1], strict=True):
            array[0] = output.transform(picture)
    watch.seconds[DECODE] += watch.seconds[RESIZE]  # as of videos, whose frames are resized as they are decoded
    return Taken(
        clip_seconds=np.zeros(1),
        window_start_seconds=np.zeros(0),
        window_end_seconds=np.zeros(0),
        duration_seconds=0.0,
        fps=0.0,
        num_frames=1,
        width=picture.shape[1],
        height=picture.shape[0],
    )


def _read(path: Path, header: container.Header, num_samples: int, sink: Sink, watch: Stopwatch) -> Taken:
    """`uniform` sampling: an output receives those of the T sampled frames that are evenly spaced in turn."""
    outputs: list[tuple[FrameTransform, list[int], np.ndarray]] = [
        (output.transform, uniform(num_samples, output.num_frames), array)
        for output, array in zip(sink.outputs, sink.room(), strict=True)
    ]

    def show(position: int, frame: np.ndarray) -> None:
        """Take the sampled frame of this position, (H, W, 3) uint8 RGB."""
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise UnusableError(Reason.DAMAGED, f"decodes to pictures of shape {frame.shape}")
        with watch.time(RESIZE):
            for transform, positions, array in outputs:
                rows = [row for row, wanted in enumerate(positions) if wanted == position]
                if rows:
                    array[rows] = transform(frame)

    timeline = _timeline(path, header, num_samples, show)
    return timeline.taken(uniform(timeline.num_frames, num_samples))


def _timeline(
    path: Path, header: container.Header, num_samples: int, show: Callable[[int, np.ndarray], None]
) -> Timeline:
    if decord_reader.is_exact(header):
        try:
            return decord_reader.read(path, header, num_samples, show)
        except UnusableError:
            pass  # PyAV has the last word: it seeks nowhere and counts nothing
    return pyav_reader.read(path, header, num_samples, show)
