"""New media get the same scores as the media of the run."""

import contextlib
import csv
import io
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import haechi
from haechi.cache.errors import HaechiError, SettingsConflictError, SettingsError
from haechi.cache.reader import Cache
from haechi.predict import classifier as classifier_module
from haechi.predict.classifier import Classifier
from haechi.predict.cli import SOME_NOT_JUDGED
from haechi.predict.prediction import Prediction
from haechi.train.errors import TrainError
from tests.predict.conftest import call, flags

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def classifier(folder: Path) -> Classifier:
    return Classifier.load(folder / "run", clip_model=f"local-dir:{folder / 'clip'}", device="cpu", precision="fp32")


def run_predictions(folder: Path, run: str = "run") -> dict[str, dict[str, str]]:
    with (folder / run / "predictions.csv").open(encoding="utf-8") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def test_scores_are_those_of_extraction_and_training(folder: Path, classifier: Classifier) -> None:
    predictions = classifier.predict([folder / "videos"])
    judged = {Path(p.id).relative_to(folder / "videos").as_posix(): p for p in predictions}
    assert list(judged) == sorted(judged)
    failed = judged.pop("safe/cut-off.mp4")
    assert (failed.reason, failed.score, failed.is_harmful, failed.windows) == ("not_media", None, None, ())
    expected = run_predictions(folder)
    assert judged.keys() == expected.keys()
    for id, prediction in judged.items():
        row = expected[id]
        assert prediction.score == pytest.approx(float(row["score"]), abs=1e-4)
        assert prediction.calibrated == pytest.approx(float(row["calibrated"]), abs=1e-4)
        assert prediction.threshold == pytest.approx(float(row["threshold"]))
        assert prediction.is_harmful == (row["prediction"] == "harmful" or row["prediction"] == "1")
        (window,) = prediction.windows
        assert (window.start_seconds, window.score) == (0.0, prediction.score)
        assert window.end_seconds == pytest.approx(prediction.duration_seconds)


def test_a_cache_gives_the_same(folder: Path, classifier: Classifier) -> None:
    from_cache = {p.id: p for p in classifier.predict_cache(Cache.open(folder / "cache")) if p.reason != "no_head"}
    expected = run_predictions(folder)
    assert from_cache.keys() == expected.keys() | {"safe/cut-off.mp4"}
    for id, row in expected.items():
        assert from_cache[id].score == pytest.approx(float(row["score"]), abs=1e-6)
    assert from_cache["safe/cut-off.mp4"].reason == "not_media"


def test_a_second_call_loads_nothing_anew(folder: Path, classifier: Classifier) -> None:
    path = folder / "videos" / "safe" / "safe-00.mp4"
    (first,) = classifier.predict([path])
    backbones = classifier._backbones
    (second,) = classifier.predict([str(path)])
    assert second == first
    assert classifier._backbones is backbones


def test_other_weights_are_refused_by_name(folder: Path) -> None:
    other = Classifier.load(
        folder / "run", clip_model=f"local-dir:{folder / 'clip'}", clip_weights="random:1", frames=4, device="cpu"
    )
    with pytest.raises(SettingsConflictError) as caught:
        other.predict([folder / "videos"])
    assert "clip.weights_sha256: " in str(caught.value)
    assert "sampling.frames: 8 in the run, 4 here" in str(caught.value)


def test_a_cache_of_other_features_is_refused(folder: Path, classifier: Classifier, tmp_path: Path) -> None:
    videos = folder / "videos" / "safe"
    weights = ["--clip-weights", "random:0", "--slowfast-weights", "random:0"]
    assert call("extract", videos, "--out", tmp_path / "c", *flags(folder), *weights, "--frames", 4).exit_code == 0
    with pytest.raises(SettingsConflictError, match=r"sampling\.frames: 8 in the run, 4 here"):
        classifier.predict_cache(Cache.open(tmp_path / "c"))


def test_the_path_of_a_local_clip_is_needed(folder: Path) -> None:
    with pytest.raises(SettingsConflictError, match="--clip-model local-dir:PATH"):
        Classifier.load(folder / "run").predict(folder / "videos")


def test_a_cache_needs_no_backbone(folder: Path) -> None:
    found = Classifier.load(folder / "run").predict_cache(Cache.open(folder / "cache"))
    assert sum(each.score is not None for each in found) == 8
    assert call("predict", folder / "run", "--cache", folder / "cache").exit_code == SOME_NOT_JUDGED


def test_what_is_not_a_run_is_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(TrainError, match="no such file"):
        Classifier.load(tmp_path)
    (tmp_path / "model.pt").write_bytes(b"no model")
    with pytest.raises(TrainError, match=r"not a model\.pt"):
        Classifier.load(tmp_path / "model.pt")
    with pytest.raises(SettingsError, match="precision is 'fp8'"):
        Classifier.load(folder / "run", clip_model=f"local-dir:{folder / 'clip'}", precision="fp8")
    with pytest.raises(SettingsError, match="no such settings: 'dev'; the settings are sampling, frames"):
        Classifier.load(folder / "run", clip_model=f"local-dir:{folder / 'clip'}", dev="cpu")


def test_nothing_to_judge(tmp_path: Path, classifier: Classifier) -> None:
    with pytest.raises(HaechiError, match="nothing to judge: no videos or images found"):
        classifier.predict([tmp_path])


def test_one_path_is_one_item(
    folder: Path, classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The "." in a name is not the working directory, in which there is a video."""
    shutil.copy(folder / "videos" / "safe" / "safe-00.mp4", tmp_path / "bystander.mp4")
    monkeypatch.chdir(tmp_path)
    for name in ("a.mp4", Path("a.mp4")):
        (prediction,) = classifier.predict(name)
        assert (prediction.id, prediction.reason) == ("a.mp4", "missing")


def test_runs_may_be_given_in_a_list(folder: Path) -> None:
    options = {"clip_model": f"local-dir:{folder / 'clip'}", "device": "cpu"}
    assert set(Classifier.load(str(folder / "run"), **options).models) == {"video"}
    assert set(Classifier.load([folder / "run", str(folder / "image-run")], **options).models) == {"video", "image"}


@pytest.mark.parametrize("runs", [[], [[]]])
def test_no_run_is_refused_in_words(runs: list[list[str]]) -> None:
    with pytest.raises(HaechiError, match="no run to load; pass the folder"):
        Classifier.load(*runs)


def test_no_entries_start_nothing(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("started")

    monkeypatch.setattr(classifier_module, "open_flow", fail)
    assert list(classifier.judge([])) == []


def test_a_prediction_is_a_score_or_a_reason(folder: Path, classifier: Classifier) -> None:
    missing: Prediction
    (missing,) = classifier.predict([folder / "nowhere.mp4"])
    assert (missing.reason, missing.score) == ("missing", None)


def test_the_example_of_the_readme(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Word for word, with tiny networks, few frames and few epochs."""
    code = re.search(r"<!-- api.*?```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert code is not None
    monkeypatch.chdir(tmp_path)
    videos = sorted((folder / "videos").glob("*/*-0[0-9].mp4"))
    rows = [f"{path},{path.parent.name}\n" for path in videos]
    (tmp_path / "labels.csv").write_text("path,label\n" + "".join(rows), encoding="utf-8")
    shutil.copy(folder / "videos" / "safe" / "cut-off.mp4", tmp_path / "upload.mp4")
    shutil.copytree(folder / "videos" / "harmful", tmp_path / "inbox")
    clip: dict[str, Any] = {"clip_model": f"local-dir:{folder / 'clip'}", "device": "cpu"}
    weights = {"clip_weights": "random:0", "slowfast_weights": "random:0"}
    one_split: dict[str, Any] = {"folds": 0, "test_fraction": 0.0, "val_fraction": 0.5}
    extract_features, train_head, load = haechi.extract_features, haechi.train_head, Classifier.load
    monkeypatch.setattr(haechi, "extract_features", partial(extract_features, frames=8, workers=1, **clip, **weights))
    monkeypatch.setattr(haechi, "train_head", partial(train_head, epochs=2, device="cpu", **one_split))
    monkeypatch.setattr(Classifier, "load", partial(load, workers=1, **clip))
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code[1], {})
    assert (tmp_path / "out" / "run" / "report.html").is_file()
    assert len(Cache.open(tmp_path / "out" / "cache").media["id"]) == len(videos) == 8
    lines = printed.getvalue().splitlines()
    assert lines[0] == "upload.mp4 None None not_media"
    assert [line.split()[0] for line in lines[1:]] == [f"inbox/harmful-0{i}.mp4" for i in range(4)]
    assert all(0 <= float(line.split()[1]) <= 1 for line in lines[1:])


def test_each_kind_is_judged_by_its_head(folder: Path) -> None:
    """One call on a folder of videos and images, with two heads trained on one cache."""
    runs = folder / "run", folder / "image-run"
    both = Classifier.load(*runs, clip_model=f"local-dir:{folder / 'clip'}", device="cpu", precision="fp32")
    expected = run_predictions(folder) | run_predictions(folder, "image-run")
    assert len(expected) == 8 + 12
    from_media = {Path(p.id).relative_to(folder / "both").as_posix(): p for p in both.predict([folder / "both"])}
    from_cache = {p.id: p for p in both.predict_cache(Cache.open(folder / "cache"))}
    for found in (from_media, from_cache):
        assert found.keys() == expected.keys() | {"safe/cut-off.mp4"}
        assert found["safe/cut-off.mp4"].reason == "not_media"
        for id, row in expected.items():
            assert found[id].kind == ("video" if id.endswith(".mp4") else "image")
            assert found[id].score == pytest.approx(float(row["score"]), abs=1e-4)
            assert found[id].threshold == pytest.approx(float(row["threshold"]))
            assert len(found[id].windows) == (found[id].kind == "video")


def test_media_without_a_head_have_a_reason(folder: Path, classifier: Classifier) -> None:
    (prediction,) = classifier.predict([folder / "images" / "safe" / "safe-00.jpg"])
    assert (prediction.reason, prediction.score, prediction.threshold) == ("no_head", None, None)
    assert prediction.message == "an image, and no run for images was given (--also RUN)"


def test_two_runs_of_one_kind_are_refused(folder: Path) -> None:
    with pytest.raises(HaechiError, match="a second run for videos"):
        Classifier.load(folder / "run", folder / "run", clip_model=f"local-dir:{folder / 'clip'}")
