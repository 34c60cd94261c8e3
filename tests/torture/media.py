"""Small videos of many kinds, folders of them, and the command that extracts them with networks in miniature."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from bench.networks import write_clip_config
from haechi.extract.samples import scene, write_video
from tests.torture.apart import apart

os.environ.setdefault("SVT_LOG", "0")  # the AV1 encoder speaks of itself

QUIET_HEVC = {"x265-params": "log-level=none"}

# File name -> codec and its options: each of the containers, each of the codecs.
KINDS: dict[str, tuple[str, dict[str, str]]] = {
    "h264.mp4": ("libx264", {}),
    "h264.mkv": ("libx264", {}),
    "h264-keys.mp4": ("libx264", {"g": "12"}),
    "hevc.mp4": ("libx265", QUIET_HEVC),
    "hevc.mkv": ("libx265", QUIET_HEVC),
    "vp9.webm": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
    "vp8.webm": ("libvpx", {"deadline": "realtime"}),
    "av1.mp4": ("libsvtav1", {"preset": "10"}),
    "mpeg4.avi": ("mpeg4", {}),
    "mpeg4.mp4": ("mpeg4", {}),
}

UNSOUND = ("empty.mp4", "text.mp4", "cut.mp4", "gone.mp4")

FLAGS = [
    *("--frames", "8", "--clip-weights", "random:0", "--slowfast-weights", "random:0", "--device", "cpu"),
    *("--precision", "fp32", "--workers", "2"),
]


def write_kinds(folder: Path, *, num_frames: int, height: int, width: int) -> list[Path]:
    """One video of each kind, of the same pictures. Made in another process, because encoders leave threads behind."""
    folder.mkdir(parents=True, exist_ok=True)

    def write() -> list[Path]:
        frames = scene(seed=0, restless=False, num_frames=num_frames, height=height, width=width)
        return [
            write_video(folder / name, frames, codec=codec, options=options) for name, (codec, options) in KINDS.items()
        ]

    outcome = apart(write, seconds=120)
    assert outcome.value is not None, outcome.died
    return list(outcome.value)


def write_mixed(folder: Path, *, number: int) -> Path:
    """A folder of small videos, every sixth of them unsound, and the manifest that lists them all."""
    sound = write_kinds(folder / "kinds", num_frames=16, height=72, width=96)
    names: list[str] = []
    for i in range(number):
        if i % 6 == 4:
            unsound = UNSOUND[i // 6 % len(UNSOUND)]
            path = folder / f"{i:03d}-{unsound}"
            if unsound == "empty.mp4":
                path.touch()
            elif unsound == "text.mp4":
                path.write_text("this is no video\n" * 50)
            elif unsound == "cut.mp4":
                path.write_bytes(sound[0].read_bytes()[:2000])
        else:
            source = sound[i % len(sound)]
            path = folder / f"{i:03d}-{source.name}"
            shutil.copy2(source, path)
        names.append(path.name)
    return write_manifest(folder / "labels.csv", names)


def write_manifest(path: Path, names: Sequence[str]) -> Path:
    rows = [f"{name},{i % 2}" for i, name in enumerate(names)]
    path.write_text("\n".join(["path,label", *rows]) + "\n", encoding="utf-8")
    return path


def extract_command(manifest: Path, out: Path, folder: Path, *, shard_size: int = 4) -> list[str]:
    """Arguments of `haechi`; `folder` takes the small CLIP's configuration."""
    model = write_clip_config(folder / "clip")
    return [
        *("extract", str(manifest), "--out", str(out), "--clip-model", model, "--shard-size", str(shard_size)),
        *FLAGS,
    ]
