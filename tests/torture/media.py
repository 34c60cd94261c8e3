"""Small videos of many kinds, folders of them, and the command that extracts them with tiny networks."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from bench.networks import write_clip_config
from haechi.extract.samples import scene, write_video
from tests.torture.processes import run_forked

os.environ.setdefault("SVT_LOG", "0")  # otherwise the AV1 encoder prints a banner

QUIET_HEVC = {"x265-params": "log-level=none"}

# File name -> codec and its options; all kinds of container and codec that the tests damage.
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

BROKEN = ("empty.mp4", "text.mp4", "cut.mp4", "gone.mp4")

FLAGS = [
    *("--frames", "8", "--clip-weights", "random:0", "--slowfast-weights", "random:0", "--device", "cpu"),
    *("--precision", "fp32", "--workers", "2"),
]


def write_kinds(folder: Path, *, num_frames: int, height: int, width: int) -> list[Path]:
    """Write one video of each kind, all from the same frames; their paths.

    Another process encodes them, because encoders leave threads behind.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def write() -> list[Path]:
        frames = scene(seed=0, restless=False, num_frames=num_frames, height=height, width=width)
        return [
            write_video(folder / name, frames, codec=codec, options=options) for name, (codec, options) in KINDS.items()
        ]

    outcome = run_forked(write, seconds=120)
    assert outcome.value is not None, outcome.error
    return list(outcome.value)


def write_mixed(folder: Path, *, number: int) -> Path:
    """Write `number` small videos, every sixth of them broken or missing, and a manifest of them; its path."""
    intact = write_kinds(folder / "kinds", num_frames=16, height=72, width=96)
    names: list[str] = []
    for i in range(number):
        if i % 6 == 4:
            broken = BROKEN[i // 6 % len(BROKEN)]
            path = folder / f"{i:03d}-{broken}"
            if broken == "empty.mp4":
                path.touch()
            elif broken == "text.mp4":
                path.write_text("this is no video\n" * 50)
            elif broken == "cut.mp4":
                path.write_bytes(intact[0].read_bytes()[:2000])
        else:
            source = intact[i % len(intact)]
            path = folder / f"{i:03d}-{source.name}"
            shutil.copy2(source, path)
        names.append(path.name)
    return write_manifest(folder / "labels.csv", names)


def write_manifest(path: Path, names: Sequence[str]) -> Path:
    rows = [f"{name},{i % 2}" for i, name in enumerate(names)]
    path.write_text("\n".join(["path,label", *rows]) + "\n", encoding="utf-8")
    return path


def extract_command(manifest: Path, out: str | Path, folder: Path, *, shard_size: int = 4) -> list[str]:
    """Arguments of `haechi`. The configuration of a tiny CLIP is written to `folder`."""
    model = write_clip_config(folder / "clip")
    return [
        *("extract", str(manifest), "--out", str(out), "--clip-model", model, "--shard-size", str(shard_size)),
        *FLAGS,
    ]
