"""The comparison runs from end to end, with the same folds for all contestants; its figures agree with scikit-learn."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score

from bench import choices, measure
from haechi.cache.reader import Cache
from haechi.train.data.dataset import Dataset, load_dataset
from haechi.train.settings import TrainSettings
from tests.synthetic import write_cache

SETTINGS = TrainSettings.from_preset("fast", epochs=2, projection=8, feedforward=8, device="cpu")
GROUPS = {f"video-{i:04d}.mp4": f"scene-{i // 2}" for i in range(60)}


def load(path: Path) -> Dataset:
    write_cache(path, num_harmful=36, num_safe=24, shift=0.1, groups=GROUPS)
    return load_dataset(Cache.open(path), SETTINGS)


def test_quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = write_cache(tmp_path / "cache", num_harmful=36, num_safe=24, groups=GROUPS)
    monkeypatch.setattr(choices, "ALTERNATIVES", {"default": {}, "cosine": {"schedule": "cosine"}})
    flags = ["--data", str(cache), "--out", str(tmp_path), "--rounds", "2", "--quick"]
    choices.main.main(flags, standalone_mode=False)
    result = json.loads((tmp_path / f"choices-{measure.device_kind()}.json").read_text())
    assert (result["num_videos"], result["num_harmful"], result["num_groups"]) == (60, 36, 30)
    assert result["default"]["preset"] == "fast"
    rows = {row["what"]: row for row in result["rows"]}
    assert all(np.isfinite(row["median"]) and row["rounds"] == 2 for row in rows.values())
    for name in ("logistic regression", "default", "cosine"):
        assert 0 <= rows[f"{name}: {choices.FIGURES['pooled_auc']}"]["median"] <= 1
    assert f"cosine less default: {choices.FIGURES['fold_auc']}" in rows
    assert not any(what.startswith("default less") for what in rows)


def test_folds_are_the_same_for_all_and_keep_groups_whole(tmp_path: Path) -> None:
    dataset = load(tmp_path)
    folds, others = (
        list(choices.trained_folds(dataset, settings))
        for settings in (SETTINGS, dataclasses.replace(SETTINGS, loss="focal"))
    )
    for part in ("train", "val", "test"):
        for ours, theirs in zip(folds, others, strict=True):
            assert (choices.part_rows(ours, part) == choices.part_rows(theirs, part)).all()
    assert sorted(np.concatenate([choices.part_rows(fold, "test") for fold in folds])) == list(range(60))
    for fold in folds:
        inside = set(dataset.groups[choices.part_rows(fold, "test")])
        assert not inside & set(np.delete(dataset.groups, choices.part_rows(fold, "test")))


def test_figures_are_those_of_scores_out_of_fold(tmp_path: Path) -> None:
    dataset = load(tmp_path)
    folds = list(choices.trained_folds(dataset, SETTINGS))
    rng = np.random.default_rng(0)
    scores = [rng.random(60) for _ in folds]
    for fold, fold_scores in zip(folds, scores, strict=True):  # the threshold is the middle of 0.4 and 0.6
        val = choices.part_rows(fold, "val")
        fold_scores[val] = np.where(dataset.labels[val] == 1, 0.6, 0.4)
    found = choices.fold_figures(dataset, folds, scores)
    out_of_fold, parts = np.empty(60), []
    for fold, fold_scores in zip(folds, scores, strict=True):
        test = choices.part_rows(fold, "test")
        out_of_fold[test] = fold_scores[test]
        parts.append((dataset.labels[test], fold_scores[test]))
    assert found["pooled_auc"] == roc_auc_score(dataset.labels, out_of_fold)
    assert found["fold_auc"] == pytest.approx(np.mean([roc_auc_score(y, s) for y, s in parts]))
    assert found["f1"] == pytest.approx(np.mean([f1_score(y, s >= 0.5) for y, s in parts]))
    expected = np.mean([balanced_accuracy_score(y, s >= 0.5) for y, s in parts])
    assert found["balanced_accuracy"] == pytest.approx(expected)


def test_wandering_is_that_of_the_epochs_thresholds(tmp_path: Path) -> None:
    folds = list(choices.trained_folds(load(tmp_path), SETTINGS))
    thresholds = [[epoch.best.threshold for epoch in fold.epochs] for fold in folds]
    assert choices.training_figures(folds)["wandering"] == pytest.approx(np.mean([np.std(each) for each in thresholds]))
    assert choices.training_figures(folds)["wandering"] > 0
