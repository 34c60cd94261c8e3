"""Extraction of long videos with real files, workers and HDF5, and tiny backbones."""

import csv
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import haechi.cli
from haechi.cache.errors import SettingsConflictError
from haechi.cache.integrity.verify import verify
from haechi.cache.reader import Cache
from haechi.extract.backbones.device import Compute
from haechi.extract.backbones.pair import Backbones
from haechi.extract.decoding import pool
from haechi.extract.decoding.decode import sample
from haechi.extract.decoding.limits import Limits
from haechi.extract.pipeline import Extraction
from haechi.extract.samples import write_video
from haechi.extract.settings import ExtractSettings
from tests.extract import poison
from tests.extract.conftest import SOUND, UNSOUND, manifest_of
from tests.extract.decoding.test_exactness import bar_code
from tests.sinks import Kept

WINDOWS = {"sampling": "windows", "window_seconds": 1.0, "stride_seconds": 0.5, "clip_fps": 4.0, "frames": 32}


@pytest.fixture
def data(data: Path) -> Path:
    """The files of `data`, a video of 20 seconds and an image."""
    write_video(data / "long.mp4", [bar_code(i) for i in range(200)], fps=10)
    Image.fromarray(bar_code(77)).save(data / "picture.png")
    return data


def test_rows_are_those_of_each_window_alone(
    data: Path, run: Callable[..., Extraction], tiny_settings: ExtractSettings
) -> None:
    """Whatever other videos share a batch with them."""
    names = ["long.mp4", *SOUND, *UNSOUND, "picture.png"]
    done = run(manifest_of(data, names), workers=2, batch_windows=3, **WINDOWS)
    assert (done.num_used, done.failures) == (8, dict.fromkeys(UNSOUND.values(), 1))
    cache = Cache.open(done.cache)
    assert verify(done.cache).problems == []
    assert cache.media["id"].tolist() == ["long.mp4", *SOUND, "picture.png"]
    assert cache.settings["sampling"] == {
        "name": "windows", "window_seconds": 1.0, "stride_seconds": 0.5, "clip_fps": 4.0
    }  # fmt: skip
    settings = replace(tiny_settings, **WINDOWS)  # type: ignore[arg-type]
    backbones = Backbones(settings, Compute.choose(settings))
    clip_offset, window_offset = cache.offset("clip"), cache.offset("slowfast")
    assert np.diff(window_offset).tolist()[0] == 39  # windows in 20 s
    assert np.diff(clip_offset).tolist()[0] == 80
    assert (np.diff(clip_offset)[-1], np.diff(window_offset)[-1]) == (1, 0)
    for i, name in enumerate(cache.media["id"].tolist()):
        kept = Kept(*backbones.outputs)
        found = sample(data / name, sampling=settings.sampler, limits=Limits.of(settings), sink=kept)
        clip, windows = (slice(*offset[i : i + 2].tolist()) for offset in (clip_offset, window_offset))
        np.testing.assert_allclose(cache.rows("clip", "time_seconds")[clip], found.clip_seconds, rtol=1e-6)
        starts, ends = (cache.rows("slowfast", f"{end}_seconds")[windows] for end in ("start", "end"))
        np.testing.assert_allclose(starts, found.window_start_seconds, rtol=1e-6)
        np.testing.assert_allclose(ends, found.window_end_seconds, rtol=1e-6)
        none = np.empty((0,), np.uint8)
        inputs = [(frame[None], none) for frame in kept.frames(0)]
        inputs += [(none, arrays[1][None]) for arrays in kept.published if len(arrays[1])]
        alone = []
        for arrays in inputs:
            frames = {s: torch.from_numpy(a) for s, a in zip(("clip", "slowfast"), arrays, strict=True)}
            alone += backbones.start(frames, {s: [len(a)] for s, a in frames.items()}).result()[0]
        for stream, name, rows in (
            ("clip", "features", clip),
            ("slowfast", "features", windows),
            ("slowfast", "logits", windows),
        ):
            theirs = np.concatenate([features[f"{stream}/{name}"] for features in alone])
            np.testing.assert_allclose(cache.rows(stream, name)[rows], theirs, atol=2e-3)


def test_the_same_input_gives_the_same_cache(data: Path, run: Callable[..., Extraction]) -> None:
    manifest = manifest_of(data, ["long.mp4", *SOUND])
    caches = [Cache.open(run(manifest, f"{n}", workers=n, **WINDOWS).cache) for n in (1, 3)]
    for stream, name in (("clip", "features"), ("slowfast", "features"), ("slowfast", "logits")):
        np.testing.assert_allclose(caches[0].rows(stream, name), caches[1].rows(stream, name), atol=2e-3)
    assert (caches[0].offset("slowfast") == caches[1].offset("slowfast")).all()


def test_a_video_whose_worker_was_ended_midway_is_whole(
    data: Path, run: Callable[..., Extraction], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows contain nothing of the first attempt."""
    undisturbed = Cache.open(run(manifest_of(data, ["long.mp4"]), "undisturbed", **WINDOWS).cache)
    shutil.copy2(data / "long.mp4", data / "terminated_midway.mp4")
    monkeypatch.setattr(pool, "_sample_into_slot", poison.sample_into_slot)
    cache = Cache.open(run(manifest_of(data, ["terminated_midway.mp4", "sound.mp4"]), **WINDOWS).cache)
    assert (data / "terminated_midway.tried").exists()
    num_rows = int(cache.offset("clip")[1])
    assert num_rows == undisturbed.offset("clip")[1]
    ours = cache.rows("clip", "features")[:num_rows]
    np.testing.assert_allclose(ours, undisturbed.rows("clip", "features"), atol=2e-3)


def test_samplings_never_mix(data: Path, run: Callable[..., Extraction], no_models: Callable[[], None]) -> None:
    manifest = manifest_of(data, ["sound.mp4"])
    assert run(manifest, **WINDOWS).num_new == 1
    no_models()
    assert run(manifest, **WINDOWS).num_new == 0
    with pytest.raises(SettingsConflictError, match=r"sampling\.name: 'windows' in the cache, 'uniform' here"):
        run(manifest_of(data, ["sound.mp4", "vfr.mp4"]))
    with pytest.raises(SettingsConflictError, match=r"sampling\.stride_seconds: 0\.5 in the cache, 1\.0 here"):
        run(manifest, **{**WINDOWS, "stride_seconds": None})


def test_a_damaged_video_is_reported_by_validate_too(data: Path, tmp_path: Path) -> None:
    """Every frame is decoded although no model needs it."""
    content = bytearray((data / "long.mp4").read_bytes())
    content[-len(content) // 4 : -len(content) // 4 + 200] = bytes(200)
    (data / "late.mp4").write_bytes(content)
    manifest_of(data, ["long.mp4", "late.mp4", "picture.png"])
    arguments = [str(data / "labels.csv"), "--sampling", "windows", "--out", str(tmp_path / "found.csv")]
    result = CliRunner().invoke(haechi.cli.main, ["validate", *arguments])
    assert result.exit_code == 0, result.output
    with (tmp_path / "found.csv").open() as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert [rows[name]["reason"] for name in ("long.mp4", "late.mp4", "picture.png")] == ["", "damaged", ""]
    assert rows["long.mp4"]["num_frames"] == "200"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--clip-fps", "3"], "clip_fps is 3.0, but is for --sampling windows"),
        (["--sampling", "windows", "--frames", "8"], "frames is 8, but is for --sampling uniform"),
        (["--sampling", "windows", "--stride-seconds", "3"], "stride_seconds is 3, expected 0.125 to 2"),
        (
            ["--sampling", "windows", "--window-seconds", "nan"],
            "window_seconds is nan, expected a number at least 0.1 and at most 3600",
        ),
        (["--sampling", "windows", "--clip-fps", "0.25"], "clip_fps is 0.25, expected at least 0.5"),
    ],
)
def test_flags_that_do_not_fit(data: Path, tmp_path: Path, flags: list[str], message: str) -> None:
    result = CliRunner().invoke(haechi.cli.main, ["extract", str(data), "--out", str(tmp_path / "c"), *flags])
    assert result.exit_code == 1
    assert message in " ".join(result.output.split())
