"""Real files, undamaged and damaged, and tiny backbones."""

import shutil
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from bench import networks
from haechi.extract import pipeline
from haechi.extract.backbones.pair import Backbones
from haechi.extract.manifest import Manifest, read_manifest
from haechi.extract.pipeline import Extraction
from haechi.extract.samples import scene, write_tone, write_video
from haechi.extract.settings import ExtractSettings
from tests.miniature import shrink_slowfast

# The transformation matrix of an MP4 track (ISO/IEC 14496-12, tkhd): none, and a quarter turn clockwise.
UPRIGHT = b"".join(n.to_bytes(4, "big", signed=True) for n in (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30))
QUARTER_TURN = b"".join(n.to_bytes(4, "big", signed=True) for n in (0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30))

SOUND = ["sound.mp4", "vfr.mp4", "portrait.mp4", "odd.mp4", "one_frame.mp4", "mpeg4.avi"]
UNSOUND = {"empty.mp4": "empty_file", "text.mp4": "not_media", "damaged.mp4": "damaged", "gone.mp4": "missing"}

VFR_TIMES = [i / 30 for i in range(20)] + [20 / 30 + i / 5 for i in range(20)]  # 30 frames/s, then 5


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of many kinds of files; their names say what they are."""
    folder = tmp_path_factory.mktemp("videos")
    frames = scene(seed=1, restless=True, num_frames=40)
    sound = write_video(folder / "sound.mp4", frames)
    write_video(folder / "with_audio.mp4", frames, with_audio=True)
    write_video(folder / "vfr.mp4", frames, times_seconds=VFR_TIMES)
    write_video(folder / "portrait.mp4", scene(seed=2, restless=False, num_frames=40, height=320, width=180))
    odd = scene(seed=3, restless=False, num_frames=40, height=181, width=321)
    write_video(folder / "odd.mp4", odd, pixel_format="yuv444p")
    write_video(folder / "one_frame.mp4", frames[:1])
    write_video(folder / "short.mp4", frames[:7])
    write_video(folder / "vp9.webm", frames[:20], codec="libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8"})
    write_video(folder / "mpeg4.avi", frames, codec="mpeg4")
    content = sound.read_bytes()
    turned = content.replace(UPRIGHT, QUARTER_TURN)
    # the movie header comes first and keeps its matrix; the track header's is the one that rotates
    head = content.index(UPRIGHT) + len(UPRIGHT)
    (folder / "rotated.mp4").write_bytes(content[:head] + turned[head:])
    shutil.copy(sound, folder / "한국어 영상.mp4")

    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("this is no video\n" * 50)
    (folder / "cut.mp4").write_bytes(content[: len(content) // 2])
    mkv = write_video(folder / "whole.mkv", frames).read_bytes()
    (folder / "no_frames.mkv").write_bytes(mkv[: mkv.index(b"\x1f\x43\xb6\x75")])  # up to the first cluster
    (folder / "cut.mkv").write_bytes(mkv[: len(mkv) // 2])
    damaged, middle = bytearray(content), len(content) // 2
    damaged[middle : middle + 500] = np.random.default_rng(0).bytes(500)
    (folder / "damaged.mp4").write_bytes(damaged)
    with av.open(str(folder / "audio_only.mp4"), "w") as container:
        write_tone(container, container.add_stream("aac", rate=44100, layout="mono"), duration_seconds=1)
    return folder


@pytest.fixture
def tiny_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ExtractSettings:
    """Settings whose backbones are tiny and run in milliseconds."""
    shrink_slowfast(monkeypatch)
    return ExtractSettings(
        clip_model=networks.write_clip_config(tmp_path / "tiny-clip"),
        clip_weights="random:0",
        slowfast_weights="random:0",
        frames=8,
        shard_size=4,
        device="cpu",
        precision="fp32",
    )


def manifest_of(data: Path, names: list[str], *, labels: list[int] | None = None, split: str = "") -> Manifest:
    labels = labels or [i % 2 for i in range(len(names))]
    lines = [f"{name},{label},{split}" for name, label in zip(names, labels, strict=True)]
    (data / "labels.csv").write_text("\n".join(["path,label,split", *lines]) + "\n")
    return read_manifest(data / "labels.csv")


@pytest.fixture
def data(videos: Path, tmp_path: Path) -> Path:
    """A folder with usable and unusable files, which a test may change."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in [*SOUND, *UNSOUND]:
        if name != "gone.mp4":
            shutil.copy2(videos / name, folder / name)
    return folder


@pytest.fixture
def run(tmp_path: Path, tiny_settings: ExtractSettings) -> Callable[..., Extraction]:
    def run(manifest: Manifest, out: str = "cache", **changes: object) -> Extraction:
        extra = {name: changes.pop(name) for name in ("retry", "progress") if name in changes}
        settings = ExtractSettings(**{**vars(tiny_settings), **changes})
        return pipeline.extract(manifest, tmp_path / out, settings, producer="haechi test", **extra)  # type: ignore[arg-type]

    return run


@pytest.fixture
def no_models(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def forbid() -> None:
        def refuse(*_: object) -> None:
            raise AssertionError("a model was loaded")

        monkeypatch.setattr(Backbones, "__init__", refuse)

    return forbid
