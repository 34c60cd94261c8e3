"""In each synthetic set the label depends on what its name says, and on nothing else."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from bench.pipelines import read_columns, regression
from bench.structures import NUM_LOGITS, STRUCTURES, SyntheticSet
from haechi.train.data.dataset import Dataset

WIDTH = 64


def draw(structure: str, *, num_videos: int = 300, num_tested: int = 300) -> tuple[Dataset, np.ndarray | None]:
    return SyntheticSet(structure=structure, num_videos=num_videos, ratio=1, width=WIDTH).draw(0, num_tested=num_tested)


def best_column(values: np.ndarray, labels: np.ndarray) -> float:
    return max(abs(roc_auc_score(labels, column) - 0.5) for column in values.T) + 0.5


@pytest.mark.parametrize("structure", STRUCTURES)
def test_an_oracle_reaches_about_the_same(structure: str) -> None:
    dataset, oracle = draw(structure)
    assert (oracle is None) == (structure == "none")
    if oracle is not None:
        assert roc_auc_score(dataset.labels, oracle) == pytest.approx(0.9, abs=0.03)


@pytest.mark.parametrize(
    ("structure", "seen"),
    [("mean", "mean"), ("spread", "spread"), ("none", ""), ("ramp", ""), ("two events", ""), ("one row", "")],
)
def test_pooled_columns_tell_the_label_only_where_they_should(structure: str, seen: str) -> None:
    dataset, _ = draw(structure)
    columns = read_columns(dataset)
    fit, test = (np.flatnonzero((dataset.splits == "test") == is_test) for is_test in (False, True))
    scores = {name: regression(name)(columns, fit, 0)[test] for name in ("mean", "spread", "constant")}
    for name, values in scores.items():
        auc = roc_auc_score(dataset.labels[test], values)
        assert (auc > 0.7) if name == seen else (0.4 < auc < 0.6), name


@pytest.mark.parametrize("structure", ["ramp", "two events", "one row", "few rows"])
def test_the_mean_of_the_rows_is_blind(structure: str) -> None:
    dataset, _ = draw(structure)
    assert best_column(read_columns(dataset).pooled["mean"], dataset.labels) < 0.6


def test_an_interaction_needs_both_streams() -> None:
    dataset, oracle = draw("interaction")
    columns = read_columns(dataset)
    assert oracle is not None
    for stream in ("mean", "constant"):
        assert best_column(columns.pooled[stream], dataset.labels) < 0.6
    one, other = (columns.pooled[stream] - columns.pooled[stream].mean(axis=0) for stream in ("mean", "constant"))
    products = (one[:, :, None] * other[:, None, :64]).reshape(600, -1)
    correlations = np.corrcoef(products.T, np.sign(oracle))[-1, :-1]
    assert np.abs(correlations).max() > 0.3


def test_counts_and_shapes() -> None:
    dataset, _ = SyntheticSet(structure="one row", num_videos=101, ratio=0.01, width=WIDTH).draw(0, num_tested=40)
    test = dataset.splits == "test"
    assert (dataset.labels[~test].sum(), dataset.labels[test].sum(), len(dataset.labels)) == (3, 20, 141)
    assert dataset.features.widths == (WIDTH, NUM_LOGITS)
    assert dataset.features.num_rows == 60
    again, _ = SyntheticSet(structure="one row", num_videos=101, ratio=0.01, width=WIDTH).draw(0, num_tested=40)
    other, _ = SyntheticSet(structure="one row", num_videos=101, ratio=0.01, width=WIDTH).draw(1, num_tested=40)
    assert (again.labels == dataset.labels).all()
    assert (other.labels != dataset.labels).any()
    names = [SyntheticSet(structure="mean", num_videos=1000, ratio=r, width=512).name for r in (2.7, 0.01)]
    assert names == ["mean, 1,000 videos, 2.7 : 1, width 512", "mean, 1,000 videos, 1 : 100, width 512"]
