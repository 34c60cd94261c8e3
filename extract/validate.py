"""Is it sound: what can be told of a file before any of its frames is decoded."""

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

import av
import av.error
import av.logging

from extract.reasons import Reason, UnusableError


@dataclass(frozen=True, kw_only=True)
class FileState:
    """What the file system says of a file: tells on a later run whether it changed."""

    size_bytes: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> "FileState":
        """The state now; zeros where the file is missing or out of reach."""
        try:
            found = path.stat()
        except OSError:
            return cls(size_bytes=0, mtime_ns=0)
        return cls(size_bytes=found.st_size, mtime_ns=found.st_mtime_ns)


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a container's header says of its video stream."""

    codec: str
    width: int
    height: int
    other_codecs: frozenset[str]
    """Names of the decoders of audio and subtitles: what they complain of does not concern the pictures."""


def check_file(path: Path) -> None:
    """Raise `UnusableError` unless `path` is a regular file with bytes in it that may be read."""
    try:
        state = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UnusableError(Reason.MISSING, "no such file") from error
    except OSError as error:
        raise UnusableError(Reason.UNREADABLE, f"cannot be reached ({error.strerror})") from error
    if not stat.S_ISREG(state.st_mode):
        raise UnusableError(Reason.UNREADABLE, "not a regular file (a folder, pipe or device)")
    if not os.access(path, os.R_OK):
        raise UnusableError(Reason.UNREADABLE, "no permission to read it")
    if state.st_size == 0:
        raise UnusableError(Reason.EMPTY_FILE, "0 bytes long")


def read_header(path: Path, *, max_pixels: int) -> Header:
    """Open the container with PyAV, decode nothing.

    Raises `UnusableError`: not_media, no_video_stream (cover art does not count), no_frames, too_large.
    """
    av.logging.set_level(None)
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
            if not streams:
                kinds = ", ".join(sorted({s.type for s in container.streams}))
                raise UnusableError(Reason.NO_VIDEO_STREAM, f"holds {kinds or 'nothing'}, no video stream")
            stream = streams[0]
            if stream.codec_context is None:
                raise UnusableError(Reason.NOT_MEDIA, "its video codec is unknown")
            header = Header(
                codec=stream.codec_context.name,
                width=stream.width,
                height=stream.height,
                other_codecs=frozenset(
                    s.codec_context.name for s in container.streams if s.type != "video" and s.codec_context is not None
                ),
            )
    except av.error.EOFError as error:
        raise UnusableError(Reason.NO_FRAMES, "it ends before its first frame") from error
    except av.error.FFmpegError as error:
        raise UnusableError(Reason.NOT_MEDIA, f"cannot be opened as a video ({error.strerror})") from error
    if header.width <= 0 or header.height <= 0:
        raise UnusableError(Reason.NO_FRAMES, "its video stream declares no picture size")
    if header.width * header.height > max_pixels:
        raise UnusableError(
            Reason.TOO_LARGE,
            f"{header.width} x {header.height} pixels a frame, the limit is {max_pixels} in all (--max-pixels)",
        )
    return header


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
