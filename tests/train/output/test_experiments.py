import csv
import json
import statistics
from pathlib import Path

from haechi.train.grid import plan_trials
from haechi.train.output.experiments import Outcome, Spread, best_point, write_summary


def outcomes(*f1: float | None) -> list[Outcome]:
    """Two learning rates with two seeds each, and their F1; None: diverged."""
    trials = plan_trials("model4", {}, grid=("lr=1e-4,1e-3",), num_seeds=2)
    return [
        Outcome.failed(trial, "diverged")
        if value is None
        else Outcome(
            trial=trial,
            figures={"val": {"f1": value, "roc_auc": None}},
            best_epoch=1,
            threshold=0.5,
            seconds=2.0,
            error="",
        )
        for trial, value in zip(trials, f1, strict=True)
    ]


def test_spread_is_that_of_a_sample() -> None:
    assert Spread.over([0.1, 0.4, None]) == Spread(mean=0.25, sd=statistics.stdev([0.1, 0.4]))
    assert Spread.over([0.1]) == Spread(mean=0.1, sd=None)
    assert Spread.over([None]) is None


def test_the_best_point_is_that_of_the_best_mean() -> None:
    assert best_point(outcomes(0.9, 0.1, 0.6, 0.6)) == "lr=0.001"
    assert best_point(outcomes(0.9, None, 0.6, 0.6)) == "lr=0.0001"
    assert best_point(outcomes(0.5, 0.5, 0.5, 0.5)) == "lr=0.0001"
    assert best_point(outcomes(None, None, None, None)) is None


def test_both_files_hold_every_experiment(tmp_path: Path) -> None:
    write_summary(tmp_path, outcomes(0.9, None, 0.6, 0.6), fingerprint="f", untrained=["clip"])
    data = json.loads((tmp_path / "experiments.json").read_text())
    assert (data["format"], data["fingerprint"], data["untrained"]) == ("haechi-experiments", "f", ["clip"])
    assert data["best_point"] == "lr=0.0001"
    assert [(e["folder"], e["settings"]["lr"], e["error"]) for e in data["experiments"]][:2] == [
        ("lr=0.0001/seed-0", 1e-4, ""),
        ("lr=0.0001/seed-1", 1e-4, "diverged"),
    ]
    assert data["experiments"][0]["metrics"] == {"val": {"f1": 0.9, "roc_auc": None}}
    with (tmp_path / "experiments.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["val_f1"] for row in rows] == ["0.9", "", "0.6", "0.6"]
    assert [row["seed"] for row in rows] == ["0", "1", "0", "1"]
    assert {path.name for path in tmp_path.iterdir()} == {"experiments.json", "experiments.csv"}
