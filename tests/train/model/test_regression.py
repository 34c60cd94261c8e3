"""The regression that a head starts from, against scikit-learn's and by what it may see."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from haechi.cache.reader import Cache
from haechi.train.data import batches
from haechi.train.data.dataset import Dataset, load_dataset
from haechi.train.data.features import Features
from haechi.train.data.split import inner_folds
from haechi.train.data.stream import Stream
from haechi.train.model import regression
from haechi.train.model.regression import (
    DEFAULT_DEVIATION,
    FACTORS,
    PRIOR_DEVIATIONS,
    FittedRegression,
    Folds,
    Problem,
    class_weights,
    fit_regression,
    regression_logits,
    thin_out,
)
from haechi.train.model.scores import compute_scores
from haechi.train.settings import TrainSettings
from tests.synthetic import write_cache

TRAIN = np.arange(0, 50, 2)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MAX_VIDEOS", 7)
    monkeypatch.setattr(batches, "SMALL_VALUES", 64)


def load(path: Path, settings: TrainSettings | None = None, **cache: object) -> Dataset:
    write_cache(path, **{"num_harmful": 30, "num_safe": 20, "shift": 0.1, **cache})  # type: ignore[arg-type]
    return load_dataset(Cache.open(path), settings or TrainSettings())


def folds_of(labels: np.ndarray) -> Folds:
    return inner_folds(labels, np.full(len(labels), "", dtype=object), seed=0)


def fit(dataset: Dataset, rows: np.ndarray, *, pos_weight: float = 1.0, folds: Folds = ()) -> FittedRegression:
    return fit_regression(dataset.features, dataset.labels, rows, folds, pos_weight=pos_weight)


def fit_on(num_videos: int, dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit the number of videos that regressions of this dataset are fitted on."""
    num_columns = pooled_columns(dataset.features).shape[1]
    monkeypatch.setattr(regression, "MAX_FIT_VALUES", num_videos * num_columns)


def pooled_columns(features: Features) -> np.ndarray:
    """(N, D), computed with NumPy, for videos without padding."""
    x = features.batch(torch.arange(len(features)))[0].double().numpy()  # (N, T, F)
    step = np.abs(np.diff(x, axis=1)).sum(axis=1) / max(x.shape[1] - 1, 1)
    parts = [x.mean(axis=1), x.std(axis=1), step, features.constant.double().numpy()]
    return np.concatenate(parts, axis=1)


@pytest.mark.parametrize("streams", [{}, {"slowfast": "pooled"}, {"slowfast": "none"}, {"clip": False}])
@pytest.mark.parametrize("deviation", [0.2, 3.2])
def test_the_regression_is_scikit_learns_on_pooled_columns(
    tmp_path: Path, streams: dict, deviation: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With inner folds up to the factor that brings its logits to scale."""
    monkeypatch.setattr(regression, "PRIOR_DEVIATIONS", (deviation,))
    monkeypatch.setattr(regression, "DEFAULT_DEVIATION", deviation)
    dataset = load(tmp_path, TrainSettings(**streams))
    x, labels, pos_weight = pooled_columns(dataset.features), dataset.labels[TRAIN], 0.7
    weights = np.where(labels == 1, pos_weight, 1)
    weights = weights / weights.mean()
    model = make_pipeline(StandardScaler(), LogisticRegression(C=deviation**2 / x.shape[1], max_iter=1000))
    expected = model.fit(x[TRAIN], labels, logisticregression__sample_weight=weights).decision_function(x)
    alone = fit(dataset, TRAIN, pos_weight=pos_weight)
    np.testing.assert_allclose(
        regression_logits(dataset.features, alone.regression, np.arange(50)), expected, atol=1e-4
    )
    np.testing.assert_allclose(alone.held_out, expected[TRAIN], atol=1e-4)

    folds = folds_of(labels)
    chosen = fit(dataset, TRAIN, pos_weight=pos_weight, folds=folds)
    held_out = np.zeros(len(TRAIN))
    points = StandardScaler().fit_transform(x[TRAIN])
    for fitted, others in folds:
        part = LogisticRegression(C=deviation**2 / x.shape[1], max_iter=1000)
        part.fit(points[fitted], labels[fitted], weights[fitted])
        held_out[others] = part.decision_function(points[others])

    def loss(factor: float) -> float:
        return float((weights * np.logaddexp(0, np.where(labels == 1, -1, 1) * factor * held_out)).mean())

    factor = min(np.geomspace(*FACTORS, 20_001), key=loss)
    np.testing.assert_allclose(chosen.held_out, factor * held_out, rtol=2e-3, atol=1e-4)
    assert loss(np.abs(chosen.held_out).sum() / np.abs(held_out).sum()) <= loss(factor) + 1e-7
    found = regression_logits(dataset.features, chosen.regression, np.arange(50))
    np.testing.assert_allclose(found, factor * expected, rtol=2e-3, atol=1e-4)
    assert (alone.prior_deviation, chosen.prior_deviation) == (deviation, deviation)


def test_the_default_strength_is_one_of_those_that_are_tried() -> None:
    assert DEFAULT_DEVIATION in PRIOR_DEVIATIONS
    assert list(PRIOR_DEVIATIONS) == sorted(PRIOR_DEVIATIONS)


def random_problem(
    num_videos: int, num_columns: int, *, signal: float, seed: int, pos_weight: float = 1.0, rare: float = 0.5
) -> Problem:
    """The first column says something about the labels, the others nothing."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(num_videos) < rare * num_videos).astype(np.int8)[rng.permutation(num_videos)]
    points = rng.normal(size=(num_videos, num_columns))
    points[:, 0] += signal * (2 * labels - 1)
    return Problem(
        points=points,
        num_columns=num_columns,
        labels=labels,
        weights=class_weights(labels, pos_weight),
        folds=folds_of(labels),
    )


def test_a_held_out_videos_own_label_has_no_part_in_its_logit() -> None:
    problem = random_problem(60, 5, signal=0.5, seed=0)
    expected = problem.held_out_logits(PRIOR_DEVIATIONS)
    assert expected.shape == (7, 60)
    for _, held_out in problem.folds:
        labels = problem.labels.copy()
        labels[held_out] = 1 - labels[held_out]
        found = dataclasses.replace(problem, labels=labels).held_out_logits(PRIOR_DEVIATIONS)
        assert (found[:, held_out] == expected[:, held_out]).all()
        others = np.setdiff1d(np.arange(60), held_out)
        assert (found[:, others] != expected[:, others]).mean() > 0.9


def test_of_the_fitted_regression_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One factor for all logits and the strength are chosen on all labels; nothing else is."""
    monkeypatch.setattr(regression, "PRIOR_DEVIATIONS", (0.8,))
    dataset = load(tmp_path)
    folds = folds_of(dataset.labels)
    expected = fit(dataset, np.arange(50), folds=folds).held_out
    held_out = folds[2][1]
    dataset.labels[held_out] = 1 - dataset.labels[held_out]
    ratios = fit(dataset, np.arange(50), folds=folds).held_out / expected
    np.testing.assert_allclose(ratios[held_out], ratios[held_out[0]], rtol=1e-9)
    assert np.delete(ratios, held_out).std() > 0.01


def best_strength(problem: Problem) -> tuple[float, float]:
    """By the one-standard-error rule, and by the least loss alone; computed without the code that is tested."""
    losses = []
    for deviation in PRIOR_DEVIATIONS:
        logits = np.zeros(len(problem.labels))
        for fitted, held_out in problem.folds:
            model = LogisticRegression(C=deviation**2 / problem.points.shape[1], max_iter=1000)
            model.fit(problem.points[fitted], problem.labels[fitted], problem.weights[fitted])
            logits[held_out] = model.decision_function(problem.points[held_out])
        sign = np.where(problem.labels == 1, -1, 1)
        each = [problem.weights * np.logaddexp(0, sign * logits * factor) for factor in np.geomspace(*FACTORS, 801)]
        losses.append(min(each, key=np.mean))
    least = min(range(len(losses)), key=lambda i: losses[i].mean())
    for deviation, loss in zip(PRIOR_DEVIATIONS, losses, strict=True):
        gain = loss - losses[least]
        if gain.mean() <= gain.std() / len(gain) ** 0.5:
            return deviation, PRIOR_DEVIATIONS[least]
    raise AssertionError


def test_the_strongest_within_a_standard_error_is_taken() -> None:
    found, differ = set(), 0
    for seed in range(6):
        signal = (0.1, 0.5, 2.0)[seed % 3]
        problem = random_problem(80, 4, signal=signal, seed=seed, pos_weight=(0.5, 2.0)[seed % 2])
        expected, least = best_strength(problem)
        assert problem.choose_prior_deviation() == expected
        found.add(expected)
        differ += expected != least
    assert len(found) > 1
    assert differ > 1


def test_noise_gets_the_strongest_prior_and_many_weak_columns_a_weaker_one() -> None:
    assert random_problem(100, 30, signal=0.0, seed=1).choose_prior_deviation() == PRIOR_DEVIATIONS[0]
    rng = np.random.default_rng(0)
    points = rng.normal(size=(400, 30))
    labels = (points[:, :2].sum(axis=1) > 0).astype(np.int8)  # two of thirty columns tell all
    clear = Problem(points=points, num_columns=30, labels=labels, weights=np.ones(400), folds=folds_of(labels))
    assert clear.choose_prior_deviation() >= 0.8


def test_the_factor_has_the_least_loss() -> None:
    problem = random_problem(200, 3, signal=1.0, seed=0)
    true = 2 * problem.points[:, 0]  # the log odds of two normal distributions around -1 and 1
    assert problem.best_factor(true / 10) == pytest.approx(10, rel=0.3)
    assert problem.best_factor(true * 5) == pytest.approx(problem.best_factor(true) / 5, rel=1e-3)
    assert problem.best_factor(-true) == pytest.approx(FACTORS[0], rel=0.01)
    perfect = np.where(problem.labels == 1, 1.0, -1.0)
    assert problem.best_factor(perfect) > 30  # and finite


def test_pos_weight_weighs_harmful_videos(tmp_path: Path) -> None:
    dataset = load(tmp_path, num_harmful=30, num_safe=15)
    rows = np.arange(45)
    balanced = fit(dataset, rows, pos_weight=0.5).regression
    model = LogisticRegression(C=DEFAULT_DEVIATION**2 / 29, class_weight="balanced", max_iter=1000)
    x = StandardScaler().fit_transform(pooled_columns(dataset.features))
    np.testing.assert_allclose(balanced.weight, model.fit(x, dataset.labels).coef_[0], atol=1e-4)
    heavier = fit(dataset, rows, pos_weight=5.0).regression
    assert heavier.bias > balanced.bias + 1


def test_weights_have_mean_one() -> None:
    weights = class_weights(np.array([1, 0, 0, 0]), 3.0)
    np.testing.assert_allclose(weights, [2, 2 / 3, 2 / 3, 2 / 3])


def test_the_prior_holds_the_logits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = load(tmp_path)
    deviations = []
    for deviation in (0.1, 1.0, 10.0):
        monkeypatch.setattr(regression, "DEFAULT_DEVIATION", deviation)
        deviations.append(fit(dataset, TRAIN).regression.weight.norm())
    assert deviations == sorted(deviations)
    assert deviations[2] > 2 * deviations[0]


def test_the_other_videos_labels_have_no_part(tmp_path: Path) -> None:
    dataset = load(tmp_path)
    folds = folds_of(dataset.labels[TRAIN])
    expected = fit(dataset, TRAIN, folds=folds)
    others = np.setdiff1d(np.arange(50), TRAIN)
    dataset.labels[others] = 1 - dataset.labels[others]
    assert equal(fit(dataset, TRAIN, folds=folds), expected)


def equal(a: FittedRegression, b: FittedRegression) -> bool:
    """To the last bit."""
    states = a.regression.state_dict(), b.regression.state_dict()
    same = all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    return same and (a.held_out == b.held_out).all() and a.prior_deviation == b.prior_deviation


def test_how_fast_a_video_changes_is_enough_to_tell_it(tmp_path: Path) -> None:
    """Harmful and safe videos have the same four rows in another order: mean and spread are the same, the steps not."""
    dataset = load(tmp_path, TrainSettings(slowfast="none"), shift=0.0)
    order = torch.tensor([[0, 1, 2, 3], [0, 3, 1, 2]])[torch.from_numpy(dataset.labels).long()]  # (N, T)
    walk = torch.arange(4.0)[order][:, :, None] + torch.zeros(8)
    features = dataclasses.replace(dataset.features, rows=(walk + 0.01 * torch.randn(walk.shape)).flatten(0, 1))
    for folds in ([], folds_of(dataset.labels[TRAIN])):
        fitted = fit_regression(features, dataset.labels, TRAIN, folds, pos_weight=1.0)
        logits = regression_logits(features, fitted.regression, np.arange(50))
        assert roc_auc_score(np.delete(dataset.labels, TRAIN), np.delete(logits, TRAIN)) == 1
        assert roc_auc_score(dataset.labels[TRAIN], fitted.held_out) == 1


def test_a_stream_gives_the_same_regression_to_the_last_bit(tmp_path: Path) -> None:
    in_memory = load(tmp_path)
    streamed = load_dataset(in_memory.cache, TrainSettings(), memory_bytes=0)
    assert isinstance(streamed.features, Stream)
    folds = folds_of(in_memory.labels[TRAIN])
    assert equal(fit(streamed, TRAIN, folds=folds), fit(in_memory, TRAIN, folds=folds))


def test_a_large_cache_is_fitted_in_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = load(tmp_path)
    folds = folds_of(dataset.labels)
    expected = fit(dataset, np.arange(50), folds=folds)
    monkeypatch.setattr(regression, "MAX_FLOAT64_VALUES", 0)
    found = fit(dataset, np.arange(50), folds=folds)
    assert found.prior_deviation == expected.prior_deviation
    assert not np.array_equal(found.held_out, expected.held_out)
    one, two = (
        compute_scores(regression_logits(dataset.features, each.regression, np.arange(50)))
        for each in (found, expected)
    )
    np.testing.assert_allclose(one, two, atol=1e-3)


def test_a_large_cache_is_fitted_on_a_share_of_each_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = load(tmp_path)
    harmful, safe = np.flatnonzero(dataset.labels == 1), np.flatnonzero(dataset.labels == 0)
    chosen = np.sort(np.concatenate([harmful[[0, 14, 29]], safe[[0, 19]]]))
    expected = fit(dataset, chosen).regression.state_dict()
    fit_on(5, dataset, monkeypatch)
    found = fit(dataset, np.arange(50)).regression.state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_videos_that_a_large_cache_leaves_out_start_from_the_regression(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = load(tmp_path)
    folds = folds_of(dataset.labels)
    kept = thin_out(dataset.labels, folds, 25)
    assert 25 <= len(kept) < 35
    restricted = regression.restricted(folds, kept)
    expected = fit(dataset, kept, folds=restricted)
    fit_on(25, dataset, monkeypatch)
    found = fit(dataset, np.arange(50), folds=folds)
    assert torch.equal(found.regression.weight, expected.regression.weight)
    assert (found.kept == kept).all()
    assert (found.held_out == expected.held_out).all()
    offset = found.offset(dataset.features, np.arange(50))
    assert (np.delete(offset, kept) == 0).all()
    logits = regression_logits(dataset.features, expected.regression, kept)
    np.testing.assert_allclose(offset[kept] + logits, expected.held_out, rtol=1e-6)


def test_the_strength_is_chosen_on_a_share_of_a_large_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = random_problem(90, 50, signal=0.8, seed=0)
    monkeypatch.setattr(regression, "MAX_CHOICE_VIDEOS", 30)
    kept = thin_out(problem.labels, problem.folds, 30)
    thinned = problem.thinned()
    assert thinned.points.shape == (len(kept), len(kept))  # no more dimensions than videos
    assert (thinned.labels == problem.labels[kept]).all()
    assert (thinned.weights == problem.weights[kept]).all()
    np.testing.assert_allclose(
        thinned.points @ thinned.points.T, problem.points[kept] @ problem.points[kept].T, atol=1e-9
    )
    whole = dataclasses.replace(
        problem,
        points=problem.points[kept],
        labels=problem.labels[kept],
        weights=problem.weights[kept],
        folds=regression.restricted(problem.folds, kept),
    )
    found, expected = (each.held_out_logits(PRIOR_DEVIATIONS) for each in (thinned, whole))
    np.testing.assert_allclose(found, expected, atol=1e-2)  # to the tolerance of its solver
    assert thinned.choose_prior_deviation() == whole.choose_prior_deviation()


def test_a_rare_class_is_not_lost_in_a_large_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = load(tmp_path, num_harmful=1, num_safe=49)
    fit_on(5, dataset, monkeypatch)
    logits = regression_logits(dataset.features, fit(dataset, np.arange(50)).regression, np.arange(50))
    assert logits[dataset.labels == 1] == logits.max()


@pytest.mark.parametrize("num_harmful", [2, 3, 7])
def test_a_rare_class_is_not_lost_in_a_fold(tmp_path: Path, num_harmful: int, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = load(tmp_path, num_harmful=num_harmful, num_safe=60 - num_harmful)
    fit_on(20, dataset, monkeypatch)
    monkeypatch.setattr(regression, "MAX_CHOICE_VIDEOS", 10)
    rows = np.arange(60)
    folds = folds_of(dataset.labels)
    assert len(folds) == min(num_harmful, 5)
    assert np.isfinite(fit(dataset, rows, folds=folds).held_out).all()
    for most in (1, 10, 59):
        kept = thin_out(dataset.labels, folds, most)
        assert (np.diff(kept) > 0).all()
        for _, held_out in folds:
            for label in (0, 1):
                there = held_out[dataset.labels[held_out] == label]
                assert np.isin(there, kept).any() == (len(there) > 0)
    assert (thin_out(dataset.labels, folds, 60) == rows).all()
