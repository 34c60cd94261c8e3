"""The simulated truth is right, and the bench runs from end to end."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from bench import evaluation, measure
from bench.evaluation import World
from haechi.train.evaluate.metrics import metrics_at


def test_the_true_values_are_those_of_many_videos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "LEAST_VIDEOS", 200_000)
    monkeypatch.setattr(evaluation, "MOST_VIDEOS", 200_000)
    world, cut = World(share=0.3, distance=1.5, offset=0.4), 1.0
    drawn = world.draw(np.random.default_rng(0), cut, in_groups=True)
    figures = metrics_at(drawn.scores, drawn.labels, float(norm.cdf(cut)))
    assert {name: figures[name] for name in world.metrics(cut)} == pytest.approx(world.metrics(cut), abs=0.01)
    assert world.f1(world.best_cut) >= world.f1(np.array([0.5, 1.0, 1.5])).max()


def test_quick(tmp_path: Path) -> None:
    evaluation.main.main(["--quick", "--out", str(tmp_path)], standalone_mode=False)
    result = json.loads((tmp_path / f"evaluation-{measure.device_kind()}.json").read_text())
    found = {row["what"]: row["median"] for row in result["rows"]}
    assert {"fall of F1", "part of the fall: threshold", "prevalence of 1 %, estimated"} <= set(found)
    assert all(0 <= value <= 100 for value in found.values())
