"""One entry in `METRICS` is all that a new metric needs."""

import csv
import dataclasses
import io
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from sklearn.metrics import recall_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from haechi.train.evaluate import metrics
from haechi.train.evaluate.metrics import Metric
from haechi.train.grid import plan_trials
from haechi.train.output.console import experiments_table, fold_line, metrics_table
from haechi.train.output.experiments import Outcome, write_summary
from haechi.train.output.metrics_json import metrics_record
from haechi.train.output.page import Page
from haechi.train.output.page_html import write_page
from haechi.train.output.tensorboard import write_events
from haechi.train.output.verdict import find, verdict
from haechi.train.run_folder import EVENTS_FILE
from tests.train import runs

SPECIFICITY = Metric(
    name="specificity",
    title="specificity",
    meaning="of the safe videos, the share that is not flagged",
    exact=partial(recall_score, pos_label=0, zero_division=np.nan),
    weighted=lambda n: n.true_negative / n.num_safe,
    comparison_place=4,
    is_in_verdict=True,
)
PARTS = {f"video-{i:04d}.mp4": ("train", "val", "test")[i % 3] for i in range(40)}


def printed(table: object) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_new_metric_is_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "METRICS", (*metrics.METRICS, SPECIFICITY))
    result = runs.finish(tmp_path / "cache", num_harmful=20, num_safe=20, splits=PARTS)
    scores = np.random.default_rng(0).random(40)  # neither all right nor all wrong
    result = dataclasses.replace(result, scores=scores, thresholds=np.full(40, 0.5))
    record = metrics_record(result)
    value = record["metrics"]["test"]["specificity"]
    rows = result.split.rows("test")
    flagged = result.scores[rows] >= result.thresholds[rows]
    assert value == recall_score(result.labels[rows], flagged, pos_label=0)
    low, high = record["intervals"]["test"]["specificity"]
    assert low <= value <= high
    assert low < high
    write_page(tmp_path / "report.html", Page.of(result, title="run", command="haechi train"))
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert '<th scope="row">Specificity' in text
    assert SPECIFICITY.meaning in text
    assert f"specificity {value:.3f} against" in verdict(find(result))
    row = next(line for line in printed(metrics_table(result)).splitlines() if "specificity" in line)
    assert f"{value:.3f}" in row
    assert f"{low:.3f}–{high:.3f}" in row
    write_events(tmp_path / EVENTS_FILE, result)
    events = EventAccumulator(str(tmp_path / EVENTS_FILE))
    events.Reload()
    assert "val/specificity" in events.Tags()["scalars"]
    outcome = Outcome.of(plan_trials("model4", {}, grid=(), num_seeds=1)[0], result)
    assert f"{value:.3f}" in printed(experiments_table([outcome], "test"))
    write_summary(tmp_path, [outcome], fingerprint="f", untrained=[])
    with (tmp_path / "experiments.csv").open(newline="") as file:
        assert float(next(csv.DictReader(file))["test_specificity"]) == value


def test_folds_show_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "METRICS", (*metrics.METRICS, dataclasses.replace(SPECIFICITY, is_page_tile=True)))
    result = runs.finish(tmp_path / "cache", dataclasses.replace(runs.QUICK, folds=3), num_harmful=20, num_safe=16)
    assert f"specificity {result.folds[0].figures['specificity']:.3f}" in fold_line(result.folds[0])
    assert "specificity" in printed(metrics_table(result))
    write_page(tmp_path / "report.html", Page.of(result, title="run", command="haechi train"))
    assert '<th scope="col">Specificity' in (tmp_path / "report.html").read_text(encoding="utf-8")
