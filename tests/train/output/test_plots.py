import dataclasses
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from haechi.train.output.plots import draw_confusion_matrix, draw_curves
from haechi.train.result import Result
from haechi.train.settings import TrainSettings
from tests import synthetic
from tests.train import runs

FOLDS = dataclasses.replace(runs.QUICK, folds=3)


def red_pixels(path: Path) -> int:
    picture = matplotlib.image.imread(path)
    return int(((picture[..., 0] > 0.6) & (picture[..., 1:3] < 0.3).all(axis=2)).sum())


def assert_nothing_is_cut_off(path: Path) -> None:
    picture = matplotlib.image.imread(path)
    assert (picture[[0, -1]] == 1).all()
    assert (picture[:, [0, -1]] == 1).all()


@pytest.mark.parametrize("settings", [runs.QUICK, FOLDS], ids=["parts", "folds"])
@pytest.mark.parametrize("draw", [draw_confusion_matrix, draw_curves])
def test_pictures_are_whole_and_say_untrained(tmp_path: Path, draw, settings: TrainSettings) -> None:
    draw(tmp_path / "a.png", runs.finish(tmp_path / "cache", settings))
    assert_nothing_is_cut_off(tmp_path / "a.png")
    assert red_pixels(tmp_path / "a.png") > 100  # UNTRAINED
    draw(tmp_path / "b.png", trained(tmp_path / "trained", settings))
    assert red_pixels(tmp_path / "b.png") == 0


def trained(path: Path, settings: TrainSettings) -> Result:
    return runs.finish(path, settings, source=synthetic.provenance(trained=True))


def test_a_test_part_has_its_own_matrix(tmp_path: Path) -> None:
    draw_confusion_matrix(tmp_path / "val.png", runs.finish(tmp_path / "a"))
    draw_confusion_matrix(
        tmp_path / "both.png", runs.finish(tmp_path / "b", dataclasses.replace(runs.QUICK, test_fraction=0.2))
    )
    val, both = (matplotlib.image.imread(tmp_path / name) for name in ("val.png", "both.png"))
    assert both.shape[1] == 2 * val.shape[1]
    assert_nothing_is_cut_off(tmp_path / "both.png")


def test_one_line_for_each_fold(tmp_path: Path) -> None:
    draw_curves(tmp_path / "one.png", runs.finish(tmp_path / "a"))
    draw_curves(tmp_path / "folds.png", runs.finish(tmp_path / "b", FOLDS))
    one, folds = (np.asarray(matplotlib.image.imread(tmp_path / name)) for name in ("one.png", "folds.png"))
    assert one.shape == folds.shape
    assert (one != folds).any()
