"""A head is better than another only where chance does not explain the difference."""

import numpy as np
import pytest
from sklearn.metrics import log_loss

from haechi.train.model.judge import Judge


def draw(num_videos: int, seed: int, *, gain: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels (n,), and two kinds of logits, the first with a part `gain` of what the labels are drawn from."""
    rng = np.random.default_rng(seed)
    known, hidden, noise = rng.normal(size=(3, num_videos))
    labels = (rng.random(num_videos) < 1 / (1 + np.exp(-known - 3 * hidden))).astype(np.int8)
    return labels, known + gain * hidden + (0.3 * noise if not gain else 0), known


def test_the_loss_is_scikit_learns() -> None:
    labels, logits, _ = draw(50, 0, gain=1)
    judge = Judge(labels, pos_weight=0.3)
    weights = np.where(labels == 1, 0.3, 1.0)
    expected = log_loss(labels, 1 / (1 + np.exp(-logits)), sample_weight=weights)
    assert judge.loss(logits) == pytest.approx(expected, rel=1e-12)
    assert judge.losses(logits).shape == (50,)
    assert judge.losses(logits).mean() == judge.loss(logits)


@pytest.mark.parametrize("pos_weight", [0.5, 1.0, 4.0])
def test_a_planted_gain_is_seen(pos_weight: float) -> None:
    preferred, reverse = 0, 0
    for seed in range(100):
        labels, better, worse = draw(200, seed, gain=2)
        judge = Judge(labels, pos_weight=pos_weight)
        preferred += judge.prefers(better, worse)
        reverse += judge.prefers(worse, better)
    assert preferred == 100
    assert reverse == 0


def test_equal_logits_are_not_better() -> None:
    labels, logits, _ = draw(30, 0, gain=1)
    assert not Judge(labels, pos_weight=1.0).prefers(logits, logits)


@pytest.mark.parametrize("num_videos", [40, 200])
def test_chance_is_taken_for_a_gain_as_often_as_two_standard_errors_say(num_videos: int) -> None:
    """Two kinds of logits that are equally good: each is the truth plus noise of the same size."""
    accepted = 0
    for seed in range(2000):
        rng = np.random.default_rng(seed)
        true, *noise = rng.normal(size=(3, num_videos))
        labels = (rng.random(num_videos) < 1 / (1 + np.exp(-true))).astype(np.int8)
        one, other = (true + 0.5 * each for each in noise)
        accepted += Judge(labels, pos_weight=1.0).prefers(one, other)
    assert 0.015 < accepted / 2000 < 0.035
