"""Checks a video's container and header, before any frame is decoded."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import av
import av.error
import av.logging
import av.sidedata.sidedata
import numpy as np

from haechi.extract.decoding import formats
from haechi.extract.decoding.orientation import Orientation, is_exact
from haechi.extract.decoding.reasons import Reason, UnusableError

# NAL units at which decoding can begin: H.264's IDR slice (ISO/IEC 14496-10, table 7-1), HEVC's IDR_W_RADL and IDR_N_LP
# (ISO/IEC 23008-2, table 7-1).
IDR_UNITS = {"h264": {5}, "hevc": {19, 20}}

# SEI units of H.264 and of HEVC (prefix), and the message "display orientation" in them (H.264 annex D, HEVC annex D).
SEI_UNIT = {"h264": 6, "hevc": 39}
SEI_ORIENTATION = 47
STOP_BIT = 0x80  # ends a unit

MATRIX = av.sidedata.sidedata.Type.DISPLAYMATRIX

DEFAULT_STREAM_PIXELS = 5_000_000  # FFmpeg's bonus for the default stream

# A more extreme shape of a pixel is taken for an error in the header. Our choice: real formats go from about 0.5 to 2.
MAX_PIXEL_ASPECT = 10.0

# Transfer functions of HDR: SMPTE ST 2084 (PQ) and ARIB STD-B67 (HLG), numbered as in ITU-T H.273.
HDR_TRANSFERS = {16, 18}

# FFmpeg's names of the containers that are accepted. It recognises about 350 more by their content, whatever the file
# is called; among them are playlists (hls, concat, dash), which make it open other files and network addresses.
CONTAINERS = (
    *("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "flv", "mpeg", "mpegts", "ogg", "asf", "mxf", "rm", "dv"),
    *("ivf", "nut", "mpegvideo", "m4v", "h264", "hevc"),
)


# Files of these are cut and joined byte by byte: they may begin within a group of pictures, and their clock may jump.
CUT_ANYWHERE = {"mpegts", "mpeg"}


class Trait(StrEnum):
    """What a user may want to know about a video that is used: each is counted in the summary of a run."""

    SEVERAL_STREAMS = "several_streams"
    STARTS_MID_GOP = "starts_mid_gop"
    PIXEL_ASPECT = "pixel_aspect"
    ALPHA = "alpha"
    HDR = "hdr"


TRAITS = {
    Trait.SEVERAL_STREAMS: "several video streams; FFmpeg's choice is used",
    Trait.STARTS_MID_GOP: "begins within a group of pictures; used from the first key frame on",
    Trait.PIXEL_ASPECT: "pixels that are not square; stretched (in a cache of an older version: not)",
    Trait.ALPHA: "transparency, which is ignored",
    Trait.HDR: "HDR colours (PQ or HLG); no tone mapping",
}
assert TRAITS.keys() == set(Trait)


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a container says about its video stream, and how its frames are to be shown."""

    codec: str
    width: int
    """As stored, before frames are turned and stretched."""
    height: int
    stream_index: int
    """Index of the chosen stream among all streams of the container."""
    num_streams: int
    """Video streams of the container; cover art does not count."""
    other_codecs: frozenset[str]
    """Names of the audio and subtitle decoders: errors that they log do not concern the pictures."""
    container: str
    """FFmpeg's name of the container; several names, such as for MP4 and QuickTime, are separated by commas."""
    num_packets: int
    """Packets of the video stream."""
    num_skipped: int
    """Packets before the first key frame, from which no frame can be decoded: the recording begins within a group of
    pictures."""
    num_shown: int
    """Packets from the first key frame on that no edit list hides: normally one for each frame that is shown."""
    num_hidden: int
    """Packets that are decoded and not shown, since an edit list hides them."""
    last_frame_seconds: float
    """How long the last frame is shown, according to the container; 0 if it does not say."""
    duration_seconds: float
    """The length that the container claims, which may be wrong; 0 if it claims none."""
    has_closed_gops: bool
    """H.264 or HEVC in MP4 where decoding can start at each key frame, and no later packet is shown before it."""
    orientation: Orientation
    """How each frame is turned and mirrored, from the display matrix of the first frame."""
    is_turned_by_container: bool
    """The orientation is exact, and the container alone gives it: no frame carries one."""
    pixel_aspect: float
    """Width of a pixel / its height, after frames are turned; 1: square."""
    traits: frozenset[Trait]


def open_container(path: Path, **options: str) -> Any:
    """PyAV's container of a file; no other file is opened. `options` are FFmpeg's. Raises `av.error.FFmpegError`."""
    options |= {"format_whitelist": ",".join(CONTAINERS), "protocol_whitelist": "file"}
    options["correct_ts_overflow"] = (
        "0"  # FFmpeg would take a clock that restarts for one that overflowed, and add 26 hours
    )
    return av.open(str(path), metadata_errors="replace", container_options=options)


def read_header(path: Path, *, max_pixels: int, max_frames: int) -> Header:
    """Open the container with PyAV, read all packets, and decode the first frame.

    Raises `UnusableError`: not_media, no_video_stream (cover art does not count), no_frames, too_large, damaged (an
    MP4 in which some of the frames that its index lists are missing).
    """
    av.logging.set_level(None)
    try:
        with open_container(path) as container:
            stream = _chosen_stream(path, container)
            if stream.codec_context is None:
                raise UnusableError(Reason.NOT_MEDIA, "its video codec is unknown")
            _check_size(stream.width, stream.height, max_pixels=max_pixels)
            _check_length(stream.frames, max_frames=max_frames)
            walk = _Walk(container, stream)
            for num_packets in walk.run():
                _check_length(num_packets, max_frames=max_frames)
            if walk.num_packets < stream.frames and "mp4" in container.format.name.split(","):
                _check_samples(path, stream.index, stream.frames)
            matrix = walk.matrix
            orientation = Orientation.of_matrix(matrix) if matrix else Orientation()
            aspect = _pixel_aspect(stream)
            return Header(
                codec=stream.codec_context.name,
                width=stream.width,
                height=stream.height,
                stream_index=stream.index,
                num_streams=len(_video_streams(container)),
                container=container.format.name,
                num_packets=walk.num_packets,
                num_skipped=walk.num_skipped,
                num_shown=walk.num_shown,
                num_hidden=walk.num_hidden,
                last_frame_seconds=float(walk.last_ticks * stream.time_base),
                duration_seconds=_duration_seconds(container, stream),
                has_closed_gops=walk.has_closed_gops,
                orientation=orientation,
                is_turned_by_container=not walk.frames_carry_orientation and (not matrix or is_exact(matrix)),
                pixel_aspect=1 / aspect if orientation.is_transposed else aspect,
                traits=_traits(container, stream, aspect, starts_mid_gop=walk.num_skipped > 0),
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


def _video_streams(container: Any) -> list[Any]:
    """The video streams of an open container that are not cover art."""
    return [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]


def _chosen_stream(path: Path, container: Any) -> Any:
    """The video stream that FFmpeg's command line chooses. Raises `UnusableError` if there is none.

    Its rule (map_auto_video in ffmpeg_mux_init.c): a stream that holds packets before one that does not, then the
    largest picture, where the default stream counts as 5,000,000 pixels larger, then the first.
    """
    streams = _video_streams(container)
    if not streams:
        kinds = {s.type for s in container.streams if s.type != "video"}
        cover = " and a cover picture" if container.streams.video else ""
        raise UnusableError(
            Reason.NO_VIDEO_STREAM, f"holds {', '.join(sorted(kinds)) or 'nothing'}{cover}, no video stream"
        )
    if len(streams) == 1:
        return streams[0]
    filled = _streams_with_packets(path, {s.index for s in streams})

    def rank(stream: Any) -> tuple[bool, int]:
        is_default = bool(stream.disposition & av.stream.Disposition.default)
        return stream.index in filled, stream.width * stream.height + DEFAULT_STREAM_PIXELS * is_default

    return max(streams, key=rank)


def _streams_with_packets(path: Path, indices: set[int]) -> set[int]:
    """Which of these streams hold a packet; reads on until all do."""
    found: set[int] = set()
    with open_container(path) as container:
        for packet in container.demux([s for s in container.streams if s.index in indices]):
            if packet.size:
                found.add(packet.stream_index)
            if found == indices:
                break
    return found


def _pixel_aspect(stream: Any) -> float:
    """Width / height of a stored pixel. Values that no camera or disc uses are taken for errors, as is none: square."""
    aspect = float(stream.sample_aspect_ratio or 1)
    return aspect if 1 / MAX_PIXEL_ASPECT <= aspect <= MAX_PIXEL_ASPECT else 1.0


def _traits(container: Any, stream: Any, aspect: float, *, starts_mid_gop: bool) -> frozenset[Trait]:
    codec = stream.codec_context
    has_alpha = codec.format is not None and any(component.is_alpha for component in codec.format.components)
    found = {
        Trait.SEVERAL_STREAMS: len(_video_streams(container)) > 1,
        Trait.STARTS_MID_GOP: starts_mid_gop,
        Trait.PIXEL_ASPECT: aspect != 1,
        Trait.ALPHA: has_alpha or stream.metadata.get("alpha_mode") == "1",  # WebM's VP8 and VP9 hide it from FFmpeg
        Trait.HDR: codec.color_trc in HDR_TRANSFERS,
    }
    return frozenset(trait for trait, is_true in found.items() if is_true)


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


def _check_samples(path: Path, stream_index: int, num_declared: int) -> None:
    """Raise `UnusableError` if an MP4 holds fewer samples than its index lists: it was cut off.

    Samples are counted without the edit list, which may hide some of them.
    """
    with open_container(path, ignore_editlist="1") as container:
        stream = container.streams[stream_index]
        num_found = sum(packet.size > 0 or packet.pts is not None for packet in container.demux(stream))
    if num_found < num_declared:
        raise UnusableError(
            Reason.DAMAGED, f"its index lists {num_declared} frames, only {num_found} are in the file: cut off"
        )


def _duration_seconds(container: Any, stream: Any) -> float:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return float((container.duration or 0) / av.time_base)


class _Walk:
    """Reads all packets of a stream once, and decodes them up to the first frame."""

    def __init__(self, container: Any, stream: Any) -> None:
        self._container, self._stream = container, stream
        self._codec = stream.codec_context.name
        self.num_packets = self.num_skipped = self.num_hidden = self.num_shown = 0
        self.last_ticks = 0
        """Duration of the last packet that is shown, in the stream's time base; 0 if it is not known."""
        self._last_pts = -math.inf
        self.has_closed_gops = self._codec in IDR_UNITS and "mp4" in container.format.name.split(",")
        # H.264's and HEVC's decoders know which frames are whole; others invent what is missing before a key frame.
        self._needs_key_frame = self._codec not in IDR_UNITS and container.format.name in CUT_ANYWHERE
        self.frames_carry_orientation = False
        """A key frame holds an SEI message about its orientation."""
        self.matrix: list[int] = []
        """The display matrix of the first frame, 9 integers; empty if it has none."""

    def run(self) -> Iterator[int]:
        """Read to the end; yield the number of packets so far after each one."""
        key_pts: int | None = None
        seen: set[int] = set()
        has_frame = has_key = False
        self._stream.codec_context.thread_count = 1
        for packet in self._container.demux(self._stream):
            if packet.size and packet.is_keyframe and not has_key:
                has_key = True
                if not has_frame:
                    self.num_skipped, self.num_shown = self.num_packets, 0
            has_frame = has_frame or self._take_first_frame(packet)
            if not packet.size:
                continue
            self.num_packets += 1
            self.num_hidden += packet.is_discard
            self.num_shown += not packet.is_discard
            yield self.num_packets
            if packet.pts is None or packet.pts in seen:
                self.has_closed_gops = False
                continue
            seen.add(packet.pts)
            if packet.pts > self._last_pts and not packet.is_discard:
                self._last_pts, self.last_ticks = packet.pts, packet.duration or 0
            if packet.is_keyframe:
                key_pts = packet.pts
                if self.has_closed_gops:
                    self._check_key_frame(bytes(packet))
            self.has_closed_gops = self.has_closed_gops and key_pts is not None and packet.pts >= key_pts

    def _take_first_frame(self, packet: Any) -> bool:
        """Decode a packet; whether that gave the first frame, whose matrix is kept. Damage is left to the decoders."""
        try:
            frames = packet.decode()
        except av.error.MemoryError:
            raise  # the worker's limit
        except av.error.FFmpegError:
            return False
        for frame in frames:
            if self._needs_key_frame and not frame.key_frame:
                continue
            if (data := frame.side_data.get(MATRIX)) is not None:
                self.matrix = np.frombuffer(data, np.int32).tolist()
            return True
        return False

    def _check_key_frame(self, packet: bytes) -> None:
        """See whether decoding can start at this key frame of an MP4, and whether it says how it is turned."""
        units = list(_nal_units(self._codec, packet))
        self.has_closed_gops = any(kind in IDR_UNITS[self._codec] for kind, _ in units)
        self.frames_carry_orientation = self.frames_carry_orientation or any(
            kind == SEI_UNIT[self._codec] and SEI_ORIENTATION in _sei_types(self._codec, unit) for kind, unit in units
        )


def _nal_units(codec: str, packet: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, bytes) of a packet's NAL units. In MP4 the length of each unit, four bytes, comes before it."""
    start = 0
    while start + 4 < len(packet):
        first = packet[start + 4]
        end = start + 4 + int.from_bytes(packet[start : start + 4], "big")
        yield first & 0x1F if codec == "h264" else (first >> 1) & 0x3F, packet[start + 4 : end]
        start = end


def _sei_types(codec: str, unit: bytes) -> Iterator[int]:
    """The types of the messages in an SEI unit. Type and size are each the sum of bytes up to the first below 255."""
    data = iter(unit[1 if codec == "h264" else 2 :].replace(b"\0\0\3", b"\0\0"))  # without emulation prevention

    def number() -> int:
        total = 0
        for byte in data:
            total += byte
            if byte < 255:
                break
        return total

    while (kind := next(data, STOP_BIT)) != STOP_BIT:
        yield kind + (number() if kind == 255 else 0)
        for _ in range(number()):
            next(data, None)
