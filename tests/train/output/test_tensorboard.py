import dataclasses
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from haechi.train.output.tensorboard import write_events
from haechi.train.run_folder import EVENTS_FILE
from tests.train import runs


def read(path: Path) -> EventAccumulator:
    events = EventAccumulator(str(path))
    events.Reload()
    return events


def test_tensorboard_reads_every_epoch(tmp_path: Path) -> None:
    result = runs.finish(tmp_path / "cache")
    write_events(tmp_path / EVENTS_FILE, result)
    events = read(tmp_path / EVENTS_FILE)
    scalars = events.Scalars("loss/train")
    assert [scalar.step for scalar in scalars] == [1, 2, 3]
    assert [scalar.value for scalar in scalars] == pytest.approx([epoch.train_loss for epoch in result.epochs])
    assert events.Scalars("val/f1")[-1].value == pytest.approx(result.epochs[-1].metrics["f1"])
    assert "val" in events.Tags()["tensors"]  # the PR curve
    assert {path.name for path in tmp_path.iterdir()} == {"cache", EVENTS_FILE}


def test_each_fold_has_its_curves(tmp_path: Path) -> None:
    result = runs.finish(tmp_path / "cache", dataclasses.replace(runs.QUICK, folds=3))
    write_events(tmp_path / EVENTS_FILE, result)
    tags = read(tmp_path / EVENTS_FILE).Tags()["scalars"]
    assert {tag.partition("/")[0] for tag in tags} == {"fold 1", "fold 2", "fold 3"}
