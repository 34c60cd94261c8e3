"""Small pictures of videos for the page. Decoders crash and hang, so a separate child process decodes each file.

The child is `python -m haechi.train.output.thumbnails SIDE`. It reads the file from its standard input, which the
parent opened, and writes a JPEG to its standard output. FFmpeg never gets a file name, which it could take for a
protocol.
"""

import contextlib
import functools
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
MAX_FRAMES = 2000  # decoded after seeking: key frames may be far apart


def make_thumbnails(ids: list[str], media_root: Path, *, side: int = 160) -> dict[str, bytes]:
    """Id -> a JPEG of the middle frame of the video, or of the image, at most `side` pixels wide and high.

    An id is a path relative to `media_root`. There is no thumbnail for a path that leads out of `media_root` (links are
    followed), cannot be opened, is not a regular file, does not decode, crashes its decoder or takes longer than
    `TIME_LIMIT_SECONDS`; without the package `av` there are none.
    """
    root = media_root.resolve()
    with ThreadPoolExecutor(NUM_CHILDREN) as pool:
        found = pool.map(functools.partial(_thumbnail, root, side), ids)
        return {id: jpeg for id, jpeg in zip(ids, found, strict=True) if jpeg is not None}


def _thumbnail(root: Path, side: int, id: str) -> bytes | None:
    try:
        path = (root / id).resolve()
        if not path.is_relative_to(root):
            return None
        # Without O_NONBLOCK, opening a named pipe would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except (OSError, ValueError, RuntimeError):  # a NUL byte in the path; links in a circle
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        done = subprocess.run(  # noqa: S603 (no shell, and no text from outside in the arguments)
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
    """A JPEG of the middle frame of the file on standard input. Raises errors of PyAV, and `ImportError` without PyAV
    or Pillow."""
    image = _still() or _video_frame()
    image.thumbnail((side, side))
    jpeg = io.BytesIO()
    image.save(jpeg, "JPEG", quality=JPEG_QUALITY)
    return jpeg.getvalue()


def _still() -> Any:
    """The image on standard input, upright, as a `PIL.Image.Image`; None if it is a video."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    with contextlib.suppress(ImportError):  # FFmpeg would show one tile of a HEIC
        import pi_heif

        pi_heif.register_heif_opener()
    try:
        image = Image.open(sys.stdin.buffer)
    except UnidentifiedImageError:
        return None
    return ImageOps.exif_transpose(image).convert("RGB")


def _video_frame() -> Any:
    """The middle frame of the video on standard input, turned, as a `PIL.Image.Image`."""
    from PIL import Image

    # In containers without an index, seeking may end after the last key frame: then the first frame is used.
    frame = _frame(at=0.5) or _frame(at=0.0)
    if frame is None:
        raise EOFError("no frame")
    image = Image.fromarray(frame.to_ndarray(format="rgb24"))
    return image.rotate(frame.rotation, expand=True) if frame.rotation else image  # counter-clockwise in both


def _frame(*, at: float) -> Any:
    """The `av.VideoFrame` at this share of the duration; None where there is none."""
    import av  # not in the parent, which never decodes

    sys.stdin.buffer.seek(0)
    # The file cannot make FFmpeg open anything else: a playlist must not reach the network or other files.
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
