"""Disagreements between label and score, and label errors by confident learning."""

import hashlib

import numpy as np
import pytest

from haechi.predict.evaluation.disagreements import find_disagreements, likely_label_errors
from haechi.predict.evaluation.scored import Scored


def scored(labels: list[int], calibrated: list[float], *, threshold: float = 0.5) -> Scored:
    return Scored(
        scores=np.array(calibrated),
        labels=np.array(labels, dtype=np.int8),
        thresholds=np.full(len(labels), threshold),
        calibrated=np.array(calibrated),
        groups=np.full(len(labels), "", dtype=object),
    )


def planted(seed: int, *, size: int = 300, share: float = 0.1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Calibrated probabilities and labels of videos, and which labels were turned around."""
    rng = np.random.default_rng(seed)
    probabilities = rng.beta(0.5, 0.7, size)
    truth = (rng.random(size) < probabilities).astype(np.int8)
    is_wrong = rng.random(size) < share
    return probabilities, np.where(is_wrong, 1 - truth, truth).astype(np.int8), is_wrong


def test_the_most_confident_disagreement_comes_first() -> None:
    found = find_disagreements(scored([1, 0, 1, 0, 1], [0.9, 0.6, 0.01, 0.2, 0.3]))
    assert [each.row for each in found] == [2, 4, 1]
    assert [each.self_confidence for each in found] == pytest.approx([0.01, 0.3, 0.4])


def test_decisions_are_those_of_each_threshold() -> None:
    labels, scores = [1, 0, 0], [0.4, 0.35, 0.1]
    assert [each.row for each in find_disagreements(scored(labels, scores, threshold=0.3))] == [1]
    assert [each.row for each in find_disagreements(scored(labels, scores, threshold=0.5))] == [0]


def test_a_likely_label_error_need_not_be_a_wrong_decision() -> None:
    """At a threshold of 0.95 all are decided as safe; the one labelled safe with a probability of 0.9 is doubtful."""
    here = scored([1, 1, 0, 0, 0], [0.8, 0.7, 0.9, 0.1, 0.1], threshold=0.95)
    (error,) = [each for each in find_disagreements(here) if each.is_likely_label_error]
    assert (error.row, error.self_confidence) == (2, pytest.approx(0.1))
    assert {each.row for each in find_disagreements(here)} == {0, 1, 2}


def test_without_both_classes_no_label_is_likely_wrong() -> None:
    assert not likely_label_errors(np.array([0.1, 0.9]), np.array([1, 1])).any()
    assert likely_label_errors(np.array([]), np.array([])).shape == (0,)
    assert find_disagreements(scored([], [])) == []


def test_planted_errors_are_found() -> None:
    precision, recall = [], []
    for seed in range(20):
        probabilities, labels, is_wrong = planted(seed)
        found = likely_label_errors(probabilities, labels)
        precision.append(is_wrong[found].mean())
        recall.append(found[is_wrong].mean())
    assert np.mean(precision) > 0.4  # 0.1 of all labels are wrong
    assert np.mean(recall) > 0.4


# SHA-256 of the packed masks that `cleanlab.filter.find_label_issues(..., filter_by="confident_learning")` of cleanlab
# 2.9.0 gives for the sets of the test below. (It needs pandas, which would slow down every import of scikit-learn.)
OF_CLEANLAB = "c8523aa227f1d3d10957e7d556406a4430283fb37dd50c98fa1d09c7768560a9"


def test_the_errors_are_those_of_cleanlab() -> None:
    hashed, num_found = hashlib.sha256(), 0
    for seed in range(30):
        probabilities, labels, _ = planted(seed, size=20 + 40 * seed)
        if seed % 3 == 0:  # many equal probabilities, some of them exactly between the classes
            probabilities = np.round(probabilities * 8) / 8
        found = likely_label_errors(probabilities, labels)
        hashed.update(np.packbits(found).tobytes())
        num_found += found.sum()
    assert num_found == 2613
    assert hashed.hexdigest() == OF_CLEANLAB
