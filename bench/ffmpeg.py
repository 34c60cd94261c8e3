"""The frames that the ffmpeg command line shows of a video: the reference for our decoders.

ffmpeg chooses the stream, hides what an edit list hides, and turns frames by the display matrix. Four things are done
differently here, each because ffmpeg's own way is not what a viewer should get:

- Cover art is no video: a file with nothing else shows no frames.
- In MPEG-TS and MPEG-PS, frames begin with the first key frame. A recording may begin in the middle of a group of
  pictures; FFmpeg 5.1 shows nothing or broken pictures before its first key frame, other versions differ. Frames that
  are shown before the first key frame are left out, and so are complaints until then.
- A display matrix that is more than 1 degree from a quarter turn is taken as the nearest of the eight orientations;
  ffmpeg turns by the angle and fills the corners with black.
- AV1 is decoded by libaom: through libdav1d, FFmpeg 5.1 shows the frames that an edit list hides.
"""

import itertools
import math
import re
import shutil
import subprocess
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue

import numpy as np

PROGRAM = "ffmpeg"

CUT_ANYWHERE = {"mpegts", "mpeg"}  # FFmpeg's names of the containers that are cut and joined byte by byte

AV1_DECODER = "libaom-av1"

QUARTER_TURN, NEAR_DEGREES = 90, 1.0  # from configure_input_video_filter in FFmpeg's ffmpeg_filter.c

INPUT = re.compile(r"Input #0, (?P<container>.+), from '")
STREAM = re.compile(r"^\[info\] +Stream #0:(?P<index>\d+)\S*: (?P<text>.*)")
TURN = re.compile(r"displaymatrix: rotation of (?P<degrees>\S+) degrees")
CHOICE = re.compile(r"Stream #0:(?P<index>\d+) -> #0:0")
CONFIG = re.compile(r"config in time_base: (?P<over>\d+)/(?P<under>\d+)")
FRAME = re.compile(
    r"\[Parsed_showinfo_0 @ \w+\] \[info\] n: *\d+ pts: *(?P<pts>\S+) .*? fmt:(?P<format>\S+) "
    r"sar:(?P<sar_over>\d+)/(?P<sar_under>\d+) s:(?P<width>\d+)x(?P<height>\d+) i:(?P<lines>.) iskey:(?P<key>\d)"
)
DEEP = re.compile(r"\d\d(le|be)$")  # the end of FFmpeg's names of pixel formats of more than 8 bits
ERROR = re.compile(r"\[(?:error|fatal|panic)\] (?P<text>.*)")


def is_installed() -> bool:
    """Whether the ffmpeg command line is there."""
    return shutil.which(PROGRAM) is not None


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A frame that ffmpeg shows."""

    start_seconds: float | None
    """When it is shown, after the start of the container; None if ffmpeg does not know."""
    pixels: np.ndarray
    """(H, W, 3) uint8 RGB, upright, as stored: not stretched if pixels are not square."""
    pixel_aspect: float
    """Width of a pixel / its height, after the frame was turned."""
    is_plain: bool
    """8 bits and progressive. FFmpeg's versions interpolate the colours of other pictures in different ways."""


@dataclass(frozen=True, kw_only=True)
class _Line:
    """What showinfo logs of a frame."""

    start_seconds: float | None
    width: int
    height: int
    pixel_aspect: float
    is_plain: bool
    is_key: bool


class Playback:
    """One pass of ffmpeg over the video of a file. `errors` is complete after the last frame was taken."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.errors: list[str] = []
        """What ffmpeg logged as errors: in MPEG-TS and MPEG-PS from the first key frame on."""
        self._container, self._choice = "", -1
        self._cover_streams: set[int] = set()
        self._av1_streams: set[int] = set()
        self._degrees: dict[int, float] = {}

    def frames(self) -> Iterator[Shown]:
        """The frames in the order in which they are shown. Few are in memory at a time."""
        frames = self._played()
        first = next(frames, None)
        if first is None or self._choice in self._cover_streams:
            frames.close()
            return
        options = [f"-c:{self._choice}", AV1_DECODER] if self._choice in self._av1_streams else []
        degrees = self._degrees.get(self._choice, 0.0) % QUARTER_TURN
        is_tilted = not math.isnan(degrees) and min(degrees, QUARTER_TURN - degrees) >= NEAR_DEGREES
        if is_tilted:
            options.append("-noautorotate")
        if not options:
            yield from itertools.chain([first], frames)
            return
        frames.close()
        self.errors.clear()
        matrix = _display_matrix(self._path, self._choice) if is_tilted else []
        for shown in self._played(*options):
            yield _turned(shown, matrix) if is_tilted else shown

    def _played(self, *options: str) -> Generator[Shown]:
        command = [PROGRAM, "-nostdin", "-hide_banner", "-nostats", "-v", "level+info", "-threads", "1", *options]
        command += ["-i", f"file:{self._path}", "-fps_mode", "passthrough", "-vf", "showinfo,format=rgb24"]
        with subprocess.Popen(  # noqa: S603 (a fixed program)
            [*command, "-f", "rawvideo", "pipe:1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            lines: SimpleQueue[_Line | None] = SimpleQueue()
            reader = threading.Thread(target=self._read_log, args=(process, lines), daemon=True)
            reader.start()
            try:
                has_key = False
                while (line := lines.get()) is not None:
                    data = process.stdout.read(line.width * line.height * 3)
                    if len(data) < line.width * line.height * 3:
                        break
                    has_key = has_key or line.is_key or self._container not in CUT_ANYWHERE
                    if has_key:
                        pixels = np.frombuffer(data, np.uint8).reshape(line.height, line.width, 3)
                        yield Shown(
                            start_seconds=line.start_seconds,
                            pixels=pixels,
                            pixel_aspect=line.pixel_aspect,
                            is_plain=line.is_plain,
                        )
            finally:
                process.kill()
                reader.join()

    def _read_log(self, process: "subprocess.Popen[bytes]", lines: "SimpleQueue[_Line | None]") -> None:
        """Take what ffmpeg says of the file, and put a line into the queue for each frame, None at the end."""
        assert process.stderr is not None
        seconds_per_tick, has_key, stream = 0.0, False, -1
        for raw in process.stderr:
            text = raw.decode(errors="replace")
            if found := FRAME.search(text):
                pts = None if found["pts"] == "NOPTS" else int(found["pts"]) * seconds_per_tick
                if found["key"] == "1" and not has_key and self._container in CUT_ANYWHERE:
                    self.errors.clear()
                has_key = has_key or found["key"] == "1"
                lines.put(
                    _Line(
                        start_seconds=pts,
                        width=int(found["width"]),
                        height=int(found["height"]),
                        pixel_aspect=int(found["sar_over"]) / (int(found["sar_under"]) or 1) or 1.0,
                        is_plain=found["lines"] == "P" and not DEEP.search(found["format"]),
                        is_key=found["key"] == "1",
                    )
                )
            elif found := CONFIG.search(text):
                seconds_per_tick = int(found["over"]) / int(found["under"])
            elif found := CHOICE.search(text):
                self._choice = int(found["index"])
            elif (found := STREAM.search(text)) and self._choice < 0:
                stream = int(found["index"])
                if "(attached pic)" in found["text"]:
                    self._cover_streams.add(stream)
                if found["text"].startswith("Video: av1"):
                    self._av1_streams.add(stream)
            elif (found := TURN.search(text)) and self._choice < 0:
                self._degrees[stream] = float(found["degrees"])
            elif found := INPUT.search(text):
                self._container = found["container"]
            elif found := ERROR.search(text):
                self.errors.append(found["text"].strip())
        lines.put(None)


def _display_matrix(path: Path, stream: int) -> list[int]:
    """The nine integers of a stream's display matrix."""
    command = ["ffprobe", "-v", "error", "-select_streams", str(stream), "-of", "default=nokey=1:noprint_wrappers=1"]
    command += ["-show_entries", "stream_side_data=displaymatrix", f"file:{path}"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603 (a fixed program)
    return [int(number) for row in re.findall(r"^\d{8}:(.*)$", text, re.MULTILINE) for number in row.split()]


def _turned(shown: Shown, matrix: list[int]) -> Shown:
    """The frame in the orientation, of the eight, that is nearest to a display matrix.

    The matrix shows the pixel (x, y) at (a x + c y, b x + d y), where a, b, c, d are its elements 0, 1, 3 and 4.
    """
    a, b, c, d = (matrix[i] for i in (0, 1, 3, 4))
    pixels, aspect = shown.pixels, shown.pixel_aspect
    if abs(b) + abs(c) > abs(a) + abs(d):
        pixels, aspect, a, d = pixels.swapaxes(0, 1), 1 / aspect, c, b
    if a < 0:
        pixels = pixels[:, ::-1]
    if d < 0:
        pixels = pixels[::-1]
    return replace(shown, pixels=pixels, pixel_aspect=aspect)
