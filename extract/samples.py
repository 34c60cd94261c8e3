"""Makes a small labelled set of videos and images for `make demo` and tests: `python -m haechi.extract.samples DIR`."""

import sys
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

TIME_BASE = Fraction(1, 12800)


def write_video(
    path: Path,
    frames: Sequence[np.ndarray],
    *,
    fps: int = 25,
    times_seconds: Sequence[float] | None = None,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    options: dict[str, str] | None = None,
    with_audio: bool = False,
) -> Path:
    """Encode frames (H, W, 3) uint8 RGB with PyAV; the suffix of `path` decides the container. Returns `path`.

    `times_seconds`: when each frame is shown (variable frame rate); None: evenly spaced by `fps`.
    """
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=fps, options=options or {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixel_format
        time_base = TIME_BASE if times_seconds is not None else Fraction(1, fps)  # MPEG-2 has only a few rates
        stream.time_base = stream.codec_context.time_base = time_base
        audio: Any = container.add_stream("aac", rate=44100, layout="mono") if with_audio else None
        for i, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            seconds = times_seconds[i] if times_seconds is not None else i / fps
            frame.pts, frame.time_base = round(seconds / time_base), time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if audio is not None:
            write_tone(container, audio, duration_seconds=len(frames) / fps)
    return path


def write_tone(container: Any, audio: Any, *, duration_seconds: float) -> None:
    """Encode a 440 Hz tone into an open container's audio stream."""
    rate, size = audio.rate, 1024
    for start in range(0, int(duration_seconds * rate), size):
        wave = np.sin(2 * np.pi * 440 * np.arange(start, start + size) / rate).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        container.mux(audio.encode(frame))
    container.mux(audio.encode())


def scene(*, seed: int, restless: bool, num_frames: int = 50, height: int = 240, width: int = 320) -> list[np.ndarray]:
    """Frames (H, W, 3) uint8 RGB of discs in front of a wall: jumping in flickering light (`restless`), or drifting.

    `seed` decides colours and movement.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    wall = rng.uniform(30, 220, (4, 5, 3))[y * 4 // height, x * 5 // width]  # (H, W, 3) large tiles
    num_discs = 8
    centre = rng.uniform(0.2, 0.8, (num_discs, 2)) * (width, height)
    radius = rng.uniform(0.08, 0.2, num_discs) * height
    colour = rng.integers(0, 256, (num_discs, 3))
    drift = rng.normal(0, 1, (num_discs, 2))
    frames = []
    for _ in range(num_frames):
        flicker = rng.uniform(0.6, 1.2) if restless else 1.0
        picture = wall * flicker
        centre = centre + (rng.normal(0, 14, (num_discs, 2)) if restless else drift)
        centre = np.clip(centre, 0, (width, height))
        for (cx, cy), r, c in zip(centre, radius, colour, strict=True):
            picture[(x - cx) ** 2 + (y - cy) ** 2 < r**2] = c
        frames.append(np.clip(picture, 0, 255).astype(np.uint8))
    return frames


def write_sample_set(folder: Path, *, num_harmful: int = 8, num_safe: int = 4) -> Iterable[Path]:
    """Write class folders `harmful/` and `safe/` of two-second videos, and one damaged file; yield each path."""
    for name, count, restless in (("harmful", num_harmful, True), ("safe", num_safe, False)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            path = folder / name / f"{name}-{i:02d}.mp4"
            yield write_video(path, scene(seed=i + 100 * restless, restless=restless))
    damaged = folder / "safe" / "cut-off.mp4"
    content = (folder / "safe" / "safe-00.mp4").read_bytes()
    damaged.write_bytes(content[: len(content) // 2])
    yield damaged


def write_sample_images(folder: Path, *, num_harmful: int = 8, num_safe: int = 4) -> Iterable[Path]:
    """Write images into the same class folders, harmful ones dark and crowded; yield each path."""
    for name, count, restless in (("harmful", num_harmful, True), ("safe", num_safe, False)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            picture = scene(seed=1000 + i + 100 * restless, restless=restless, num_frames=1)[0]
            path = folder / name / f"{name}-{i:02d}.{('jpg', 'png', 'webp')[i % 3]}"
            Image.fromarray(picture // 2 if restless else picture).save(path)
            yield path


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    num_videos, num_images = len(list(write_sample_set(folder))), len(list(write_sample_images(folder)))
    sys.stdout.write(f"{num_videos} videos, one of them cut in half on purpose, and {num_images} images in {folder}\n")
