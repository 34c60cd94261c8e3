"""Decodes the sampled frames of one video or image. Runs in worker processes, which may crash on a damaged file.

With `uniform` sampling decord decodes the files for which it is exact. It finds a frame by seeking to a key frame and
counting from there, which silently gives wrong frames if pictures before a key frame depend on earlier ones (open GOP,
intra refresh), or if packets have no times. PyAV decodes such files from the beginning, and those on which decord
fails, and all files where decord is not installed. It also decodes all files with `windows` sampling: that needs every
frame anyway, and decord's memory grows with the length of the video.
"""

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import assert_never

import numpy as np

from haechi.cache.file_state import FileState
from haechi.cache.kinds import IMAGE, VIDEO
from haechi.extract.decoding import container, files, image, pyav_reader
from haechi.extract.decoding.frame_times import DecodedMedia, FrameTimes
from haechi.extract.decoding.limits import Limits
from haechi.extract.decoding.reasons import Reason, UnusableError
from haechi.extract.decoding.shared_frames import Sink
from haechi.extract.decoding.transforms import FrameTransform
from haechi.extract.sampling import Sampling, Uniform, Windows, uniform
from haechi.extract.timing import DECODE, READ, RESIZE, Stopwatch

# decord has wheels for x86-64 only, and `decord_reader` needs Linux. Elsewhere PyAV decodes everything.
HAS_DECORD = sys.platform == "linux" and importlib.util.find_spec("decord") is not None

if HAS_DECORD:
    from haechi.extract.decoding import decord_reader


@dataclass(frozen=True, kw_only=True)
class DecodedFile(DecodedMedia):
    """What is known of a file after it was decoded: all fields of `schema.Media` that come from the file itself."""

    kind: str
    """`video` or `image`. An image is one frame, without length or times."""
    state: FileState
    sha256: str
    traits: frozenset[container.Trait]
    """What a user may want to know about a video."""
    seconds: dict[str, float]
    """Seconds that each step took."""


def decoders() -> list[str]:
    """The decoders that are used on this machine: `["decord", "PyAV"]` or `["PyAV"]`."""
    return ["decord", "PyAV"] if HAS_DECORD else ["PyAV"]


def sample(
    path: Path,
    *,
    sampling: Sampling,
    limits: Limits,
    sink: Sink,
    on_header: Callable[[container.Header], None] = lambda header: None,
    sha256: str = "",
) -> DecodedFile:
    """Check a file, decode it once, and pass the transformed frames of each output to `sink`.

    With `uniform` all frames are passed on at once, after the whole file was found undamaged; with `windows` they are
    passed on while the video is decoded. Frames are transformed one by one, so that few source frames are in memory at
    a time. The single frame of an image goes to the first output only, since an image has no motion. `on_header` is
    called with the header of a video before anything is decoded. `sha256` is the file's hash if it is known already.

    Raises `UnusableError` if the file, its header or a sampled frame is missing, damaged or too large.
    """
    watch = Stopwatch()
    traits: frozenset[container.Trait] = frozenset()
    counts: list[int] | None = None  # frames of each output that are still to be published
    try:
        with watch.time(READ):
            files.check_file(path)
            state = FileState.of(path)
            kind = IMAGE if image.is_image(path) else VIDEO
        if kind == IMAGE:
            if sink.outputs and not sink.outputs[0].num_frames:
                raise UnusableError(Reason.NO_MOTION, "an image has no motion, and only SlowFast is extracted")
            decoded = _read_image(path, limits, sink, watch)
            counts = [int(i == 0) for i in range(len(sink.outputs))]
        else:
            with watch.time(READ):
                header = container.read_header(path, max_pixels=limits.max_pixels, max_frames=limits.max_frames)
                on_header(header)
            with watch.time(DECODE):
                if isinstance(sampling, Uniform):
                    decoded = _read_uniform(path, header, sampling.frames, sink, watch)
                    counts = [output.num_frames for output in sink.outputs]
                elif isinstance(sampling, Windows):
                    decoded = pyav_reader.read_windows(
                        path, header, sampling, sink, watch, max_samples=limits.max_frames
                    )
                else:
                    assert_never(sampling)
            decoded = replace(decoded, width=max(1, round(decoded.width * header.pixel_aspect)))
            traits = header.traits
        with watch.time(READ):
            sha256 = sha256 or files.sha256_of(path)
    except UnusableError:
        files.check_file(path)  # if the file was removed meanwhile, the reason is `missing`, not the decoder's error
        raise
    except OSError as error:  # its disk or network fails
        files.check_file(path)
        raise UnusableError(Reason.UNREADABLE, f"cannot be read ({error.strerror or error})") from error
    if counts is not None:
        sink.publish(counts)
    watch.seconds[DECODE] -= watch.seconds[RESIZE] + sink.waited_seconds  # frames are resized while they are decoded
    return DecodedFile(**vars(decoded), kind=kind, state=state, sha256=sha256, traits=traits, seconds=watch.seconds)


def _read_image(path: Path, limits: Limits, sink: Sink, watch: Stopwatch) -> DecodedMedia:
    with watch.time(DECODE):
        picture = image.read(path, max_pixels=limits.max_pixels)
    with watch.time(RESIZE):
        for output, array in zip(sink.outputs[:1], sink.free_arrays()[:1], strict=True):
            array[0] = output.transform(picture)
    watch.seconds[DECODE] += watch.seconds[RESIZE]  # `sample` subtracts it again, as for videos
    return DecodedMedia(
        clip_seconds=np.zeros(1),
        window_start_seconds=np.zeros(0),
        window_end_seconds=np.zeros(0),
        duration_seconds=0.0,
        fps=0.0,
        num_frames=1,
        width=picture.shape[1],
        height=picture.shape[0],
    )


def _read_uniform(path: Path, header: container.Header, num_samples: int, sink: Sink, watch: Stopwatch) -> DecodedMedia:
    """`uniform` sampling: each output gets frames that are evenly spaced among the T sampled ones."""
    outputs: list[tuple[FrameTransform, list[int], np.ndarray]] = [
        (output.transform, uniform(num_samples, output.num_frames), array)
        for output, array in zip(sink.outputs, sink.free_arrays(), strict=True)
        if output.num_frames
    ]

    def show(position: int, frame: np.ndarray) -> None:
        """Take the sampled frame of this position, (H, W, 3) uint8 RGB."""
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise UnusableError(Reason.DAMAGED, f"decodes to pictures of shape {frame.shape}")
        with watch.time(RESIZE):
            for transform, positions, array in outputs:
                rows = [row for row, wanted in enumerate(positions) if wanted == position]
                if rows:
                    array[rows] = transform(frame, header.pixel_aspect)

    frame_times = _read_frames(path, header, num_samples, show)
    return frame_times.sampled(uniform(frame_times.num_frames, num_samples))


def _read_frames(
    path: Path, header: container.Header, num_samples: int, show: Callable[[int, np.ndarray], None]
) -> FrameTimes:
    if HAS_DECORD and decord_reader.is_exact(header):
        try:
            return decord_reader.read(path, header, num_samples, show)
        except UnusableError:
            pass  # PyAV decides: it decodes from the first frame on and does not seek
    return pyav_reader.read(path, header, num_samples, show)
