from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.metrics import fbeta_score

from haechi.predict.evaluation.causes import check_policy, find_causes
from haechi.predict.evaluation.fall import find_changes
from haechi.predict.evaluation.scored import Scored
from haechi.train.policy import Policy
from tests.predict.evaluation.simulated import drawn, scored

OWN = drawn(400, seed=1)
F1 = Policy.parse("f1")


def moved(side: Scored, by: float) -> Scored:
    """The same videos with higher logits."""
    return replace(side, scores=expit(logit(side.scores) + by))


@pytest.mark.parametrize("text", ["f1", "fbeta:2", "precision>=0.9"])
@pytest.mark.parametrize("size", [300, 5000])
def test_the_parts_add_up(text: str, size: int) -> None:
    here = moved(drawn(size, share=0.2, distance=1.5, per_group=2), 0.7)
    policy = Policy.parse(text)
    found = find_causes(OWN, here, policy, num_draws=200)
    beta = policy.beta or 1
    assert found.beta == beta
    for side, value in ((OWN, found.own), (here, found.here)):
        assert value == pytest.approx(fbeta_score(side.labels, side.scores >= side.thresholds, beta=beta), abs=1e-12)
    assert found.fall.value == pytest.approx(found.own - found.here, abs=1e-12)
    assert found.ranking.value == pytest.approx(found.own - found.best, abs=1e-12)
    assert found.ranking.value + found.threshold.value == pytest.approx(found.fall.value, abs=1e-12)
    assert found.class_mix.value + found.separation.value == pytest.approx(found.ranking.value, abs=1e-12)
    for loss in (found.fall, found.ranking, found.threshold, found.class_mix, found.separation):
        assert loss.interval[0] <= loss.value <= loss.interval[1]
    uncorrected = fbeta_score(here.labels, here.scores >= found.best_threshold, beta=beta)
    assert found.here <= found.best < uncorrected


def test_each_cause_is_found() -> None:
    rare = find_causes(OWN, drawn(2000, share=0.05), F1, num_draws=200)
    assert rare.class_mix.interval[0] > 0.05
    assert rare.separation.interval[0] < 0 < rare.separation.interval[1]
    worse = find_causes(OWN, drawn(2000, distance=0.8), F1, num_draws=200)
    assert worse.separation.interval[0] > 0.05
    assert abs(worse.class_mix.value) < 0.03
    off = find_causes(OWN, moved(drawn(2000), 1.5), F1, num_draws=200)
    assert off.threshold.interval[0] > 0.05
    assert abs(off.ranking.value) < 0.05
    assert off.best_threshold > 0.6


def test_the_threshold_loss_is_never_negative() -> None:
    found = find_causes(OWN, drawn(300), F1, num_draws=200)
    assert found.threshold.value >= 0
    assert found.threshold.interval[0] >= 0
    assert found.best >= found.here


def test_the_fall_is_the_one_of_the_metric() -> None:
    here = drawn(500, distance=1.0, per_group=2)
    change = find_changes(OWN, here)[0]
    fall = find_causes(OWN, here, F1).fall
    assert fall.value == pytest.approx(-change.difference, abs=1e-12)
    assert fall.interval == pytest.approx((-change.difference_interval[1], -change.difference_interval[0]), abs=2e-3)


def test_thresholds_of_folds() -> None:
    """The scores and thresholds of each fold lie higher by its number; the videos are decided by their fold."""
    fold = np.arange(400) % 3
    shift = 0.3 * fold
    own = replace(OWN, scores=expit(logit(OWN.scores) + shift), thresholds=expit(shift))
    found, alone = (find_causes(side, drawn(300), F1, num_draws=100) for side in (own, OWN))
    assert found.own == alone.own


def test_without_mistakes_no_interval_is_promised() -> None:
    perfect = scored(np.linspace(0, 1, 60), np.arange(60) >= 30)
    found = find_causes(OWN, perfect, F1, num_draws=100)
    assert (found.here, found.best) == (1, 1)
    assert {found.fall.interval, found.ranking.interval, found.threshold.interval} == {None}


def test_without_one_class_there_are_no_causes() -> None:
    safe = scored([0.2, 0.6, 0.7], [0, 0, 0])
    assert find_causes(OWN, safe, F1) is None
    assert find_causes(safe, OWN, F1) is None
    assert find_causes(OWN, OWN.select(np.arange(0)), F1) is None


@pytest.mark.parametrize(
    ("text", "figure", "here", "kept"),
    [
        ("precision>=0.6", "precision", 2 / 3, True),
        ("precision>=0.7", "precision", 2 / 3, False),
        ("recall>=0.5", "recall", 0.5, True),
        ("recall>=0.9", "recall", 0.5, False),
        ("fpr<=0.25", "false_positive_rate", 0.25, True),
        ("fpr<=0.1", "false_positive_rate", 0.25, False),
    ],
)
def test_a_bound_is_kept_or_not(text: str, figure: str, here: float, kept: bool) -> None:
    side = scored([0.9, 0.8, 0.4, 0.3, 0.7, 0.2, 0.1, 0.0] * 10, [1, 1, 1, 1, 0, 0, 0, 0] * 10)
    found = check_policy(side, side, Policy.parse(text))
    assert (found.figure, found.promised, found.kept) == (figure, Policy.parse(text).bound.value, kept)
    assert found.here == pytest.approx(here, abs=1e-12)
    assert found.own == found.here
    assert found.here_interval[0] < here < found.here_interval[1]
    assert check_policy(None, side, Policy.parse(text)).own is None


def test_the_interval_of_a_bound_is_the_one_of_the_metric() -> None:
    here = drawn(300, per_group=3)
    change = next(change for change in find_changes(None, here) if change.metric.name == "precision")
    found = check_policy(None, here, Policy.parse("precision>=0.9"))
    assert (found.here, found.here_interval) == (change.here, change.here_interval)


def test_a_bound_that_is_undefined_or_absent() -> None:
    side = scored([0.1, 0.2, 0.3], [0, 0, 1])
    found = check_policy(None, side, Policy.parse("precision>=0.9"))
    assert (found.here, found.here_interval, found.kept) == (None, None, None)
    assert check_policy(None, side, F1) is None
    assert check_policy(None, side, Policy.parse("cost:1,10")) is None
    assert check_policy(side, side.select(np.arange(0)), Policy.parse("recall>=0.9")) is None
