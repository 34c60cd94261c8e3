"""Planted shifts whose truth is known: how often the intervals contain it.

`python -m bench.evaluation` measures all coverages, with more sets and draws.
"""

import numpy as np
import pytest

from bench.evaluation import F1, PREVALENCES, SHIFTS, contains, estimated_prevalences, planted_shifts
from haechi.predict.evaluation.causes import find_causes

NUM_DRAWS = 200


def test_the_fall_and_its_parts_contain_the_truth() -> None:
    """500 shifts: of the share of harmful videos, of the scores, of the threshold, and of both; groups in half."""
    covered: dict[str, list[float]] = {}
    for shift in planted_shifts(500):
        found = find_causes(shift.own, shift.here, F1, num_draws=NUM_DRAWS)
        assert found is not None
        assert abs(found.ranking.value + found.threshold.value - found.fall.value) < 1e-12
        assert abs(found.class_mix.value + found.separation.value - found.ranking.value) < 1e-12
        for name, value in shift.parts.items():
            covered.setdefault(name, []).append(contains(getattr(found, name).interval, value))
    shares = {name: np.mean(values) for name, values in covered.items()}
    assert 0.93 <= shares["fall"] <= 0.97
    assert all(0.91 <= share <= 0.98 for share in shares.values()), shares
    kinds = {kind: np.mean(covered["fall"][i :: len(SHIFTS)]) for i, kind in enumerate(SHIFTS)}
    assert all(share >= 0.9 for share in kinds.values()), kinds


@pytest.mark.parametrize("prevalence", PREVALENCES)
def test_the_estimated_prevalence_contains_the_truth_and_counting_does_not(prevalence: float) -> None:
    found = list(estimated_prevalences(prevalence, 550, num_draws=NUM_DRAWS))
    given = [each for each in found if each.estimate.value is not None]
    assert len(given) >= 500
    assert len(given) >= 0.97 * len(found)  # the test of the fit refuses 1 %
    assert 0.93 <= np.mean([contains(each.estimate.interval, prevalence) for each in given]) <= 0.97
    most = 0.5 if prevalence < 0.1 else 0.6
    assert np.mean([contains(each.counted, prevalence) for each in found]) < most
