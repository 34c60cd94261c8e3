import numpy as np
import pytest

from haechi.train.output.html import percent, percent_interval, signed
from haechi.train.output.one_scale import on_one_scale


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0"),
        (0.000012, "0.0012"),
        (0.0025, "0.25"),
        (0.01, "1"),
        (0.041, "4.1"),
        (0.0996, "10"),
        (0.734, "73"),
        (1, "100"),
    ],
)
def test_shares_in_percent(share: float, text: str) -> None:
    assert percent(share) == f"{text}\u00a0%"


def test_an_interval_has_one_unit() -> None:
    assert percent_interval((0.023, 0.0691)) == "2.3 to 6.9\u00a0%"
    assert percent_interval(None) == ""


@pytest.mark.parametrize(
    ("value", "text"), [(-0.123, "−0.12"), (0.1, "+0.10"), (-0.001, "0.00"), (0.0, "0.00"), (None, "–")]
)
def test_differences_have_a_sign(value: float | None, text: str) -> None:
    assert signed(value, 2) == text


def test_one_scale_keeps_decisions_and_order() -> None:
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.random(300), [0.0, 1.0, 0.2, 0.9]])
    thresholds = np.array([0.2, 0.5, 0.9])[np.arange(len(scores)) % 3]
    scores[:30] = thresholds[:30]
    shifted = on_one_scale(scores, thresholds, 0.437)
    assert ((shifted >= 0.437) == (scores >= thresholds)).all()
    for each in np.unique(thresholds):
        mine = thresholds == each
        assert (np.diff(shifted[mine][np.argsort(scores[mine], kind="stable")]) >= 0).all()
    assert (on_one_scale(scores, np.full(len(scores), 0.437), 0.437) == scores).all()
