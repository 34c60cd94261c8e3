import json
import warnings

import numpy as np
import pytest

from haechi.train.evaluate.metrics import metrics_at

NAMES = ("f1", "precision", "recall", "accuracy", "balanced_accuracy", "average_precision", "roc_auc")


def test_a_case_worked_by_hand() -> None:
    labels = np.array([1, 1, 1, 0, 0])
    scores = np.array([0.9, 0.6, 0.2, 0.7, 0.1])
    found = metrics_at(scores, labels, 0.5)
    assert (found["true_positive"], found["false_positive"]) == (2, 1)
    assert (found["true_negative"], found["false_negative"]) == (1, 1)
    assert found["precision"] == pytest.approx(2 / 3)
    assert found["recall"] == pytest.approx(2 / 3)
    assert found["f1"] == pytest.approx(2 / 3)
    assert found["accuracy"] == pytest.approx(3 / 5)
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert found["roc_auc"] == pytest.approx(4 / 6)  # pairs in order: (0.9, both), (0.6, 0.1), (0.2, 0.1)
    assert found["average_precision"] == pytest.approx((1 / 1 + 2 / 3 + 3 / 4) / 3)


@pytest.mark.parametrize(
    ("labels", "threshold", "undefined"),
    [
        ([1, 1], 0.5, {"balanced_accuracy", "average_precision", "roc_auc"}),
        ([0, 0], 0.5, {"recall", "balanced_accuracy", "average_precision", "roc_auc"}),
        ([0, 0], 0.9, {"f1", "precision", "recall", "balanced_accuracy", "average_precision", "roc_auc"}),
        ([0, 1], 0.9, {"precision"}),
        ([0, 1], 0.5, set()),
    ],
)
def test_undefined_figures_are_none(labels: list, threshold: float, undefined: set) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = metrics_at(np.array([0.4, 0.6]), np.array(labels), threshold)
    assert {name for name in NAMES if found[name] is None} == undefined
    json.dumps(found, allow_nan=False)
