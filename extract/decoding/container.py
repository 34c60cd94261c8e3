"""Checks a video's container and header, before any frame is decoded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import av.error
import av.logging

from haechi.extract.decoding import formats
from haechi.extract.decoding.reasons import Reason, UnusableError

# NAL units at which decoding can begin: H.264's IDR slice (ISO/IEC 14496-10, table 7-1), HEVC's IDR_W_RADL and IDR_N_LP
# (ISO/IEC 23008-2, table 7-1).
IDR_UNITS = {"h264": {5}, "hevc": {19, 20}}

# FFmpeg's names of the containers that are accepted. It recognises about 350 more by their content, whatever the file
# is called; among them are playlists (hls, concat, dash), which make it open other files and network addresses.
CONTAINERS = (
    *("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "flv", "mpeg", "mpegts", "ogg", "asf", "mxf", "rm", "dv"),
    *("ivf", "nut", "mpegvideo", "m4v", "h264", "hevc"),
)


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a container says about its video stream."""

    codec: str
    width: int
    height: int
    other_codecs: frozenset[str]
    """Names of the audio and subtitle decoders: errors that they log do not concern the pictures."""
    container: str
    """FFmpeg's name of the container; several names, such as for MP4 and QuickTime, are separated by commas."""
    num_packets: int
    """Packets of the video stream: normally one for each frame."""
    duration_seconds: float
    """The length that the container claims, which may be wrong; 0 if it claims none."""
    has_closed_gops: bool
    """H.264 or HEVC in MP4 where decoding can start at each key frame, and no later packet is shown before it."""


def open_container(path: Path, **options: str) -> Any:
    """PyAV's container of a file; no other file is opened. `options` are FFmpeg's. Raises `av.error.FFmpegError`."""
    options |= {"format_whitelist": ",".join(CONTAINERS), "protocol_whitelist": "file"}
    options["correct_ts_overflow"] = (
        "0"  # FFmpeg would take a clock that restarts for one that overflowed, and add 26 hours
    )
    return av.open(str(path), metadata_errors="replace", container_options=options)


def read_header(path: Path, *, max_pixels: int, max_frames: int) -> Header:
    """Open the container with PyAV and read all packets, without decoding.

    Raises `UnusableError`: not_media, no_video_stream (cover art does not count), no_frames, too_large, damaged (an
    MP4 in which some of the frames that its index lists are missing).
    """
    av.logging.set_level(None)
    try:
        with open_container(path) as container:
            stream = video_stream(container)
            if stream.codec_context is None:
                raise UnusableError(Reason.NOT_MEDIA, "its video codec is unknown")
            _check_size(stream.width, stream.height, max_pixels=max_pixels)
            _check_length(stream.frames, max_frames=max_frames)
            codec = stream.codec_context.name
            num_packets, has_closed_gops = _walk_packets(container, stream, max_frames=max_frames)
            if num_packets < stream.frames and "mp4" in container.format.name.split(","):
                _check_samples(path, stream.frames)
            return Header(
                codec=codec,
                width=stream.width,
                height=stream.height,
                container=container.format.name,
                num_packets=num_packets,
                duration_seconds=_duration_seconds(container, stream),
                has_closed_gops=has_closed_gops,
                other_codecs=frozenset(
                    s.codec_context.name for s in container.streams if s.type != "video" and s.codec_context is not None
                ),
            )
    except av.error.EOFError as error:
        raise UnusableError(Reason.NO_FRAMES, "it ends before its first frame") from error
    except av.error.MemoryError:
        raise  # the worker's limit
    except av.error.FFmpegError as error:
        raise UnusableError(Reason.NOT_MEDIA, formats.unopened(path, str(error.strerror))) from error


def video_stream(container: Any) -> Any:
    """The video stream of an open container, which is not cover art. Raises `UnusableError` if there is none."""
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams:
        kinds = ", ".join(sorted({s.type for s in container.streams}))
        raise UnusableError(Reason.NO_VIDEO_STREAM, f"holds {kinds or 'nothing'}, no video stream")
    return streams[0]


def _check_size(width: int, height: int, *, max_pixels: int) -> None:
    if width <= 0 or height <= 0:
        raise UnusableError(Reason.NO_FRAMES, "its video stream declares no picture size")
    if width * height > max_pixels:
        raise UnusableError(
            Reason.TOO_LARGE, f"frames of {width} x {height} pixels, the limit is {max_pixels} pixels (--max-pixels)"
        )


def _check_length(num_frames: int, *, max_frames: int) -> None:
    if num_frames > max_frames:
        raise UnusableError(Reason.TOO_LARGE, f"{num_frames} frames or more, the limit is {max_frames} (--max-frames)")


def _check_samples(path: Path, num_declared: int) -> None:
    """Raise `UnusableError` if an MP4 holds fewer samples than its index lists: it was cut off.

    Samples are counted without the edit list, which may hide some of them.
    """
    with open_container(path, ignore_editlist="1") as container:
        stream = video_stream(container)
        num_found = sum(packet.size > 0 or packet.pts is not None for packet in container.demux(stream))
    if num_found < num_declared:
        raise UnusableError(
            Reason.DAMAGED, f"its index lists {num_declared} frames, only {num_found} are in the file: cut off"
        )


def _duration_seconds(container: Any, stream: Any) -> float:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return float((container.duration or 0) / av.time_base)


def _walk_packets(container: Any, stream: Any, *, max_frames: int) -> tuple[int, bool]:
    """Number of packets of the stream, and whether its groups of pictures are closed (`Header.has_closed_gops`)."""
    codec = stream.codec_context.name
    num_packets, closed = 0, codec in IDR_UNITS and "mp4" in container.format.name.split(",")
    key_pts = None
    seen: set[int] = set()
    for packet in container.demux(stream):
        if not packet.size:
            continue
        num_packets += 1
        _check_length(num_packets, max_frames=max_frames)
        if packet.pts is None or packet.pts in seen:
            closed = False
            continue
        seen.add(packet.pts)
        if packet.is_keyframe:
            key_pts = packet.pts
            closed = closed and bool(IDR_UNITS[codec] & _nal_units(codec, bytes(packet)))
        closed = closed and key_pts is not None and packet.pts >= key_pts
    return num_packets, closed


def _nal_units(codec: str, packet: bytes) -> set[int]:
    """The types of a packet's NAL units. In MP4 the length of each unit, four bytes, comes before it."""
    types: set[int] = set()
    start = 0
    while start + 4 < len(packet):
        first = packet[start + 4]
        types.add(first & 0x1F if codec == "h264" else (first >> 1) & 0x3F)
        start += 4 + int.from_bytes(packet[start : start + 4], "big")
    return types
