import dataclasses
from pathlib import Path

import numpy as np

from haechi.train.evaluate.metrics import metrics_at
from tests.train import runs

FOLDS = dataclasses.replace(runs.QUICK, folds=4)


def test_the_test_part_is_judged_at_the_threshold_that_val_chose(tmp_path: Path) -> None:
    result = runs.finish(
        tmp_path / "cache", dataclasses.replace(runs.QUICK, test_fraction=0.3), num_harmful=15, num_safe=15, shift=0.1
    )
    rows = result.split.rows("test")
    assert 8 <= len(rows) <= 10
    assert result.threshold == result.epochs[result.best_epoch - 1].best.threshold
    assert result.metrics["test"] == metrics_at(result.scores[rows], result.labels[rows], result.threshold)


def test_labels_of_the_test_part_change_nothing_but_its_figures(tmp_path: Path) -> None:
    splits = {f"video-{i:04d}.mp4": ("train", "val", "test")[i % 3] for i in range(40)}
    dataset, split = runs.prepare(tmp_path / "cache", num_harmful=20, num_safe=20, shift=0.1, splits=splits)
    labels = dataset.labels.copy()
    labels[split.rows("test")] = 1 - labels[split.rows("test")]
    one, other = (runs.carry_on(d) for d in (dataset, dataclasses.replace(dataset, labels=labels)))
    assert (one.scores == other.scores).all()
    assert (one.calibrated == other.calibrated).all()
    assert one.threshold == other.threshold
    assert (one.baselines["logistic_regression"].scores == other.baselines["logistic_regression"].scores).all()
    assert one.metrics["val"] == other.metrics["val"]
    assert one.metrics["test"] != other.metrics["test"]


def test_in_cross_validation_each_video_is_judged_by_a_head_that_never_saw_it(tmp_path: Path) -> None:
    result = runs.finish(tmp_path / "cache", FOLDS, num_harmful=16, num_safe=16, shift=0.1)
    assert set(result.fold) == {1, 2, 3, 4}
    for fold in result.folds:
        rows = np.flatnonzero(result.fold == fold.number)
        assert (fold.split.rows("test") == rows).all()
        assert (result.thresholds[rows] == fold.threshold).all()
        assert fold.figures == metrics_at(result.scores[rows], result.labels[rows], fold.threshold)
        assert fold.best_epoch == [epoch.number for epoch in fold.epochs if epoch.improved][-1]
    assert result.best_epoch == round(np.median([fold.best_epoch for fold in result.folds]))
    assert result.metrics["test"]["true_positive"] == sum(fold.figures["true_positive"] for fold in result.folds)
    assert result.pos_weight == 1.0  # of all videos: the head that is kept was trained on them


def test_the_same_folds_give_the_same_head(tmp_path: Path) -> None:
    one = runs.finish(tmp_path / "a", FOLDS, shift=0.2)
    two = runs.finish(tmp_path / "b", FOLDS, shift=0.2)
    assert (one.scores == two.scores).all()
    for name, value in one.head.state_dict().items():
        assert (value == two.head.state_dict()[name]).all()
