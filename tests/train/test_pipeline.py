import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from haechi.train.data.dataset import Dataset
from haechi.train.data.split import inner_folds
from haechi.train.evaluate.metrics import metrics_at
from haechi.train.evaluate.threshold import choose_shrunk_threshold
from haechi.train.experiment import prepare, train_once
from haechi.train.model import regression
from haechi.train.model.head import build_head
from haechi.train.model.judge import Judge
from haechi.train.model.moments import choose_parts, fit_moments, use_parts
from haechi.train.model.regression import class_weights, fit_regression, regression_logits
from haechi.train.model.scores import compute_logits, compute_scores
from haechi.train.pipeline import carry_out
from haechi.train.plan import Grouping, Plan, make_plan
from haechi.train.policy import Policy
from haechi.train.settings import TrainSettings
from tests.train import runs
from tests.train.planted import plant

FOLDS = dataclasses.replace(runs.QUICK, folds=4)


def test_the_test_part_is_judged_at_the_threshold_that_val_chose(tmp_path: Path) -> None:
    result = runs.finish(
        tmp_path / "cache", dataclasses.replace(runs.QUICK, test_fraction=0.3), num_harmful=15, num_safe=15, shift=0.1
    )
    rows = result.split.rows("test")
    assert 8 <= len(rows) <= 10
    assert result.threshold == result.epochs[result.best_epoch - 1].best.threshold
    assert result.metrics["test"] == metrics_at(result.scores[rows], result.labels[rows], result.threshold)


def test_labels_of_the_test_part_change_nothing_but_its_figures(tmp_path: Path) -> None:
    splits = {f"video-{i:04d}.mp4": ("train", "val", "test")[i % 3] for i in range(40)}
    dataset, split = runs.prepare(tmp_path / "cache", num_harmful=20, num_safe=20, shift=0.1, splits=splits)
    labels = dataset.labels.copy()
    labels[split.rows("test")] = 1 - labels[split.rows("test")]
    one, other = (runs.carry_on(d) for d in (dataset, dataclasses.replace(dataset, labels=labels)))
    assert (one.scores == other.scores).all()
    assert (one.calibrated == other.calibrated).all()
    assert one.threshold == other.threshold
    assert (one.baselines["logistic_regression"].scores == other.baselines["logistic_regression"].scores).all()
    assert one.metrics["val"] == other.metrics["val"]
    assert one.metrics["test"] != other.metrics["test"]


def test_in_cross_validation_each_video_is_judged_by_a_head_that_never_saw_it(tmp_path: Path) -> None:
    result = runs.finish(tmp_path / "cache", FOLDS, num_harmful=16, num_safe=16, shift=0.1)
    assert set(result.fold) == {1, 2, 3, 4}
    for fold in result.folds:
        rows = np.flatnonzero(result.fold == fold.number)
        assert (fold.split.rows("test") == rows).all()
        assert (result.thresholds[rows] == fold.threshold).all()
        assert fold.figures == metrics_at(result.scores[rows], result.labels[rows], fold.threshold)
        assert fold.best_epoch == [epoch.number for epoch in fold.epochs if epoch.improved][-1]
    assert result.best_epoch == round(np.median([fold.best_epoch for fold in result.folds]))
    assert result.metrics["test"]["true_positive"] == sum(fold.figures["true_positive"] for fold in result.folds)
    assert result.pos_weight == 1.0  # of all videos: the head that is kept was trained on them


def test_the_same_folds_give_the_same_head(tmp_path: Path) -> None:
    one = runs.finish(tmp_path / "a", FOLDS, shift=0.2)
    two = runs.finish(tmp_path / "b", FOLDS, shift=0.2)
    assert (one.scores == two.scores).all()
    for name, value in one.head.state_dict().items():
        assert (value == two.head.state_dict()[name]).all()


FAST = TrainSettings.from_preset("fast", device="cpu", scenes=False, slowfast="none", moments=4)


def with_features(path: Path, what: str, settings: TrainSettings, *, num_videos: int = 60) -> Dataset:
    """A dataset of a small cache, whose videos have features from `planted`."""
    dataset, _ = runs.prepare(path, settings, num_harmful=num_videos // 2, num_safe=num_videos // 2)
    return dataclasses.replace(dataset, features=plant(what, dataset.labels))


def planned(dataset: Dataset, settings: TrainSettings) -> Plan:
    return make_plan(dataset, Grouping.find(dataset, settings), settings)


@pytest.mark.parametrize("what", ["ramp", "nothing"])
def test_labels_of_a_folds_own_test_videos_change_nothing_but_its_figures(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither threshold nor epoch, strength, moments, scores or calibration of that fold."""
    monkeypatch.setattr(regression, "PRIOR_DEVIATIONS", (0.2, 0.8, 3.2))  # to save time
    settings = dataclasses.replace(FAST, folds=3)
    plan = planned(with_features(tmp_path, what, settings), settings)
    expected = carry_out(plan)
    assert {fold.best_epoch for fold in expected.folds} == ({1} if what == "ramp" else {0})
    for fold in expected.folds:
        rows = fold.split.rows("test")
        labels = plan.dataset.labels.copy()
        labels[rows] = 1 - labels[rows]
        result = carry_out(dataclasses.replace(plan, dataset=dataclasses.replace(plan.dataset, labels=labels)))
        found = result.folds[fold.number - 1]
        for name in ("threshold", "best_epoch", "num_chosen_on", "met", "val_figures"):
            assert getattr(found, name) == getattr(fold, name)
        plain = [[dataclasses.replace(epoch, seconds=0) for epoch in each.epochs] for each in (found, fold)]
        assert plain[0] == plain[1]
        for name in ("scores", "calibrated", "thresholds"):
            assert (getattr(result, name)[rows] == getattr(expected, name)[rows]).all()
        for name, baseline in expected.baselines.items():
            assert (result.baselines[name].scores[rows] == baseline.scores[rows]).all()
            assert (result.baselines[name].thresholds[rows] == baseline.thresholds[rows]).all()
        assert found.figures != fold.figures
        others = np.setdiff1d(np.arange(len(labels)), rows)  # in their folds these videos are trained on
        assert (result.scores[others] != expected.scores[others]).all()


@pytest.mark.parametrize("what", ["ramp", "nothing"])
def test_a_fold_chooses_on_held_out_scores_of_all_other_videos(tmp_path: Path, what: str) -> None:
    settings = dataclasses.replace(FAST, folds=3)
    plan = planned(with_features(tmp_path, what, settings), settings)
    dataset, labels = plan.dataset, plan.dataset.labels
    split = plan.splits[1]
    trained = train_once(prepare(dataset, settings, split, groups=plan.groups, nested=True))
    rows = np.flatnonzero(split.names != "test")
    assert (trained.rehearsal.rows == rows).all()
    folds = inner_folds(labels[rows], plan.groups[rows], seed=0)
    weight = float((labels[rows] == 0).sum() / (labels[rows] == 1).sum())
    fitted = fit_regression(dataset.features, labels, rows, folds, pos_weight=weight)
    np.testing.assert_allclose(trained.rehearsal.regression_logits, fitted.held_out / fitted.held_out.std(), rtol=1e-12)
    weights = class_weights(labels[rows], weight)
    parts = fit_moments(dataset.features, labels, rows, folds, weights=weights, num_directions=4)
    scales = choose_parts(parts, fitted.held_out, Judge(labels[rows], pos_weight=weight))
    assert set(scales) == ({"trend"} if what == "ramp" else set())
    logits = fitted.held_out + sum(scale.applied(parts[name].held_out) for name, scale in scales.items())
    np.testing.assert_allclose(
        trained.rehearsal.logits, logits / logits.std(), rtol=1e-12
    )  # of deviation 1 in each fold
    scores = compute_scores(trained.rehearsal.logits)
    choice = choose_shrunk_threshold(scores, labels[rows], Policy.parse("f1"), pos_weight=weight)
    assert trained.best.best == choice
    assert trained.best.number == bool(scales)
    assert [epoch.number for epoch in trained.epochs] == [0, 1]
    assert [epoch.improved for epoch in trained.epochs] == [True, bool(scales)]
    test = split.rows("test")
    if not scales:
        alone = regression_logits(dataset.features, trained.regression, test)
        assert (trained.scores[test] == compute_scores(alone)).all()
        expected = regression_logits(dataset.features, fitted.regression, test) / logits.std()
        np.testing.assert_allclose(alone, expected, rtol=1e-4, atol=1e-5)
    else:
        head = build_head(dataset.features.widths, settings)
        head.regression.load_state_dict(fitted.regression.state_dict())
        use_parts(head.moments, parts, scales, factor=1.0)
        expected = compute_logits(head, dataset.features, torch.from_numpy(test)).numpy() / logits.std()
        np.testing.assert_allclose(trained.scores[test], compute_scores(expected), atol=1e-5)


def test_the_head_that_is_kept_is_made_as_those_of_the_folds_from_all_videos(tmp_path: Path) -> None:
    settings = dataclasses.replace(FAST, folds=3)
    plan = planned(with_features(tmp_path, "ramp", settings), settings)
    result = carry_out(plan)
    everything = dataclasses.replace(plan.splits[0], names=np.full(60, "train", dtype=object))
    experiment = prepare(plan.dataset, settings, everything, groups=plan.groups, nested=True)
    last = train_once(experiment)
    assert (result.best_epoch, result.threshold) == (1, last.best.best.threshold)
    state = experiment.head.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in result.head.state_dict().items())
    assert {fold.num_chosen_on for fold in result.folds} == {40}
    assert all(value.any() for value in (result.head.moments.trend_weight, result.head.moments.trend_mean))


def test_without_folds_the_val_split_chooses_the_threshold_and_only_the_train_split_is_fitted(tmp_path: Path) -> None:
    settings = dataclasses.replace(FAST, folds=0, test_fraction=0.2, val_fraction=0.2)
    dataset = with_features(tmp_path, "ramp", settings, num_videos=100)
    plan = planned(dataset, settings)
    split = plan.splits[0]
    expected = carry_out(plan)
    assert expected.best_epoch == 1
    rows = split.rows("val")
    weight = expected.pos_weight
    choice = choose_shrunk_threshold(expected.scores[rows], dataset.labels[rows], plan.policy, pos_weight=weight)
    assert expected.choice == choice
    assert expected.metrics["test"]["roc_auc"] > 0.9
    assert expected.baseline_metrics["logistic_regression"]["test"]["roc_auc"] < 0.8
    for part, same in (("val", True), ("test", True), ("train", False)):
        labels = dataset.labels.copy()
        changed = split.rows(part)[: len(split.rows(part)) // 2]
        labels[changed] = 1 - labels[changed]
        result = carry_out(dataclasses.replace(plan, dataset=dataclasses.replace(dataset, labels=labels)))
        assert (result.scores == expected.scores).all() == same
        assert (result.threshold == expected.threshold) == (part == "test")


def test_a_head_with_a_network_keeps_the_val_split_in_folds(tmp_path: Path) -> None:
    settings = TrainSettings.from_preset(
        "network", device="cpu", folds=3, epochs=2, projection=8, feedforward=8, precision="fp32"
    )
    result = runs.finish(tmp_path / "cache", settings, num_harmful=18, num_safe=18, shift=0.2)
    for fold in result.folds:
        assert fold.num_chosen_on == len(fold.split.rows("val")) > 0
        assert fold.best_epoch == [epoch.number for epoch in fold.epochs if epoch.improved][-1]
    assert result.best_epoch == round(np.median([fold.best_epoch for fold in result.folds]))
    assert result.threshold == np.median([fold.threshold for fold in result.folds])


def test_with_too_few_groups_for_inner_folds_there_is_only_the_regression(tmp_path: Path) -> None:
    groups = {f"video-{i:04d}.mp4": "camera" for i in range(40)}
    splits = {f"video-{i:04d}.mp4": ("train", "train", "val", "test")[i % 4] for i in range(40)}
    settings = dataclasses.replace(FAST, slowfast="logits", folds=0)
    result = runs.finish(tmp_path, settings, num_harmful=20, num_safe=20, shift=0.5, groups=groups, splits=splits)
    assert [epoch.number for epoch in result.epochs] == [0]
    assert (result.scores == result.baselines["logistic_regression"].scores).all()
    assert result.metrics["test"]["roc_auc"] > 0.9
