from pathlib import Path

import numpy as np
import pytest
import torch

from haechi.cache.reader import Cache
from haechi.train.data import batches
from haechi.train.data.dataset import Dataset, load_dataset
from haechi.train.data.features import Features
from haechi.train.data.stream import Stream
from haechi.train.model.baselines import baseline_scores
from haechi.train.model.head import Regression
from haechi.train.model.regression import fit_regression, regression_logits
from haechi.train.settings import TrainSettings
from tests.synthetic import write_cache

TRAIN = np.arange(0, 50, 2)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MAX_VIDEOS", 7)
    monkeypatch.setattr(batches, "SMALL_VALUES", 64)


def load(path: Path) -> Dataset:
    write_cache(path, num_harmful=30, num_safe=20, shift=0.1)
    return load_dataset(Cache.open(path), TrainSettings())


def fitted_scores(features: Features | Stream, labels: np.ndarray) -> dict[str, np.ndarray]:
    fitted = fit_regression(features, labels, TRAIN, [], pos_weight=1.0)
    return baseline_scores(features, labels, TRAIN, fitted.regression)


def test_the_regressions_scores_are_those_of_its_logits(tmp_path: Path) -> None:
    dataset = load(tmp_path)
    some = Regression(*dataset.features.widths)
    some.weight.normal_()
    found = baseline_scores(dataset.features, dataset.labels, TRAIN, some)["logistic_regression"]
    logits = regression_logits(dataset.features, some, np.arange(50))
    assert logits.std() > 1
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-logits)), rtol=1e-12)
    assert found.dtype == np.float64


def test_the_majority_is_one_score_for_all(tmp_path: Path) -> None:
    dataset = load(tmp_path)
    harmful, safe = (np.flatnonzero(dataset.labels == label) for label in (1, 0))
    some = Regression(*dataset.features.widths)
    for rows, score in (([*harmful[:6], *safe[:2]], 1.0), ([*harmful[:2], *safe[:6]], 0.0)):
        found = baseline_scores(dataset.features, dataset.labels, np.sort(rows), some)
        assert found["majority"].tolist() == [score] * 50


def test_the_other_videos_labels_have_no_part(tmp_path: Path) -> None:
    dataset = load(tmp_path)
    expected = fitted_scores(dataset.features, dataset.labels)
    others = np.setdiff1d(np.arange(50), TRAIN)
    dataset.labels[others] = 1 - dataset.labels[others]
    found = fitted_scores(dataset.features, dataset.labels)
    assert all((found[name] == expected[name]).all() for name in expected)


def test_a_stream_gives_the_same_scores_to_the_last_bit(tmp_path: Path) -> None:
    in_memory = load(tmp_path)
    streamed = load_dataset(in_memory.cache, TrainSettings(), memory_bytes=0)
    assert isinstance(streamed.features, Stream)
    expected = fitted_scores(in_memory.features, in_memory.labels)
    found = fitted_scores(streamed.features, in_memory.labels)
    assert all((found[name] == expected[name]).all() for name in expected)


def test_no_videos_have_no_logits(tmp_path: Path) -> None:
    features = load(tmp_path).features
    assert regression_logits(features, Regression(*features.widths), TRAIN[:0]).shape == (0,)
    assert torch.equal(Regression(*features.widths).weight, torch.zeros(3 * 8 + 5))
