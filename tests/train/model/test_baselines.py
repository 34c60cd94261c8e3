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
from haechi.train.data.dataset import Dataset, load_dataset
from haechi.train.data.features import Features
from haechi.train.data.stream import Stream
from haechi.train.model import baselines
from haechi.train.model.baselines import fit_baselines, fit_regression
from haechi.train.settings import TrainSettings
from tests.synthetic import write_cache


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "POOL_BATCH_SIZE", 7)


def load(
    path: Path, settings: TrainSettings | None = None, *, memory_bytes: int | None = None, **cache: object
) -> Dataset:
    write_cache(path, **{"num_harmful": 30, "num_safe": 20, "shift": 0.1, **cache})  # type: ignore[arg-type]
    return load_dataset(Cache.open(path), settings or TrainSettings(), memory_bytes=memory_bytes)


def pooled_columns(features: Features) -> np.ndarray:
    """(N, D), computed with NumPy, for videos without padding."""
    x = features.batch(torch.arange(len(features)))[0].double().numpy()  # (N, T, F)
    step = np.abs(np.diff(x, axis=1)).sum(axis=1) / max(x.shape[1] - 1, 1)
    parts = [x.mean(axis=1), x.std(axis=1), step, features.constant.double().numpy()]
    return np.concatenate(parts, axis=1)


TRAIN = np.arange(0, 50, 2)


@pytest.mark.parametrize("streams", [{}, {"slowfast": "pooled"}, {"slowfast": "none"}, {"clip": False}])
def test_the_regression_is_scikit_learns_on_pooled_columns(tmp_path: Path, streams: dict) -> None:
    dataset = load(tmp_path, TrainSettings(**streams))
    x = pooled_columns(dataset.features)
    model = LogisticRegression(C=1 / x.shape[1], class_weight="balanced", max_iter=1000)
    expected = make_pipeline(StandardScaler(), model).fit(x[TRAIN], dataset.labels[TRAIN]).predict_proba(x)[:, 1]
    found = fit_baselines(dataset.features, dataset.labels, TRAIN)
    np.testing.assert_allclose(found.scores["logistic_regression"], expected, atol=1e-4)
    assert found.scores["logistic_regression"].dtype == np.float64


def test_the_majority_is_one_score_for_all(tmp_path: Path) -> None:
    dataset = load(tmp_path)
    harmful, safe = (np.flatnonzero(dataset.labels == label) for label in (1, 0))
    for rows, score in (([*harmful[:6], *safe[:2]], 1.0), ([*harmful[:2], *safe[:6]], 0.0)):
        found = fit_baselines(dataset.features, dataset.labels, np.sort(rows))
        assert found.scores["majority"].tolist() == [score] * 50


def test_the_other_videos_labels_have_no_part(tmp_path: Path) -> None:
    dataset = load(tmp_path)
    expected = fit_baselines(dataset.features, dataset.labels, TRAIN).scores
    others = np.setdiff1d(np.arange(50), TRAIN)
    dataset.labels[others] = 1 - dataset.labels[others]
    found = fit_baselines(dataset.features, dataset.labels, TRAIN).scores
    assert all((found[name] == expected[name]).all() for name in expected)


def test_how_fast_a_video_changes_is_enough_to_tell_it(tmp_path: Path) -> None:
    """Harmful and safe videos have the same four rows in another order: mean and spread are the same, the steps not."""
    dataset = load(tmp_path, TrainSettings(slowfast="none"), shift=0.0)
    order = torch.tensor([[0, 1, 2, 3], [0, 3, 1, 2]])[torch.from_numpy(dataset.labels).long()]  # (N, T)
    walk = torch.arange(4.0)[order][:, :, None] + torch.zeros(8)
    features = dataclasses.replace(dataset.features, rows=walk + 0.01 * torch.randn(walk.shape))
    scores = fit_baselines(features, dataset.labels, TRAIN).scores["logistic_regression"]
    assert roc_auc_score(np.delete(dataset.labels, TRAIN), np.delete(scores, TRAIN)) == 1


def test_a_stream_gives_the_same_scores_to_the_last_bit(tmp_path: Path) -> None:
    in_memory = load(tmp_path)
    streamed = load_dataset(in_memory.cache, TrainSettings(), memory_bytes=0)
    assert isinstance(streamed.features, Stream)
    expected = fit_baselines(in_memory.features, in_memory.labels, TRAIN).scores
    found = fit_baselines(streamed.features, in_memory.labels, TRAIN).scores
    assert all((found[name] == expected[name]).all() for name in expected)


def test_pos_weight_weighs_harmful_videos(tmp_path: Path) -> None:
    dataset = load(tmp_path, num_harmful=30, num_safe=15)
    rows = np.arange(45)
    balanced = fit_regression(dataset.features, dataset.labels, rows).state_dict()
    same = fit_regression(dataset.features, dataset.labels, rows, pos_weight=0.5).state_dict()
    assert all(torch.equal(same[name], value) for name, value in balanced.items())
    heavier = fit_regression(dataset.features, dataset.labels, rows, pos_weight=5.0)
    assert heavier.bias > balanced["bias"] + 1


def test_the_prior_holds_the_logits(tmp_path: Path) -> None:
    dataset = load(tmp_path)
    deviations = [
        fit_regression(dataset.features, dataset.labels, TRAIN, prior_deviation=deviation).weight.norm()
        for deviation in (0.1, 1.0, 10.0)
    ]
    assert deviations == sorted(deviations)
    assert deviations[2] > 2 * deviations[0]


def test_a_large_cache_is_fitted_on_a_share_of_each_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = load(tmp_path)
    harmful, safe = np.flatnonzero(dataset.labels == 1), np.flatnonzero(dataset.labels == 0)
    chosen = np.sort(np.concatenate([harmful[[0, 14, 29]], safe[[0, 19]]]))
    expected = fit_regression(dataset.features, dataset.labels, chosen).state_dict()
    monkeypatch.setattr(baselines, "MAX_FIT_VIDEOS", 5)
    found = fit_regression(dataset.features, dataset.labels, np.arange(50)).state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_rare_class_is_not_lost_in_a_large_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = load(tmp_path, num_harmful=1, num_safe=49)
    monkeypatch.setattr(baselines, "MAX_FIT_VIDEOS", 5)
    scores = fit_baselines(dataset.features, dataset.labels, np.arange(50)).scores["logistic_regression"]
    assert scores[dataset.labels == 1] == scores.max()
