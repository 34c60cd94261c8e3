"""Videos of slides and stills: the cache is the same with and without computing identical frames once."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import haechi.cli
from haechi.cache.reader import Cache
from haechi.cache.schema import STREAMS
from haechi.extract.backbones.pair import Backbones
from haechi.extract.pipeline import Extraction
from haechi.extract.samples import scene, write_video
from haechi.extract.settings import ExtractSettings
from tests.extract.conftest import manifest_of

WINDOWS = {"sampling": "windows", "window_seconds": 1.0, "clip_fps": 8.0, "frames": 32}


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide show of 20 s with a slide for 5 s each, three stills, and a video in which things move."""
    folder = tmp_path_factory.mktemp("slides")
    pictures = [scene(seed=seed, restless=False, num_frames=1)[0] for seed in range(7)]
    write_video(folder / "show.mp4", [pictures[i // 50] for i in range(200)], fps=10)
    for i in range(4, 7):
        write_video(folder / f"still-{i}.mp4", pictures[i : i + 1] * 20, fps=10)
    write_video(folder / "moving.mp4", scene(seed=9, restless=True, num_frames=30), fps=10)
    return folder


@pytest.mark.parametrize("changes", [{}, WINDOWS, {"slowfast_model": "none", "slowfast_weights": "kinetics400"}])
@pytest.mark.parametrize("workers", [1, 3])
def test_the_cache_is_the_same(
    slides: Path,
    run: Callable[..., Extraction],
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, object],
    workers: int,
) -> None:
    manifest = manifest_of(slides, ["show.mp4", "still-4.mp4", "moving.mp4", "still-5.mp4", "still-6.mp4"])
    # Each batch has one piece of a video: pieces come in any order, and last bits depend on how many share a batch.
    options = {"store": "float32", "workers": workers, "batch_windows": 1, **changes}
    once = run(manifest, "once", **options)
    monkeypatch.setattr(Backbones, "computes_repeats_once", False)
    always = run(manifest, "always", **options)
    assert always.num_saved == {"clip": 0, "slowfast": 0}
    assert once.num_saved["clip"] >= 8
    assert (once.num_saved["slowfast"] > 0) == (changes == WINDOWS)
    found, expected = Cache.open(once.cache), Cache.open(always.cache)
    assert found.media["id"].tolist() == expected.media["id"].tolist()
    for stream, arrays in STREAMS.items():
        for name in arrays:
            np.testing.assert_array_equal(found.rows(stream, name), expected.rows(stream, name))


def test_the_summary_says_what_was_saved(slides: Path, tmp_path: Path, tiny_settings: ExtractSettings) -> None:
    (slides / "show.csv").write_text("path\nshow.mp4\n")
    flags = ["--clip-model", tiny_settings.clip_model, "--clip-weights", "random:0", "--slowfast-weights", "random:0"]
    windows = ["--sampling", "windows", "--window-seconds", "1", "--device", "cpu", "--precision", "fp32"]
    command = ["extract", str(slides / "show.csv"), *flags, *windows, "--out"]
    shown = CliRunner().invoke(haechi.cli.main, [*command, str(tmp_path / "a")])
    assert shown.exit_code == 0, shown.output
    found = CliRunner().invoke(haechi.cli.main, [*command, str(tmp_path / "b"), "--json"])
    saved = json.loads(found.stdout)["num_saved"]
    assert saved.keys() == {"clip", "slowfast"}
    assert f"not computed      {saved['clip']} frames and {saved['slowfast']} windows identical to the one before" in (
        shown.output
    )
