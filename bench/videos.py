"""The videos of a benchmark, given or generated, and manifests of them."""

import csv
from collections.abc import Sequence
from pathlib import Path

from haechi.extract.manifest import Manifest, read_manifest
from haechi.extract.samples import scene, write_video
from haechi.extract.sampling import uniform

VARIABLE_RATE = 3  # every third generated video has a variable frame rate


def pick_videos(
    data: Path | None, folder: Path, *, num_videos: int, height: int = 360, width: int = 640, num_frames: int = 100
) -> list[Path]:
    """`num_videos` videos evenly spread over `data` (a manifest or a folder); without `data`, generated in `folder`."""
    if data is not None:
        paths = local_paths(read_manifest(data))
        return [paths[i] for i in uniform(len(paths), min(num_videos, len(paths)))]
    folder.mkdir(parents=True, exist_ok=True)
    return [
        write_video(
            folder / f"generated-{i:02d}.mp4",
            scene(seed=i, restless=bool(i % 2), num_frames=num_frames, height=height, width=width),
            times_seconds=variable_times(num_frames) if i % VARIABLE_RATE == 1 else None,
        )
        for i in range(num_videos)
    ]


def local_paths(manifest: Manifest) -> list[Path]:
    """The files of a manifest, all on this machine."""
    return [entry.path for entry in manifest.entries if isinstance(entry.path, Path)]


def variable_times(num_frames: int) -> list[float]:
    """Times of frames in seconds: 30 frames per second in the first half, 5 in the second."""
    fast = num_frames // 2
    return [i / 30 for i in range(fast)] + [fast / 30 + i / 5 for i in range(num_frames - fast)]


def write_manifest(path: Path, videos: Sequence[Path], *, num_rows: int | None = None) -> Path:
    """Write a manifest of `num_rows` rows (default: one for each video) that repeats the videos under different ids.

    Labels alternate, and two of ten rows are for validation.
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "path", "label", "split"])
        for i in range(num_rows or len(videos)):
            writer.writerow([f"{i:05d}", videos[i % len(videos)], i % 2, "val" if i % 10 < 2 else "train"])
    return path
