"""Videos that were cut, turned, put beside other streams or recorded from the middle on: each frame must be ffmpeg's.

They are cut and changed copies of a few small videos, each encoded once. All frames of these look different, so that a
wrong frame is noticed.
"""

import math
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench import ffmpeg, frames
from haechi.extract.samples import scene
from tests.torture.containers import find_parts
from tests.torture.processes import run_forked
from tests.torture.record import Record

WIDTH, HEIGHT, NUM_FRAMES, FPS = 96, 64, 60, 25
NUM_SAMPLES = 12
SECONDS = 60.0  # one comparison takes about 0.3 s
MAX_LEFT_OUT = 8  # frames at the end of a video where no cut begins

X265 = "log-level=none:pools=none:frame-threads=1:scenecut=0"

# Name -> encoder and its options: lengths of groups of pictures, 0 to 3 B-frames, closed and open groups.
SOURCES: dict[str, list[str]] = {
    "h264-closed": ["libx264", "-x264-params", "keyint=12:bframes=2:scenecut=0"],
    "h264-open": ["libx264", "-x264-params", "keyint=20:bframes=3:open-gop=1:scenecut=0"],
    "h264-plain": ["libx264", "-x264-params", "keyint=9:bframes=0:scenecut=0"],
    "h264-long": ["libx264", "-x264-params", "keyint=250:bframes=1:scenecut=0"],
    "hevc-closed": ["libx265", "-x265-params", f"keyint=12:bframes=2:open-gop=0:{X265}"],
    "hevc-open": ["libx265", "-x265-params", f"keyint=20:bframes=3:open-gop=1:{X265}"],
    "hevc-plain": ["libx265", "-x265-params", f"keyint=9:bframes=0:{X265}"],
    "vp9-plain": ["libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-g", "12"],
    "vp9-hidden": ["libvpx-vp9", "-deadline", "good", "-cpu-used", "5", "-g", "25", "-lag-in-frames", "16"],
    "av1-short": ["libsvtav1", "-preset", "12", "-g", "12", "-svtav1-params", "lp=1"],
    "av1-long": ["libsvtav1", "-preset", "12", "-g", "25", "-svtav1-params", "lp=1"],
    "mpeg2-open": ["mpeg2video", "-g", "12", "-bf", "2", "-sc_threshold", "1000000000"],
    "mpeg2-closed": ["mpeg2video", "-g", "15", "-bf", "1", "-flags", "+cgop", "-sc_threshold", "1000000000"],
    "mpeg2-plain": ["mpeg2video", "-g", "9", "-bf", "0", "-sc_threshold", "1000000000"],
}
IN_MP4 = [name for name in SOURCES if not name.startswith("mpeg2")]
IN_QUICKTIME = [name for name in SOURCES if name.startswith(("h264", "hevc"))]
IN_TRANSPORT = [name for name in SOURCES if name.startswith(("h264", "hevc", "mpeg2"))]

TS_PACKET_BYTES = 188

# Streams beside each other: size, quantizer. The largest one does not have the highest bit rate.
SIZES = {"a": (64, 48, 4), "b": (96, 64, 40), "c": (128, 96, 45), "d": (96, 64, 10), "e": (160, 64, 30)}

# Parts of a track header (ISO/IEC 14496-12, 8.3): from the box's content to its matrix, version 0 and 1.
MATRIX_AT = {0: 40, 1: 52}
ONE, FRACTION_BITS, MATRIX_NUMBERS = 1 << 16, 16, 9

# Degrees by which a rotation misses the quarter turn.
DEVIATIONS = (0.0, 0.0, 0.0, 2.0, -2.0, 0.01, -0.01, 20.0)


@dataclass(frozen=True, kw_only=True)
class Variation:
    """A generated video."""

    path: Path
    what: str
    """How it was made."""


def run_ffmpeg(*arguments: str | Path, data: bytes | None = None) -> None:
    """Raises `RuntimeError` with what ffmpeg said if it fails."""
    command = [ffmpeg.PROGRAM, "-nostdin", "-v", "error", "-y", *map(str, arguments)]
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.decode(errors='replace')[-500:]}")


def source(folder: Path, name: str, suffix: str) -> Path:
    """The video of this name, with a sound track; it is encoded at the first call."""
    path = folder / "sources" / f"{name}{suffix}"
    if not path.exists():
        _encode(path, *SOURCES[name], seed=sorted(SOURCES).index(name), width=WIDTH, height=HEIGHT)
    return path


def _encode(path: Path, *codec: str, seed: int, width: int, height: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = scene(seed=seed, restless=True, num_frames=NUM_FRAMES, height=height, width=width)
    run_ffmpeg(
        *("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(FPS), "-i", "pipe:0"),
        *("-f", "lavfi", "-i", f"sine=duration={NUM_FRAMES / FPS}", "-pix_fmt", "yuv420p", "-c:v", *codec),
        *("-c:a", "aac", path),
        data=np.stack(pictures).tobytes(),
    )


def cut(folder: Path, number: int, rng: np.random.Generator) -> Variation:
    """Cut without encoding again, once or twice, at any time, before or after the input is opened.

    MP4 then holds the packets from the key frame before the cut on, and an edit list that hides some of them.
    """
    name = str(rng.choice(IN_MP4))
    suffix = str(rng.choice([".mp4", ".mov"])) if name in IN_QUICKTIME else ".mp4"
    path = folder / f"cut-{number:03d}{suffix}"
    before, done = source(folder, name, suffix), [f"{name}{suffix}"]
    times = 1 + int(rng.random() < 0.25)
    for i in range(times):
        is_last = i == times - 1
        start = rng.uniform(0, NUM_FRAMES - MAX_LEFT_OUT) / FPS / times
        if rng.random() < 0.5:
            start = round(start * FPS) / FPS
        seek = ["-ss", f"{start:.3f}"]
        is_before = bool(rng.random() < 0.7) or not is_last
        options = [*(seek if is_before else []), "-i", str(before), *([] if is_before else seek)]
        if rng.random() < 0.3 and is_last:
            options += ["-t", f"{rng.uniform(4, NUM_FRAMES / 2) / FPS:.3f}"]
        if rng.random() < 0.4:
            options.append("-an")
        if rng.random() < 0.15:
            options += ["-avoid_negative_ts", "make_zero"]
        if rng.random() < 0.1:
            options += ["-movflags", "frag_keyframe"]
        out = path if is_last else path.with_name(f"cut-{number:03d}-first{suffix}")
        run_ffmpeg(*options, "-c", "copy", out)
        done.append(" ".join(options).replace(str(before), "…"))
        before = out
    return Variation(path=path, what="; ".join(done))


def turned(folder: Path, number: int, rng: np.random.Generator) -> Variation:
    """Any of the eight orientations, by the matrix of an MP4's track.

    The rotation may miss the quarter turn, and the matrix may be scaled and moved. An orientation that H.264 gives in a
    message of its own is no subject: FFmpeg 5.1 applies it to key frames alone.
    """
    name = str(rng.choice(IN_MP4))
    path = folder / f"turned-{number:03d}.mp4"
    quarters, is_mirrored = number % 4, bool(number // 4 % 2)
    degrees = 90 * quarters + float(rng.choice(DEVIATIONS))
    scale = float(rng.choice([1.0, 1.0, 0.5, 2.0]))
    content = with_matrix(source(folder, name, ".mp4").read_bytes(), degrees, is_mirrored=is_mirrored, scale=scale)
    path.write_bytes(content)
    mirror = ", mirrored" if is_mirrored else ""
    return Variation(path=path, what=f"{name}, matrix: {degrees:g} degrees{mirror}, scale {scale:g}")


def with_matrix(content: bytes, degrees: float, *, is_mirrored: bool, scale: float = 1.0) -> bytes:
    """An MP4 whose first track, the video, is shown mirrored (left and right), then turned clockwise."""
    part = next(part for part in find_parts(content) if part.kind == b"tkhd")
    cosine, sine = (scale * f(math.radians(degrees)) for f in (math.cos, math.sin))
    mirror = -1 if is_mirrored else 1
    numbers = [mirror * cosine, mirror * sine, 0, -sine, cosine, 0, WIDTH * (cosine < 0), HEIGHT * (sine < 0), 0]
    fixed = [round(number * ONE) for number in numbers[:-1]] + [1 << 30]
    matrix = b"".join(number.to_bytes(4, "big", signed=True) for number in fixed)
    assert len(fixed) == MATRIX_NUMBERS
    start = part.body + MATRIX_AT[content[part.body]]
    return content[:start] + matrix + content[start + len(matrix) :]


def beside(folder: Path, number: int, rng: np.random.Generator) -> Variation:
    """1 to 4 video streams of other sizes in any order, any of them the default, cover art and sound among them."""
    suffix = str(rng.choice([".mp4", ".mkv"]))
    path = folder / f"beside-{number:03d}{suffix}"
    kinds = [str(name) for name in rng.permutation(list(SIZES))[: rng.integers(1, 5)]]
    has_cover = bool(rng.random() < 0.4)
    if has_cover and suffix == ".mp4":
        kinds.insert(int(rng.integers(0, len(kinds) + 1)), "cover")
    if rng.random() < 0.5:
        kinds.insert(int(rng.integers(0, len(kinds) + 1)), "sound")
    inputs: list[str | Path] = []
    outputs: list[str | Path] = []
    texts = []
    for i, kind in enumerate(kinds):
        inputs += ["-i", _stream(folder, kind)]
        outputs += ["-map", f"{i}:a:0" if kind == "sound" else f"{i}:v:0"]
        if kind != "sound":
            disposition = "attached_pic" if kind == "cover" else str(rng.choice(["default", "0", "0"]))
            outputs += [f"-disposition:{i}", disposition]
            kind += f" {disposition}"
        texts.append(kind)
    if has_cover and suffix == ".mkv":  # an attachment, which the demuxer gives as a stream
        outputs += ["-attach", _stream(folder, "cover"), "-metadata:s:t", "mimetype=image/png"]
        texts.append("cover attached")
    run_ffmpeg(*inputs, *outputs, "-c", "copy", path)
    return Variation(path=path, what=f"{suffix[1:]}: {', '.join(texts)}")


def _stream(folder: Path, kind: str) -> Path:
    path = folder / "sources" / f"beside-{kind}{'.png' if kind == 'cover' else '.mp4'}"
    if path.exists():
        return path
    if kind == "cover":
        path.parent.mkdir(parents=True, exist_ok=True)
        run_ffmpeg("-f", "lavfi", "-i", "testsrc=size=200x200", "-frames:v", "1", path)
        return path
    width, height, quantizer = SIZES.get(kind, SIZES["a"])
    _encode(path, "libx264", "-qp", str(quantizer), "-g", "12", seed=ord(kind[0]), width=width, height=height)
    return path


def tuned_in(folder: Path, number: int, rng: np.random.Generator) -> Variation:
    """A broadcast recording: an MPEG-TS that begins at any of its packets."""
    name = str(rng.choice(IN_TRANSPORT))
    content = source(folder, name, ".ts").read_bytes()
    first = int(rng.integers(0, len(content) * 3 // 4 // TS_PACKET_BYTES))
    path = folder / f"tuned-in-{number:03d}.ts"
    path.write_bytes(content[first * TS_PACKET_BYTES :])
    return Variation(path=path, what=f"{name}.ts from packet {first} on")


Kind = Callable[[Path, int, np.random.Generator], Variation]
KINDS: dict[str, Kind] = {"cut": cut, "turned": turned, "beside": beside, "tuned in": tuned_in}


def make(kind: str, folder: Path, number: int, *, seed: int = 0) -> Variation:
    """Write variation `number` of a kind into `folder`; files of the same folder share what was encoded."""
    return KINDS[kind](folder, number, np.random.default_rng([seed, sorted(KINDS).index(kind), number]))


def faults(path: Path) -> list[str]:
    """What differs from ffmpeg, one line each. A file of which ffmpeg shows anything must be used."""
    report = frames.compare(path, num_frames=NUM_SAMPLES)
    refused = [
        f"{comparison.decoder}, {comparison.sampling}: refused ({comparison.refusal}), ffmpeg shows {report.num_frames}"
        for comparison in report.comparisons
        if comparison.refusal and report.num_frames
    ]
    return refused or report.faults


def vary(number: int, *, seed: int = 0, keep: Path | None = None) -> Record:
    """Compare `number` variations of each kind with ffmpeg; those that differ are copied to `keep`."""
    started = time.monotonic()
    losses: list[str] = []
    tried, lost = Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        for kind in KINDS if ffmpeg.is_installed() else ():
            for i in range(number):
                variation = make(kind, Path(name), i, seed=seed)
                outcome = run_forked(lambda path=variation.path: faults(path), seconds=SECONDS)  # type: ignore[misc]
                wrong = [outcome.error] if outcome.error else outcome.value
                tried[kind] += 1
                lost[kind] += bool(wrong)
                losses += [f"{kind} {i} ({variation.what}): {text}" for text in wrong[:1]]
                if wrong and keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    shutil.copy(variation.path, keep)
                variation.path.unlink()
    counts = ", ".join(f"{count} {kind}" for kind, count in tried.items())
    return Record(
        what="videos whose frames must be ffmpeg's",
        tried=tried.total(),
        survived=tried.total() - lost.total(),
        losses=losses,
        note=counts or "not compared: ffmpeg is not installed",
        facts={"lost": dict(lost)},
        seconds=time.monotonic() - started,
    )
