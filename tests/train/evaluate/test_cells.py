import numpy as np
import pytest

from haechi.train.evaluate import cells
from haechi.train.evaluate.bootstrap import Sample, intervals, weighted_figures
from haechi.train.evaluate.cells import Cells
from haechi.train.evaluate.metrics import metrics_at


def drawn(n: int, *, digits: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, labels and thresholds (n,)."""
    rng = np.random.default_rng(digits)
    labels = (rng.random(n) < 0.3).astype(np.int8)
    scores = np.clip(0.2 * rng.normal(size=n) + 0.4 + 0.2 * labels, 0, 1).round(digits)
    return scores, labels, rng.choice([0.5, 0.55], size=n)


def test_few_videos_are_cells_by_themselves() -> None:
    scores, labels, thresholds = drawn(cells.MAX_EXACT, digits=12)
    assert Cells.of(scores, labels, thresholds).index is None
    assert Cells.of(np.append(scores, 0.5), np.append(labels, 1), 0.5).index is not None


@pytest.mark.parametrize(("digits", "tolerance"), [(3, 1e-12), (12, 3e-4)])
def test_cells_give_the_figures_of_the_videos(digits: int, tolerance: float) -> None:
    """Exactly if there are few distinct scores; at the thresholds always."""
    scores, labels, thresholds = drawn(20_000, digits=digits)
    found = Cells.of(scores, labels, thresholds)
    assert found.index is not None
    assert (found.labels[found.index] == labels).all()
    assert ((found.scores >= found.thresholds)[found.index] == (scores >= thresholds)).all()
    assert (found.scores[found.index] <= scores).all()
    weights = Sample(groups=np.full(len(scores), "", dtype=object), cells=found.index).totals
    figures = weighted_figures(found.scores, found.labels, found.thresholds, weights)
    for name, expected in metrics_at(scores, labels, thresholds).items():
        if name in figures:
            at_threshold = name not in {"roc_auc", "average_precision"}
            assert figures[name][0] == pytest.approx(expected, abs=1e-12 if at_threshold else tolerance), name


def test_intervals_from_cells_are_those_from_videos(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, labels, thresholds = drawn(3000, digits=2)
    groups = np.array([f"recording {i // 4}" if i % 3 else "" for i in range(3000)], dtype=object)
    expected = intervals(scores, labels, thresholds, groups, num_draws=200)
    monkeypatch.setattr(cells, "MAX_EXACT", 200)
    assert Cells.of(scores, labels, thresholds).index is not None
    assert intervals(scores, labels, thresholds, groups, num_draws=200) == expected
