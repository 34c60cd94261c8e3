import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.metrics import brier_score_loss

from haechi.train.evaluate.calibration import Calibration, measure_reliability


@pytest.mark.parametrize(("temperature", "pos_weight"), [(3.0, 1.0), (0.5, 1.0), (2.0, 0.35)])
def test_it_finds_what_was_done_to_honest_probabilities(temperature: float, pos_weight: float) -> None:
    rng = np.random.default_rng(0)
    honest = rng.beta(1, 2, 20_000)
    labels = (rng.random(20_000) < honest).astype(int)
    scores = expit(logit(honest) * temperature + np.log(pos_weight))
    found = Calibration.fit(scores, labels, pos_weight=pos_weight)
    assert found.temperature == pytest.approx(temperature, rel=0.05)
    before, after = measure_reliability(scores, labels), measure_reliability(found.apply(scores), labels)
    assert after.ece < 0.02 < before.ece
    assert after.brier < before.brier


def test_the_order_stays_and_so_do_the_ends() -> None:
    scores = np.linspace(0, 1, 101)
    found = Calibration(shift=-1.0, temperature=2.5).apply(scores)
    assert (np.diff(found) > 0).all()
    assert ((found >= 0) & (found <= 1)).all()


def test_a_few_videos_that_are_all_right_do_not_make_it_certain() -> None:
    found = Calibration.fit(np.array([0.1, 0.9]), np.array([0, 1]), pos_weight=1.0)
    assert 0.05 <= found.temperature <= 20


def test_the_curve_has_every_video_once_and_its_error_is_the_sum() -> None:
    rng = np.random.default_rng(1)
    scores, labels = rng.random(103), rng.integers(0, 2, 103)
    found = measure_reliability(scores, labels)
    curve = found.curve
    assert sum(point.count for point in curve) == 103
    assert len(curve) == 10
    assert found.brier == pytest.approx(brier_score_loss(labels, scores))
    expected = sum(point.count / 103 * abs(point.score - point.fraction) for point in curve)
    assert found.ece == pytest.approx(expected)
    assert len(measure_reliability(scores[:7], labels[:7]).curve) == 1  # no bin of one or two videos
