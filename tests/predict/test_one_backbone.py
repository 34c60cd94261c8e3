"""CLIP or SlowFast alone, through the command line: from videos to predictions."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from haechi.cache.integrity.verify import verify
from haechi.cache.reader import Cache
from haechi.extract.samples import write_sample_images, write_sample_set
from tests.extract import clips
from tests.miniature import shrink_slowfast
from tests.predict.conftest import QUICK, call

COMPUTE = ["--device", "cpu", "--precision", "fp32", "--workers", "2"]
SLOWFAST = ["--slowfast-weights", "random:0"]
NO_SLOWFAST, NO_CLIP = ["--slowfast-model", "none"], ["--clip-model", "none"]
SAMPLINGS = {
    "uniform": ["--frames", "8"],
    "windows": ["--sampling", "windows", "--window-seconds", "0.5", "--clip-fps", "4"],
}


@pytest.fixture(scope="module", params=SAMPLINGS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder with `videos`, and the caches `both`, `clip` and `slowfast` of them; and the flags of CLIP."""
    folder = tmp_path_factory.mktemp("one")
    name, weights = clips.write_clip(folder)
    list(write_sample_set(folder / "videos", num_harmful=4, num_safe=4))
    list(write_sample_images(folder / "videos", num_harmful=1, num_safe=1))
    clip = ["--clip-model", name, "--clip-weights", str(weights)]
    how = [*SAMPLINGS[request.param], *COMPUTE]
    with pytest.MonkeyPatch.context() as patch:
        shrink_slowfast(patch)
        for out, flags in (("both", clip + SLOWFAST), ("clip", clip + NO_SLOWFAST), ("slowfast", SLOWFAST + NO_CLIP)):
            done = call("extract", folder / "videos", "--out", folder / out, *flags, *how, "--json")
            assert done.exit_code == 0, done.output
    return folder, clip


def rows(path: Path, stream: str) -> dict[str, np.ndarray]:
    """Id -> the features of its rows in a stream."""
    cache = Cache.open(path)
    offset = cache.offset(stream)[1:-1]
    return dict(zip(cache.media["id"].tolist(), np.split(cache.rows(stream, "features"), offset), strict=True))


@pytest.mark.parametrize(("stream", "other"), [("clip", "slowfast"), ("slowfast", "clip")])
def test_features_are_those_of_a_cache_with_both(made: tuple[Path, list[str]], stream: str, other: str) -> None:
    folder, _ = made
    both, alone = rows(folder / "both", stream), rows(folder / stream, stream)
    images = {id for id in both if not id.endswith(".mp4")}
    assert len(images) == 2
    assert both.keys() - alone.keys() == (images if stream == "slowfast" else set())
    for id, expected in alone.items():
        np.testing.assert_allclose(expected, both[id], rtol=1e-2, atol=1e-3)
    left_out = rows(folder / stream, other)
    assert {id: values.shape for id, values in left_out.items()} == {
        id: (len(values), 0) for id, values in rows(folder / "both", other).items() if id in left_out
    }
    for name in ("clip/time_seconds", "slowfast/start_seconds", "slowfast/end_seconds"):
        caches = [Cache.open(folder / cache) for cache in ("both", stream)]
        assert set(caches[1].rows(*name.split("/")).tolist()) <= set(caches[0].rows(*name.split("/")).tolist())
    assert verify(folder / stream).problems == []


def test_clip_alone(made: tuple[Path, list[str]], tmp_path: Path) -> None:
    """It is inspected, verified, searched and trained on without another flag, and the head judges files with CLIP."""
    folder, clip = made
    cache, run = folder / "clip", tmp_path / "run"
    assert "slowfast      not extracted (--slowfast-model none)" in call("inspect", cache).output
    summary = json.loads(call("inspect", cache, "--json").output)
    assert (summary["untrained"], summary["zero_rows"]) == ([], 0)
    assert summary["settings"]["slowfast"]["model"] == "none"
    video = json.loads(call("inspect", cache, "--video", "harmful/harmful-00.mp4", "--json").output)
    assert video["slowfast"]["norm"] == video["actions"] == []
    assert len(video["slowfast"]["start_seconds"]) == len(video["slowfast"]["end_seconds"]) > 0
    assert "window; the features were not extracted" in call("inspect", cache, "--video", "safe/safe-00.mp4").output
    assert call("verify", cache).exit_code == 0
    assert "harmful-0" in call("search", cache, "people", *clip).output

    done = call("train", cache, "--out", run, *QUICK)
    assert done.exit_code == 0, done.output
    assert "no SlowFast features in this cache: the head sees CLIP alone (--slowfast none)" in said(done.output)
    settings = json.loads((run / "metrics.json").read_text())["settings"]
    assert (settings["clip"], settings["slowfast"], settings["scenes"]) == (True, "none", True)
    agrees(run, folder, ["harmful/harmful-00.mp4", "safe/safe-01.mp4"], clip)
    evaluated = call("evaluate", run, folder / "both", "--out", tmp_path / "evaluation")
    assert evaluated.exit_code == 1
    assert "slowfast.model: 'none' in the run, 'slowfast_r50' here" in said(evaluated.output)
    evaluated = call("evaluate", run, cache, "--out", tmp_path / "evaluation", "--keep-overlap")
    assert evaluated.exit_code == 0, evaluated.output


def test_slowfast_alone(made: tuple[Path, list[str]], tmp_path: Path) -> None:
    """It is trained on without another flag and without scenes, and cannot be searched; images cannot be used."""
    folder, _ = made
    cache, run = folder / "slowfast", tmp_path / "run"
    assert "clip          not extracted (--clip-model none)" in call("inspect", cache).output
    assert json.loads(call("inspect", cache, "--json").output)["failures"] == {"no_motion": 2, "not_media": 1}
    assert call("verify", cache).exit_code == 0
    searched = call("search", cache, "people")
    assert searched.exit_code == 1
    assert "extracted without CLIP (--clip-model none)" in said(searched.output)

    done = call("train", cache, "--out", run, *QUICK)
    assert done.exit_code == 0, done.output
    assert "no CLIP features in this cache: the head sees SlowFast alone (--no-clip)" in said(done.output)
    assert "near-duplicate videos are not searched, only equal files (--no-scenes)" in said(done.output)
    settings = json.loads((run / "metrics.json").read_text())["settings"]
    assert (settings["clip"], settings["slowfast"], settings["scenes"]) == (False, "logits", False)
    agrees(run, folder, ["harmful/harmful-00.mp4", "safe/safe-01.mp4"], [])
    evaluated = call("evaluate", run, cache, "--out", tmp_path / "evaluation", "--keep-overlap")
    assert evaluated.exit_code == 0, evaluated.output
    image = call("predict", run, folder / "videos" / "safe" / "safe-00.jpg", *COMPUTE, "--json")
    assert (image.exit_code, json.loads(image.stdout)["reason"]) == (3, "no_motion")


def agrees(run: Path, folder: Path, ids: list[str], clip: list[str]) -> None:
    """`predict` gives files the scores that training wrote down, and a score to each window."""
    with (run / "predictions.csv").open(encoding="utf-8", newline="") as file:
        expected = {row["id"]: float(row["score"]) for row in csv.DictReader(file)}
    done = call("predict", run, *(folder / "videos" / id for id in ids), *clip, *COMPUTE, "--json")
    assert done.exit_code == 0, done.output
    found = [json.loads(line) for line in done.stdout.splitlines()]
    np.testing.assert_allclose([each["score"] for each in found], [expected[id] for id in ids], atol=1e-3)
    windows = rows(folder / "both", "slowfast")
    assert [len(each["windows"]) for each in found] == [len(windows[id]) for id in ids]


def said(output: str) -> str:
    """Output without line breaks."""
    return " ".join(output.split())


def test_neither_is_refused(tmp_path: Path) -> None:
    done = call("extract", tmp_path, "--out", tmp_path / "cache", *NO_CLIP, *NO_SLOWFAST)
    assert done.exit_code == 1
    assert "clip_model and slowfast_model are both 'none': nothing is left to extract" in said(done.output)


def test_weights_of_a_model_that_is_left_out_are_refused(tmp_path: Path) -> None:
    done = call("extract", tmp_path, "--out", tmp_path / "cache", *SLOWFAST, *NO_SLOWFAST)
    assert done.exit_code == 1
    assert "slowfast_weights is 'random:0', but slowfast_model is 'none'" in said(done.output)


def test_a_cache_is_not_continued_with_another_choice(made: tuple[Path, list[str]]) -> None:
    folder, clip = made
    how = SAMPLINGS[Cache.open(folder / "clip").settings["sampling"]["name"]]
    for cache, flags, expected in (
        ("clip", clip + SLOWFAST, "slowfast.model: 'none' in the cache, 'slowfast_r50' here"),
        ("both", clip + NO_SLOWFAST, "slowfast.model: 'slowfast_r50' in the cache, 'none' here"),
        ("both", SLOWFAST + NO_CLIP, "in the cache, 'none' here"),
    ):
        done = call("extract", folder / "videos", "--out", folder / cache, *flags, *how, *COMPUTE)
        assert done.exit_code == 1
        assert expected in said(done.output)
        assert said(done.output).count("' here") == 1
    done = call("extract", folder / "videos", "--out", folder / "clip", *clip, *NO_SLOWFAST, *how, *COMPUTE)
    assert done.exit_code == 0
    assert "everything is in the cache" in done.output
