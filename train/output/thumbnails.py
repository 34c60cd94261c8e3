"""Small pictures of videos for the page. Decoders crash and hang: each file is decoded by a child process of its own.

`python -m haechi.train.output.thumbnails SIDE` is that child. It reads the bytes of the file from its standard input,
which the parent opened, and writes a JPEG to its standard output: FFmpeg never sees a name that it could take for a
protocol.
"""

import io
import itertools
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

TIME_LIMIT_SECONDS = 20.0
NUM_CHILDREN = 4
JPEG_QUALITY = 80
JPEG_START = b"\xff\xd8\xff"
MAX_FRAMES = 2000  # decoded from the place that was sought to: key frames may be far apart


def make_thumbnails(paths: dict[str, Path], *, side: int = 160) -> dict[str, bytes]:
    """Id -> a JPEG of the middle frame of the video (or of the image) at its path, at most `side` pixels a side.

    A file that is not reachable, no regular file, does not decode, crashes its decoder or takes longer than
    `TIME_LIMIT_SECONDS` has none; without the package `av` none has.
    """
    with ThreadPoolExecutor(NUM_CHILDREN) as pool:
        found = pool.map(lambda path: _thumbnail(path, side), paths.values())
        return {id: jpeg for id, jpeg in zip(paths, found, strict=True) if jpeg is not None}


def _thumbnail(path: Path, side: int) -> bytes | None:
    try:
        # Opening a named pipe would wait for a writer; what is opened is what is looked at.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except (OSError, ValueError):  # ValueError: a NUL byte in the path
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        done = subprocess.run(  # noqa: S603 (no shell, and nothing of the user's in the arguments)
            [sys.executable, "-P", "-m", "haechi.train.output.thumbnails", str(side)],
            stdin=descriptor,
            capture_output=True,
            timeout=TIME_LIMIT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    finally:
        os.close(descriptor)
    return done.stdout if done.returncode == 0 and done.stdout.startswith(JPEG_START) else None


def middle_frame(side: int) -> bytes:
    """The JPEG of the file on standard input. Raises what PyAV raises; `ImportError` where it or Pillow is absent."""
    from PIL import Image

    # Containers without an index may seek past their last key frame: then the first frame has to do.
    frame = _frame(at=0.5) or _frame(at=0.0)
    if frame is None:
        raise EOFError("no frame")
    image = Image.fromarray(frame.to_ndarray(format="rgb24"))
    if frame.rotation:
        image = image.rotate(frame.rotation, expand=True)  # degrees counter-clockwise in both
    image.thumbnail((side, side))
    jpeg = io.BytesIO()
    image.save(jpeg, "JPEG", quality=JPEG_QUALITY)
    return jpeg.getvalue()


def _frame(*, at: float) -> Any:
    """The `av.VideoFrame` shown at this share of the duration; None where none comes."""
    import av  # here only: the parent never decodes

    sys.stdin.buffer.seek(0)
    # No protocol may be opened from within the file: a playlist cannot reach for the network or for other files.
    with av.open(sys.stdin.buffer, "r", options={"protocol_whitelist": "none"}, metadata_errors="replace") as container:
        stream = container.streams.video[0]
        start = stream.start_time or 0
        time = start + int(at * (stream.duration or 0))
        if time > start:
            container.seek(time, stream=stream)
        frame = None
        for frame in itertools.islice(container.decode(stream), MAX_FRAMES):
            if frame.pts is None or frame.pts >= time:
                break
    return frame


if __name__ == "__main__":
    sys.stdout.buffer.write(middle_frame(int(sys.argv[1])))
