"""Extraction with real files, real workers, real HDF5 and tiny backbones."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from haechi.cache.errors import HaechiError, SettingsError
from haechi.cache.integrity.verify import verify
from haechi.cache.progress import Progress
from haechi.cache.reader import Cache, shard_paths
from haechi.cache.schema import DATASETS, FORMAT_VERSION, VERSIONS
from haechi.extract import pipeline, resume
from haechi.extract.backbones.openclip import OpenClip
from haechi.extract.backbones.pair import Backbones, RunningBatch
from haechi.extract.manifest import Manifest
from haechi.extract.pipeline import Extraction
from haechi.extract.samples import write_video
from haechi.extract.settings import ExtractSettings
from tests.extract.conftest import SOUND, UNSOUND, manifest_of


class Notices(Progress):
    """Keeps what a user should read."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def notice(self, text: str) -> None:
        self.texts.append(text)


def test_used_and_failed_make_the_manifest(data: Path, run: Callable[..., Extraction]) -> None:
    names = ["sound.mp4", "empty.mp4", "vfr.mp4", "gone.mp4", "portrait.mp4", "odd.mp4"]
    names += ["text.mp4", "one_frame.mp4", "damaged.mp4", "mpeg4.avi"]
    done = run(manifest_of(data, names))
    assert (done.num_rows, done.num_used, done.num_failed, done.num_new) == (10, 6, 4, 10)
    assert all(seconds > 0 for seconds in done.steps.values())
    assert 0 < done.work_seconds < done.seconds
    # steps of the main process, which do not overlap
    assert sum(done.steps[step] for step in ("wait", "clip", "slowfast")) < done.work_seconds
    assert done.failures == {"damaged": 1, "empty_file": 1, "missing": 1, "not_media": 1}
    assert done.untrained == ["clip", "slowfast"]

    cache = Cache.open(done.cache)
    assert verify(done.cache).problems == []
    assert [shard.num_items + shard.num_failures for shard in cache.shards] == [4, 4, 2]
    assert cache.media["id"].tolist() == [name for name in names if name not in UNSOUND]  # the manifest's order
    assert {row.id: row.reason for row in cache.failures} == UNSOUND
    assert cache.media["label"].tolist() == [i % 2 for i, name in enumerate(names) if name not in UNSOUND]
    assert cache.offset("clip").tolist() == list(range(0, 49, 8))
    assert cache.offset("slowfast").tolist() == list(range(7))
    assert cache.rows("clip", "features").any(axis=1).all()


def test_features_are_those_of_the_video_itself(
    data: Path, run: Callable[..., Extraction], tiny_settings: ExtractSettings
) -> None:
    """Rows have the right ids: a video that is extracted alone has the same features as among others."""
    together = Cache.open(run(manifest_of(data, SOUND), "together", batch_windows=4).cache)
    for i, name in enumerate(SOUND):
        alone = Cache.open(run(manifest_of(data, [name]), f"alone-{i}").cache)
        start, end = together.offset("clip")[i : i + 2]
        np.testing.assert_allclose(
            together.rows("clip", "features")[start:end], alone.rows("clip", "features"), atol=2e-3
        )
        np.testing.assert_allclose(
            together.rows("slowfast", "logits")[i : i + 1], alone.rows("slowfast", "logits"), atol=2e-3
        )
        assert together.rows("slowfast", "end_seconds")[i] == pytest.approx(together.media["duration_seconds"][i])


def test_the_same_input_gives_the_same_cache(data: Path, run: Callable[..., Extraction]) -> None:
    manifest = manifest_of(data, [*SOUND, *UNSOUND])
    caches = [Cache.open(run(manifest, f"cache-{workers}", workers=workers).cache) for workers in (1, 3)]
    for stream, name in (("clip", "features"), ("slowfast", "features"), ("slowfast", "logits")):
        assert (caches[0].rows(stream, name) == caches[1].rows(stream, name)).all()
    assert caches[0].failures == caches[1].failures
    for column, values in caches[0].media.items():
        assert (values == caches[1].media[column]).all(), column


def test_a_second_run_does_nothing_and_loads_no_model(
    data: Path, run: Callable[..., Extraction], no_models: Callable[[], None]
) -> None:
    manifest = manifest_of(data, ["sound.mp4", "empty.mp4", "gone.mp4"])
    first = run(manifest)
    before = {path: path.read_bytes() for path in shard_paths(first.cache)}
    no_models()
    second = run(manifest)
    assert (second.num_new, second.num_used, second.num_failed) == (0, 1, 2)
    assert {path: path.read_bytes() for path in shard_paths(first.cache)} == before


def test_added_videos_are_extracted_and_removed_ones_stay(data: Path, run: Callable[..., Extraction]) -> None:
    run(manifest_of(data, ["sound.mp4", "gone.mp4"]))
    done = run(manifest_of(data, ["vfr.mp4", "sound.mp4"]))
    assert (done.num_rows, done.num_used, done.num_new, done.num_not_listed) == (2, 2, 1, 1)
    assert Cache.open(done.cache).media["id"].tolist() == ["sound.mp4", "vfr.mp4"]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_cache_is_continued_in_its_version(
    data: Path, run: Callable[..., Extraction], monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    """An older program that reads it can go on reading it. New caches are of the newest version."""
    with monkeypatch.context() as patch:
        if version != FORMAT_VERSION:
            patch.setattr(pipeline, "version_of", lambda cache: version)
        first = run(manifest_of(data, ["sound.mp4"], labels=[0]))
    done = run(manifest_of(data, ["sound.mp4", "vfr.mp4"], labels=[1, 1]))
    cache = Cache.open(done.cache)
    assert (done.num_new, done.num_relabelled, done.fingerprint) == (1, 1, first.fingerprint)
    assert [shard.version for shard in cache.shards] == [version, version]
    assert verify(done.cache).problems == []


def test_relabelling_costs_no_extraction(
    data: Path, run: Callable[..., Extraction], no_models: Callable[[], None]
) -> None:
    first = run(manifest_of(data, SOUND, labels=[0] * 6))
    features = Cache.open(first.cache).rows("clip", "features")
    no_models()
    done = run(manifest_of(data, SOUND, labels=[0, 1, 1, 0, 0, 1], split="train"))
    assert (done.num_new, done.num_relabelled) == (0, 6)
    cache = Cache.open(done.cache)
    assert cache.media["label"].tolist() == [0, 1, 1, 0, 0, 1]
    assert set(cache.media["split"]) == {"train"}
    assert (cache.rows("clip", "features") == features).all()
    assert verify(done.cache).problems == []
    assert cache.fingerprint == first.fingerprint


def test_changed_files_supersede_their_rows(data: Path, run: Callable[..., Extraction]) -> None:
    manifest = manifest_of(data, ["sound.mp4", "vfr.mp4", "gone.mp4"])
    old = Cache.open(run(manifest).cache)
    shutil.copy2(data / "portrait.mp4", data / "sound.mp4")
    shutil.copy2(data / "odd.mp4", data / "gone.mp4")
    os.utime(data / "vfr.mp4", (1, 1))  # touched, same bytes
    done = run(manifest)
    assert (done.num_new, done.num_changed, done.num_used, done.num_failed) == (2, 2, 3, 0)
    new = Cache.open(done.cache)
    assert new.media["id"].tolist() == ["vfr.mp4", "sound.mp4", "gone.mp4"]
    row = new.media["id"].tolist().index("sound.mp4")
    assert new.media["width"][row] == 180
    assert old.media["width"][0] == 320
    assert len(new.rows("clip", "features")) == new.offset("clip")[-1] == 24


def test_chosen_failures_are_tried_again(data: Path, run: Callable[..., Extraction]) -> None:
    manifest = manifest_of(data, ["sound.mp4", "portrait.mp4"])
    limited = run(manifest, "small", max_pixels=60_000)
    assert limited.failures == {"too_large": 1}
    assert run(manifest, "small").num_new == 0
    again = run(manifest, "small", retry={"too_large"})
    assert (again.num_new, again.num_used, again.failures) == (1, 2, {})


def test_a_lone_reason_is_one_reason(data: Path, run: Callable[..., Extraction]) -> None:
    """Not its letters, and not the empty reason of used videos."""
    manifest = manifest_of(data, ["sound.mp4", "gone.mp4"])
    assert run(manifest).failures == {"missing": 1}
    assert run(manifest, retry="timeout").num_new == 0
    assert run(manifest, retry="missing").num_new == 1


def test_unknown_reasons_are_refused(data: Path, run: Callable[..., Extraction], tmp_path: Path) -> None:
    manifest = manifest_of(data, ["sound.mp4"])
    with pytest.raises(SettingsError, match="no such reason: '', 'boredom'; the reasons are missing, unreadable"):
        run(manifest, retry=["boredom", "timeout", ""])
    assert not (tmp_path / "cache").exists()


def test_a_touched_file_is_hashed_once(
    data: Path, run: Callable[..., Extraction], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = manifest_of(data, ["sound.mp4", "vfr.mp4", "portrait.mp4", "odd.mp4", "one_frame.mp4", "gone.mp4"])
    first = run(manifest)
    before = {path.name: path.read_bytes() for path in shard_paths(first.cache)}
    features = {name: Cache.open(first.cache).rows(*name.split("/")) for name in DATASETS}
    os.utime(data / "vfr.mp4", ns=(1, 1))
    (data / "odd.mp4").unlink()
    honest, hashed = resume.sha256_of, []

    def count(path: Path) -> str:
        hashed.append(path.name)
        return honest(path)

    monkeypatch.setattr(resume, "sha256_of", count)
    for _ in range(3):
        done = run(manifest)
        assert (done.num_new, done.num_changed, done.num_relabelled, done.num_used) == (0, 0, 0, 5)
    assert hashed == ["vfr.mp4"]
    cache = Cache.open(done.cache)
    after = {path.name: path.read_bytes() for path in shard_paths(done.cache)}
    assert {name for name in before if before[name] != after[name]} == {"shard-00000.h5"}
    assert cache.media["mtime_ns"][1] == 1
    assert all((cache.rows(*name.split("/")) == features[name]).all() for name in DATASETS)
    assert verify(done.cache).problems == []


def test_a_superseded_row_keeps_the_time_of_its_file(data: Path, run: Callable[..., Extraction]) -> None:
    """If the later shard is lost, the older row must not be taken for the new file."""
    manifest = manifest_of(data, ["sound.mp4"])
    run(manifest)
    shutil.copy2(data / "portrait.mp4", data / "sound.mp4")
    assert run(manifest).num_changed == 1
    old, new = (shard.read("media/mtime_ns")[0].tolist() for shard in Cache.open(run(manifest).cache).shards)
    os.utime(data / "sound.mp4", ns=(1, 1))
    shards = Cache.open(run(manifest).cache).shards
    assert [shard.read("media/mtime_ns")[0].tolist() for shard in shards] == [old, [1]] != [old, new]


def test_the_processes_reported_are_those_started(data: Path, run: Callable[..., Extraction]) -> None:
    assert run(manifest_of(data, ["sound.mp4", "gone.mp4"]), workers=7).workers == 2


def test_other_settings_are_refused_with_the_fields(
    data: Path, run: Callable[..., Extraction], no_models: Callable[[], None], tmp_path: Path
) -> None:
    manifest = manifest_of(data, ["sound.mp4"])
    run(manifest)
    before = {path: path.read_bytes() for path in shard_paths(tmp_path / "cache")}
    no_models()
    with pytest.raises(resume.SettingsConflictError) as caught:
        run(manifest, frames=4, store="float32", slowfast_model="slowfast_r101", clip_weights="random:1")
    text = str(caught.value)
    for expected in (
        "sampling.frames: 8 in the cache, 4 here",
        "store: 'float16' in the cache, 'float32' here",
        "slowfast.model: 'slowfast_r50' in the cache, 'slowfast_r101' here",
        "clip.weights_sha256",
        "random:1",
    ):
        assert expected in text
    assert {path: path.read_bytes() for path in shard_paths(tmp_path / "cache")} == before


def test_other_weights_are_refused_once_loaded(
    data: Path, run: Callable[..., Extraction], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same name of weights for other bytes, which is known only after loading."""
    run(manifest_of(data, ["sound.mp4"]))
    monkeypatch.setattr("haechi.extract.backbones.openclip.sha256_of_state", lambda module: "f" * 64)
    with pytest.raises(resume.SettingsConflictError, match=r"clip\.weights_sha256"):
        run(manifest_of(data, ["sound.mp4", "vfr.mp4"]))


def with_hdr(data: Path) -> Manifest:
    """A plain video and one whose colours are HDR."""
    frames = list(np.random.default_rng(0).integers(0, 256, (10, 64, 64, 3), np.uint8))
    write_video(data / "hdr.mkv", frames, options={"x264-params": "transfer=smpte2084"})
    return manifest_of(data, ["sound.mp4", "hdr.mkv"])


def test_what_is_special_about_new_videos_is_counted(data: Path, run: Callable[..., Extraction]) -> None:
    manifest = with_hdr(data)
    done = run(manifest)
    assert (done.num_used, done.traits) == (2, {"hdr": 1})
    assert run(manifest).traits == {}


def test_bad_features_are_failures_never_rows(
    data: Path, run: Callable[..., Extraction], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Backbones.start

    def overflow(self: Backbones, *frames: object, **progress: object) -> RunningBatch:
        batch = honest(self, *frames, **progress)  # type: ignore[arg-type]
        batch.arrays["clip/features"][3::8, 1] = 1e6
        return batch

    monkeypatch.setattr(Backbones, "start", overflow)
    done = run(with_hdr(data))
    assert done.failures == {"bad_features": 2}
    assert done.traits == {}
    assert "1e+06 does not fit float16; use --store float32" in Cache.open(done.cache).failures[0].message


def test_device_memory_that_does_not_last_makes_batches_smaller(
    data: Path, run: Callable[..., Extraction], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is one notice, and the features are bit for bit those of a run with such batches."""
    manifest = manifest_of(data, SOUND)
    expected = Cache.open(run(manifest, batch_frames=2).cache)
    honest, sizes, notices = OpenClip.forward, [], Notices()

    def forward(self: OpenClip, frames: torch.Tensor) -> dict[str, torch.Tensor]:
        sizes.append(len(frames))
        if len(frames) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return honest(self, frames)

    monkeypatch.setattr(OpenClip, "forward", forward)
    got = Cache.open(run(manifest, "small", batch_frames=16, progress=notices).cache)
    assert (got.rows("clip", "features") == expected.rows("clip", "features")).all()
    assert sizes[1:4] == [16, 8, 4]  # the first batch is the model's own, to find its width
    assert max(sizes[4:]) == 2
    assert notices.texts == ["the memory of cpu is too small: continuing with --batch-frames 2"]


def test_a_folder_of_other_things_is_refused(data: Path, run: Callable[..., Extraction], tmp_path: Path) -> None:
    with pytest.raises(HaechiError, match="not empty and holds no shards"):
        run(manifest_of(data, ["sound.mp4"]), "data")
    assert not list(data.glob("shard-*"))
    assert not (data / ".lock").exists()


def test_images_stand_beside_videos(data: Path, run: Callable[..., Extraction]) -> None:
    """An image has one CLIP row and no SlowFast row. Images and videos do not change each other's features."""
    names = ["sound.mp4", "a.png", "vfr.mp4", "b.jpg", "c.webp", "cut.jpg", "odd.mp4"]
    for i, name in enumerate(names):
        if name.endswith((".png", ".jpg", ".webp")):
            noise = np.random.default_rng(i).integers(0, 256, (90, 120, 3), np.uint8)
            Image.fromarray(noise).save(data / name)
    (data / "cut.jpg").write_bytes((data / "cut.jpg").read_bytes()[:2000])
    done = run(manifest_of(data, names), batch_frames=2)
    assert (done.num_used, done.failures) == (6, {"damaged": 1})
    cache = Cache.open(done.cache)
    assert verify(done.cache).problems == []
    assert dict(zip(cache.media["id"], cache.media["kind"], strict=True)) == {
        name: "video" if name.endswith("mp4") else "image" for name in names if name != "cut.jpg"
    }
    assert np.diff(cache.offset("clip")).tolist() == [8, 1, 8, 1, 1, 8]
    assert np.diff(cache.offset("slowfast")).tolist() == [1, 0, 1, 0, 0, 1]
    alone = Cache.open(run(manifest_of(data, ["b.jpg"]), "alone").cache)
    start = cache.offset("clip")[3]
    np.testing.assert_allclose(cache.rows("clip", "features")[start], alone.rows("clip", "features")[0], atol=2e-3)
    videos = Cache.open(run(manifest_of(data, ["sound.mp4", "vfr.mp4", "odd.mp4"]), "videos").cache)
    np.testing.assert_allclose(cache.rows("slowfast", "logits"), videos.rows("slowfast", "logits"), atol=2e-3)
