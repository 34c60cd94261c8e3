"""The rules choose what they say, and the bench runs from end to end."""

import json
from pathlib import Path

import numpy as np
import pytest

from bench import measure, thresholds
from bench.thresholds import Scored, Simulation
from haechi.train.evaluate.metrics import metrics_at
from tests.synthetic import write_cache

GROUPS = {f"video-{i:04d}.mp4": f"scene-{i // 2}" for i in range(60)}


def some_scores(*, num_videos: int = 80) -> Scored:
    rng = np.random.default_rng(0)
    labels = np.arange(num_videos) % 2
    scores = 1 / (1 + np.exp(-rng.normal(size=num_videos) - labels))
    return Scored(scores=scores, labels=labels, pos_weight=1.0)


def f1(seen: Scored, threshold: float) -> float:
    return float(metrics_at(seen.scores, seen.labels, threshold)["f1"])


def test_without_shrinking_the_choice_is_exact() -> None:
    seen = some_scores()
    threshold = thresholds.shrunk(0, thresholds.temperature_scaled)(seen)
    assert f1(seen, threshold) == f1(seen, thresholds.exact(seen)) >= f1(seen, thresholds.nine_rows(seen))


def test_with_much_shrinking_only_the_probabilities_count() -> None:
    seen = some_scores()
    threshold = thresholds.shrunk(10**9, thresholds.temperature_scaled)(seen)
    assert threshold == pytest.approx(thresholds.plug_in(seen))


def test_platt_scaling_finds_slope_and_shift() -> None:
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=20_000)
    labels = (rng.random(20_000) < 1 / (1 + np.exp(-logits))).astype(int)
    seen = Scored(scores=1 / (1 + np.exp(-(2 * logits + 1))), labels=labels, pos_weight=1.0)
    assert np.abs(thresholds.platt_scaled(seen) - 1 / (1 + np.exp(-logits))).max() < 0.03


def test_simulated_f1_is_that_of_many_videos() -> None:
    simulation = Simulation(num_videos=200_000, share=0.3, auc=0.8, hard=0.2, wander=0.0)
    seen, f1_at, best = next(simulation.draws(np.random.default_rng(0)))
    pooled = seen[thresholds.POOLED]
    for threshold in (0.2, 0.5, 0.7):
        assert f1(pooled, threshold) == pytest.approx(float(f1_at(np.array(threshold))), abs=0.01)
    assert f1(pooled, thresholds.exact(pooled)) == pytest.approx(best, abs=0.01)


def test_quick(tmp_path: Path) -> None:
    cache = write_cache(tmp_path / "cache", num_harmful=36, num_safe=24, groups=GROUPS)
    thresholds.main.main(["--quick", "--data", str(cache), "--out", str(tmp_path)], standalone_mode=False)
    result = json.loads((tmp_path / f"thresholds-{measure.device_kind()}.json").read_text())
    found = {row["what"]: row["median"] for row in result["rows"]}
    for rule in thresholds.RULES:
        assert found[f"{thresholds.SIMULATIONS[0].name}: {rule}: loss of F1"] >= -1e-9
        assert found[f"60 videos, untrained image features: {rule}: loss of F1"] >= -1e-9
        assert 0 <= found[f"60 videos, untrained image features: {rule}: F1"] <= 1
