from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, logit

from haechi.predict.evaluation.quantify import PrevalenceEstimate, estimate_prevalence, fit_p_value
from haechi.predict.evaluation.scored import Scored
from tests.predict.evaluation.simulated import drawn, scored

SOURCE = drawn(600, share=0.5, seed=1)


def estimated(unlabelled: Scored, source: Scored = SOURCE) -> PrevalenceEstimate:
    return estimate_prevalence(
        unlabelled.scores,
        unlabelled.calibrated,
        unlabelled.groups,
        threshold=0.5,
        source=source,
        name="own",
        num_draws=300,
    )


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("size", [800, 5000])
def test_the_share_is_found(share: float, size: int) -> None:
    found = estimated(drawn(size, share=share))
    assert (found.num_videos, found.source, found.reason) == (size, "own", "")
    low, high = found.interval
    assert 0 <= low <= share <= high <= 1
    assert low <= found.value <= high
    assert high - low < 0.3
    assert found.fit_p_value > 0.01


def test_counting_decisions_is_wrong_where_harmful_videos_are_rare() -> None:
    found = estimated(drawn(5000, share=0.01))
    assert found.flagged > 0.1
    assert found.value < 0.05


def test_the_calibration_may_be_wrong() -> None:
    unlabelled = drawn(3000, share=0.2, seed=3)
    sides = [replace(side, calibrated=expit(0.7 * logit(side.calibrated) - 1)) for side in (unlabelled, SOURCE)]
    assert estimated(*sides).value == pytest.approx(estimated(unlabelled).value, abs=0.05)
    low, high = estimated(*sides).interval
    assert low < 0.2 < high


def test_harmful_videos_that_look_different_allow_no_estimate() -> None:
    found = estimated(drawn(1000, share=0.5, distance=6.0))
    assert (found.value, found.interval) == (None, None)
    assert found.fit_p_value < 0.01
    assert "not a mixture" in found.reason


def test_a_source_with_too_few_videos_of_a_class() -> None:
    source = scored(np.linspace(0, 1, 40), np.arange(40) >= 31)
    found = estimated(drawn(100), source)
    assert (found.value, found.fit_p_value) == (None, None)
    assert found.reason == "only 9 harmful videos labelled; at least 10 of each class needed"
    assert "1 safe video " in estimated(drawn(100), scored([0.1] + [0.9] * 20, [0] + [1] * 20)).reason


def test_a_head_that_does_not_separate_allows_no_estimate() -> None:
    found = estimated(drawn(500), drawn(200, distance=0.0))
    assert found.value is None
    assert "does not separate" in found.reason


@pytest.mark.parametrize("size", [1, 60])
def test_without_an_interval_there_is_no_estimate(size: int) -> None:
    """One group of videos says nothing about other groups, whatever their number."""
    found = estimated(replace(drawn(size), groups=np.full(size, "one camera", dtype=object)))
    assert (found.value, found.interval) == (None, None)
    assert found.reason == "too few videos, or groups of videos, to say how uncertain it would be"


def test_few_distinct_scores() -> None:
    source = scored(np.repeat([0.2, 0.8], 50), np.repeat([0, 1], 50) ^ (np.arange(100) % 5 == 0))
    unlabelled = scored(np.repeat([0.2, 0.8], [90, 10]), np.zeros(100))
    found = estimated(unlabelled, source)
    assert found.fit_p_value == 1
    assert found.value == 0  # fewer high scores than safe videos have


@pytest.mark.parametrize("per_group", [1, 4])
def test_the_test_of_the_fit_keeps_its_level(per_group: int) -> None:
    """Where only the share differs, 1 % of the p-values are below 0.01; at most 3 % of 400 by chance."""
    found = []
    for seed in range(400):
        source = drawn(400, share=0.5, seed=2 * seed, per_group=per_group)
        unlabelled = drawn(600, share=0.1, seed=2 * seed + 1, per_group=per_group)
        found.append(fit_p_value(unlabelled.scores, unlabelled.groups, source, share=0.1))
    assert np.mean(np.array(found) < 0.01) <= 0.03
    assert 0.3 < np.median(found) < 0.75


def test_the_test_of_the_fit_has_power() -> None:
    """Against harmful videos that score as halfway to safe ones, and against scores that all are higher."""
    for distance, by in ((1.0, 0.0), (2.0, 1.0)):
        found = []
        for seed in range(40):
            source, other = (
                drawn(2000, share=0.5, seed=2 * seed),
                drawn(2000, share=0.4, distance=distance, seed=2 * seed + 1),
            )
            found.append(fit_p_value(expit(logit(other.scores) + by), other.groups, source, share=0.4))
        assert np.mean(np.array(found) < 0.01) > 0.5
