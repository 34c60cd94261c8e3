"""Compares every sampled frame with that of the ffmpeg command line: `python -m bench.frames FILE…`.

Both samplings are compared, and each decoder that serves a file: decord where it is exact, PyAV always. A frame that
`uniform` gives must be the one that ffmpeg counts under the same index; a frame that `windows` gives must be the one
that ffmpeg shows at that time. Where it is not, the table says which of ffmpeg's frames is the nearest.
"""

import dataclasses
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.ffmpeg import Playback, Shown, is_installed
from haechi.cache.text import counted, visible
from haechi.extract.decoding import container, decode, files, image, pyav_reader
from haechi.extract.decoding.frame_times import FrameTimes
from haechi.extract.decoding.limits import Limits
from haechi.extract.decoding.reasons import UnusableError
from haechi.extract.decoding.shared_frames import Output
from haechi.extract.decoding.transforms import FrameTransform
from haechi.extract.decoding.windows import TOLERANCE_SECONDS
from haechi.extract.sampling import UNIFORM, WINDOWS, Windows, uniform
from haechi.extract.settings import ExtractSettings

if decode.HAS_DECORD:
    from haechi.extract.decoding import decord_reader

DECORD, PYAV = "decord", "PyAV"

# Largest allowed mean difference of a colour, of 255 levels: pictures are equal, except those of more than 8 bits and
# interlaced ones, whose colours FFmpeg's versions interpolate in different ways (measured: up to 6.4 in noise).
BOUND_LEVELS, BOUND_LEVELS_INTERPOLATED = 0.5, 10.0

# Another frame of ffmpeg's that is nearer by more than this, in levels, is the one that was taken.
NEARER_LEVELS = 0.1
GRID = 32  # the nearest frame is sought among pictures of at most this many rows and columns

# Largest allowed difference of a frame's time: containers round to milliseconds.
BOUND_SECONDS = TOLERANCE_SECONDS
DOUBT_SECONDS = 0.001  # a moment this close to the change of two frames may show either

# Longest allowed last frame, in lengths of the longest frame before it: after a cut, the container may give it more.
MAX_LAST = 3

NUM_WINDOWS, WINDOW_FRAMES = 4, 8  # of `windows` sampling; its stride is the window's length


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """A frame that a decoder gave."""

    index: int | None
    """Its number among all frames; None if it was asked for by time."""
    seconds: float
    """When it is shown, or asked for, after the first frame."""
    pixels: np.ndarray
    """(H, W, 3) uint8 RGB."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What one decoder gave for one sampling."""

    decoder: str
    sampling: str
    sampled: list[Sampled] = field(default_factory=list)
    start_seconds: np.ndarray | None = None
    """(n,): when each frame of the video is shown, after the first; None for `windows`."""
    num_frames: int = 0
    width: int = 0
    height: int = 0
    duration_seconds: float = 0.0
    refusal: str = ""
    """Reason and message if the file was refused."""


@dataclass(kw_only=True)
class Row:
    """A sampled frame, compared with ffmpeg's frame of the same index or time."""

    seconds: float
    index: int | None = None
    """Number of ffmpeg's frame; None if ffmpeg has no such frame."""
    ffmpeg_seconds: float | None = None
    mean_levels: list[float] = field(default_factory=list)
    """Mean absolute difference of red, green and blue, of 255; empty if the sizes differ."""
    max_levels: list[int] = field(default_factory=list)
    bound_levels: float = BOUND_LEVELS
    """Largest mean difference that is allowed."""
    nearest: int | None = None
    """Number of ffmpeg's nearest frame in pixels."""
    fault: str = ""
    """Empty if the frame is equal within the bounds."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A reading, compared."""

    decoder: str
    sampling: str
    num_frames: int
    duration_seconds: float
    refusal: str
    rows: list[Row]
    faults: list[str]
    """What differs beside the pictures: number, size and times of frames."""

    @property
    def num_different(self) -> int:
        return sum(bool(row.fault) for row in self.rows)

    @property
    def worst_levels(self) -> float:
        """The largest mean difference of a colour of any frame."""
        return max((level for row in self.rows for level in row.mean_levels), default=0.0)


@dataclass(frozen=True, kw_only=True)
class Report:
    """A file, compared."""

    path: str
    num_frames: int
    """Frames that ffmpeg shows."""
    width: int
    height: int
    seconds: float
    """From the start of ffmpeg's first frame to that of its last."""
    num_errors: int
    """Errors that ffmpeg logged."""
    comparisons: list[Comparison]
    note: str = ""
    """Why the file was not compared; empty if it was."""

    @property
    def faults(self) -> list[str]:
        """One line for each thing that differs."""
        found = []
        for comparison in self.comparisons:
            who = f"{comparison.decoder}, {comparison.sampling}"
            found += [f"{who}: {fault}" for fault in comparison.faults]
            different = [row for row in comparison.rows if row.fault]
            if different:
                found.append(
                    f"{who}: {len(different)} of {counted(len(comparison.rows), 'frame')} differ: {different[0].fault}"
                )
        return found

    @property
    def verdict(self) -> str:
        """`equal`, or what differs, as short text."""
        if self.note:
            return self.note
        if not self.faults:
            refusals = {c.refusal for c in self.comparisons if c.refusal}
            return f"refused ({refusals.pop()}); ffmpeg shows no frame or logs errors" if refusals else "equal"
        num_different = sum(comparison.num_different for comparison in self.comparisons)
        other = [fault for comparison in self.comparisons for fault in comparison.faults]
        parts = [f"frames that differ: {num_different}"] if num_different else []
        return "; ".join([*parts, *dict.fromkeys(other)])


def compare(path: Path, *, num_frames: int = 32) -> Report:
    """Decode a video in all ways and compare the sampled frames with ffmpeg's. Stills are not compared."""
    facts: dict[str, Any] = {"num_frames": 0, "width": 0, "height": 0, "seconds": 0.0, "num_errors": 0}
    if _is_still(path):
        note = "a still image: not compared, ffmpeg neither turns it nor puts it on white"
        return Report(path=str(path), comparisons=[], note=note, **facts)
    readings = read(path, num_frames)
    playback = Playback(path)
    judges = [_Judge(reading) for reading in readings]
    starts: list[float] = []
    first: Shown | None = None
    thumbs: list[np.ndarray] = []
    for index, (shown, start, end) in enumerate(_timed(playback.frames())):
        first = first or shown
        starts.append(start)
        thumbs.append(_thumb(shown.pixels))
        for judge in judges:
            judge.take(index, shown, start, end)
    times, small = np.array(starts), np.array(thumbs)
    if first is not None:
        height, width = first.pixels.shape[:2]
        facts = {"num_frames": len(times), "width": width, "height": height, "seconds": float(times[-1])}
        facts |= {"num_errors": len(playback.errors)}
    comparisons = [judge.comparison(first, times, small, playback.errors) for judge in judges]
    return Report(path=str(path), comparisons=comparisons, **facts)


def _is_still(path: Path) -> bool:
    try:
        files.check_file(path)
    except UnusableError:
        return False
    return image.is_image(path)


def read(path: Path, num_frames: int) -> list[Reading]:
    """The frames that each decoder gives for each sampling."""
    limits = Limits.of(ExtractSettings())
    try:
        files.check_file(path)
        header = container.read_header(path, max_pixels=limits.max_pixels, max_frames=limits.max_frames)
    except UnusableError as error:
        return [Reading(decoder=PYAV, sampling=UNIFORM, refusal=_refusal(error))]
    found = []
    if decode.HAS_DECORD and decord_reader.is_exact(header):
        # A file that decord refuses is PyAV's, as in `decode.sample`.
        decord = _uniform(DECORD, decord_reader.read, path, header, num_frames)
        found += [] if decord.refusal else [decord]
    found.append(_uniform(PYAV, pyav_reader.read, path, header, num_frames))
    if found[-1].duration_seconds:
        found.append(_windows(path, limits, num_frames, found[-1].duration_seconds))
    return found


def _uniform(
    decoder: str, read: Callable[..., FrameTimes], path: Path, header: container.Header, num_samples: int
) -> Reading:
    kept: dict[int, np.ndarray] = {}
    try:
        times = read(path, header, num_samples, kept.__setitem__)
        times.check()
    except UnusableError as error:
        return Reading(decoder=decoder, sampling=UNIFORM, refusal=_refusal(error))
    starts = times.start_seconds - times.start_seconds[0]
    indices = uniform(times.num_frames, num_samples)
    return Reading(
        decoder=decoder,
        sampling=UNIFORM,
        sampled=[
            Sampled(index=index, seconds=float(starts[index]), pixels=kept[position])
            for position, index in enumerate(indices)
        ],
        start_seconds=starts,
        num_frames=times.num_frames,
        width=times.width,
        height=times.height,
        duration_seconds=times.duration_seconds,
    )


@dataclass(frozen=True, kw_only=True)
class _Recorder(FrameTransform):
    """Keeps the frames of a backbone in their full size; what it gives is the frame's number, as one pixel."""

    size: int = 1
    interpolation: str = "bilinear"
    kept: list[np.ndarray] = field(default_factory=list)

    def __call__(self, frame: np.ndarray, pixel_aspect: float = 1.0) -> np.ndarray:
        self.kept.append(frame)
        return np.array([[list((len(self.kept) - 1).to_bytes(3, "big"))]], np.uint8)


class _Sink:
    """Takes the frames that `decode.sample` gives, for CLIP and for SlowFast."""

    waited_seconds = 0.0

    def __init__(self, *num_frames: int) -> None:
        self._recorders = [_Recorder() for _ in num_frames]
        self.outputs = [Output(transform=r, num_frames=n) for r, n in zip(self._recorders, num_frames, strict=True)]
        self._published: list[list[np.ndarray]] = [[] for _ in num_frames]

    def free_arrays(self) -> list[np.ndarray]:
        self._arrays = [np.zeros(output.shape, output.transform.dtype) for output in self.outputs]
        return self._arrays

    def publish(self, counts: Sequence[int]) -> None:
        for published, array, count in zip(self._published, self._arrays, counts, strict=True):
            published += list(array[:count])

    def pictures(self, output: int) -> list[np.ndarray]:
        """All frames of an output, in full size."""
        kept = self._recorders[output].kept
        return [kept[int.from_bytes(row.tobytes(), "big")] for row in self._published[output]]


def _windows(path: Path, limits: Limits, num_frames: int, duration_seconds: float) -> Reading:
    """About `num_frames` CLIP frames and `NUM_WINDOWS` whole windows over a video of this duration."""
    window_seconds = duration_seconds / NUM_WINDOWS
    sampling = Windows(
        window_seconds=window_seconds, stride_seconds=window_seconds, clip_fps=num_frames / duration_seconds
    )
    sink = _Sink(sampling.max_clip_frames, WINDOW_FRAMES)
    try:
        found = decode.sample(path, sampling=sampling, limits=limits, sink=sink)
    except UnusableError as error:
        return Reading(decoder=PYAV, sampling=WINDOWS, refusal=_refusal(error))
    points = np.arange(WINDOW_FRAMES) * (window_seconds / WINDOW_FRAMES)
    moments = [found.clip_seconds, *(start + points for start in found.window_start_seconds)]
    seconds = np.concatenate(moments) - found.clip_seconds[0]
    pictures = sink.pictures(0) + sink.pictures(1)
    return Reading(
        decoder=PYAV,
        sampling=WINDOWS,
        sampled=[
            Sampled(index=None, seconds=float(moment), pixels=picture)
            for moment, picture in zip(seconds, pictures, strict=True)
        ],
        num_frames=found.num_frames,
        width=found.width,
        height=found.height,
        duration_seconds=found.duration_seconds,
    )


def _refusal(error: UnusableError) -> str:
    return f"{error.reason.value}: {error.message}"


def _timed(frames: Iterable[Shown]) -> Iterator[tuple[Shown, float, float]]:
    """Each frame of ffmpeg's with its start and end, seconds after the first frame's start; the last has no end."""
    origin: float | None = None
    held: tuple[Shown, float] | None = None
    for shown in frames:
        seconds = shown.start_seconds
        if seconds is None:  # ffmpeg does not know: it cannot be compared
            seconds = float("nan")
        origin = seconds if origin is None else origin
        if held is not None:
            yield *held, seconds - origin
        held = shown, seconds - origin
    if held is not None:
        yield *held, float("inf")


def _thumb(pixels: np.ndarray) -> np.ndarray:
    """(GRID, GRID, 3) int16: pixels of a picture on a regular grid."""
    rows, columns = (np.linspace(0, side - 1, GRID).astype(int) for side in pixels.shape[:2])
    grid: np.ndarray = pixels[np.ix_(rows, columns)].astype(np.int16)
    return grid


class _Judge:
    """Compares the frames of a reading with ffmpeg's, which pass by once."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._rows = [Row(seconds=round(sampled.seconds, 6)) for sampled in reading.sampled]

    def take(self, index: int, shown: Shown, start: float, end: float) -> None:
        """Take ffmpeg's next frame, which is shown from `start` to `end`."""
        for sampled, row in zip(self._reading.sampled, self._rows, strict=True):
            if sampled.index is None:
                moment = sampled.seconds + TOLERANCE_SECONDS
                if not start - DOUBT_SECONDS <= moment < end + DOUBT_SECONDS:
                    continue
            elif sampled.index != index:
                continue
            found = _compared(sampled, shown, index, start)
            if row.index is None or sum(found.mean_levels) < sum(row.mean_levels):
                vars(row).update(vars(found))

    def comparison(self, first: Shown | None, times: np.ndarray, thumbs: np.ndarray, errors: list[str]) -> Comparison:
        """The result after ffmpeg's last frame. `times`: start of each of its frames; `thumbs`: (n, GRID, GRID, 3)."""
        reading = self._reading
        if first is not None:
            for sampled, row in zip(reading.sampled, self._rows, strict=True):
                _judge(row, sampled, thumbs)
        return Comparison(
            decoder=reading.decoder,
            sampling=reading.sampling,
            num_frames=reading.num_frames,
            duration_seconds=reading.duration_seconds,
            refusal=reading.refusal,
            rows=self._rows,
            faults=list(_faults(reading, first, times, errors)),
        )


def _compared(sampled: Sampled, shown: Shown, index: int, start: float) -> Row:
    row = Row(seconds=round(sampled.seconds, 6), index=index, ffmpeg_seconds=round(start, 6))
    if sampled.pixels.shape == shown.pixels.shape:
        levels = np.abs(sampled.pixels.astype(np.int16) - shown.pixels)
        row.mean_levels = levels.mean(axis=(0, 1)).round(4).tolist()
        row.max_levels = levels.max(axis=(0, 1)).tolist()
        row.bound_levels = BOUND_LEVELS if shown.is_plain else BOUND_LEVELS_INTERPOLATED
    else:
        row.fault = f"{_size(sampled.pixels)}, ffmpeg shows {_size(shown.pixels)}"
    return row


def _judge(row: Row, sampled: Sampled, thumbs: np.ndarray) -> None:
    """Find ffmpeg's nearest frame, and say what is wrong with a sampled one."""
    distances = np.abs(thumbs - _thumb(sampled.pixels)).mean(axis=(1, 2, 3))  # (n,)
    row.nearest = int(distances.argmin())
    if row.index is None:
        name = "time" if sampled.index is None else "index"
        row.fault = f"ffmpeg has no frame of that {name}"
        return
    if distances[row.index] <= distances[row.nearest] + NEARER_LEVELS:
        row.nearest = row.index
    if row.fault:
        return
    worst = max(row.mean_levels)
    if worst > row.bound_levels or row.nearest != row.index:
        row.fault = f"frame {row.index} differs by {worst:.1f} levels, the nearest is {row.nearest}"


def _faults(reading: Reading, first: Shown | None, times: np.ndarray, errors: list[str]) -> Iterator[str]:
    """What differs beside the pictures."""
    if reading.refusal:
        if first is not None and not errors:
            yield f"refused ({reading.refusal}), ffmpeg shows {counted(len(times), 'frame')} without an error"
        return
    if first is None:
        yield f"{counted(reading.num_frames, 'frame')}, ffmpeg shows none"
        return
    if reading.num_frames != len(times):
        yield f"{counted(reading.num_frames, 'frame')}, ffmpeg shows {len(times)}"
    width, height = _shown_size(first, reading.sampling)
    if (reading.width, reading.height) != (width, height):
        yield f"{reading.width} x {reading.height} pixels, ffmpeg shows {width} x {height}"
    if reading.start_seconds is not None and len(reading.start_seconds) == len(times):
        if (np.diff(reading.start_seconds) < 0).any():
            yield "times that run backwards"
        late = np.abs(reading.start_seconds - times)
        if late.max() > BOUND_SECONDS:
            worst = int(np.nanargmax(late))
            yield f"frame {worst} at {reading.start_seconds[worst]:.3f} s, in ffmpeg at {times[worst]:.3f} s"
    if len(times) > 1:
        last = reading.duration_seconds - float(times[-1])
        if not BOUND_SECONDS < last <= float(np.diff(times).max()) * MAX_LAST + BOUND_SECONDS:
            yield f"duration {reading.duration_seconds:.3f} s, ffmpeg's last frame begins at {times[-1]:.3f} s"


def _shown_size(first: Shown, sampling: str) -> tuple[int, int]:
    """(width, height) of the video: of its frames as stored and, with `windows`, of frames with square pixels.

    The readers give the first, `decode.sample` the second.
    """
    height, width = first.pixels.shape[:2]
    return (round(width * first.pixel_aspect) if sampling == WINDOWS else width), height


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]} x {pixels.shape[0]}"


def show(console: Console, report: Report, *, every_frame: bool) -> None:
    """Print the verdict of a file, a line for each reading and, with `every_frame`, a table of all sampled frames."""
    style = "yellow" if report.note else "red" if report.faults else "green"
    console.print(f"{escape(visible(report.path))}: [{style}]{escape(visible(report.verdict))}[/]", soft_wrap=True)
    if report.note:
        return
    size = f"{report.width} x {report.height}"
    console.print(
        f"  ffmpeg: {counted(report.num_frames, 'frame')}, {size}, the last one at {report.seconds:.3f} s; "
        f"{counted(report.num_errors, 'error')} logged",
        soft_wrap=True,
    )
    for comparison in report.comparisons:
        text = comparison.refusal or (
            f"{counted(comparison.num_frames, 'frame')}, {comparison.duration_seconds:.3f} s; "
            f"{comparison.num_different} of {len(comparison.rows)} sampled frames differ, "
            f"by at most {comparison.worst_levels:.2f} levels in the mean"
        )
        console.print(f"  {comparison.decoder}, {comparison.sampling}: {escape(visible(text))}", soft_wrap=True)
    if every_frame:
        console.print(_table(report))


def _table(report: Report) -> Table:
    table = Table(box=None, pad_edge=False)
    for header in ("reading", "frame", "s", "ffmpeg", "mean", "largest", "nearest", ""):
        table.add_column(header, justify="left" if header in ("reading", "") else "right", no_wrap=True)
    for comparison in report.comparisons:
        for row in comparison.rows:
            table.add_row(
                f"{comparison.decoder}, {comparison.sampling}",
                "-" if row.index is None else str(row.index),
                f"{row.seconds:.3f}",
                "-" if row.ffmpeg_seconds is None else f"{row.ffmpeg_seconds:.3f}",
                " ".join(f"{level:.2f}" for level in row.mean_levels) or "-",
                " ".join(map(str, row.max_levels)) or "-",
                "-" if row.nearest is None else str(row.nearest),
                "[red]differs[/]" if row.fault else "",
            )
    return table


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE…")
@click.option("--frames", type=click.IntRange(min=1), default=32, show_default=True, help="Frames of each sampling.")
@click.option("--summary", is_flag=True, help="Print no table of the single frames.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(*, paths: tuple[Path, ...], frames: int, summary: bool, as_json: bool) -> None:
    """Compare the sampled frames of each FILE with those of the ffmpeg command line; exit status 1 if any differ.

    Colours may differ by 0.5 of 255 levels in the mean (10 if pictures are interlaced or of more than 8 bits, which
    FFmpeg's versions convert in different ways), times by 2 ms.
    """
    if not is_installed():
        raise click.ClickException("ffmpeg is not installed; on Debian: apt-get install ffmpeg")
    console = Console(highlight=False, emoji=False)
    reports = []
    for path in paths:
        reports.append(compare(path, num_frames=frames))
        if not as_json:
            show(console, reports[-1], every_frame=not summary)
    if as_json:
        found = [dataclasses.asdict(report) | {"verdict": report.verdict} for report in reports]
        click.echo(json.dumps(found, indent=1, ensure_ascii=False))
    sys.exit(any(report.faults for report in reports))


if __name__ == "__main__":
    main()
