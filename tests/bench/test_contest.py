"""The contest runs from end to end, and regrets are those of the mean ROC AUC."""

import json
from pathlib import Path

import click
import numpy as np
import pytest

from bench import contest, measure
from bench.structures import SyntheticSet
from tests.synthetic import write_cache

GROUPS = {f"video-{i:04d}.mp4": f"scene-{i // 2}" for i in range(60)}
SMALL = contest.Contestant(settings={"preset": "fast", "projection": 8, "feedforward": 8, "device": "cpu"})


def test_quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = write_cache(tmp_path / "cache", num_harmful=36, num_safe=24, groups=GROUPS)
    few = {"default": SMALL, "regression": contest.CONTESTANTS["regression"], "RBF SVM": contest.CONTESTANTS["RBF SVM"]}
    monkeypatch.setattr(contest, "CONTESTANTS", few)
    contest.main.main(["--quick", "--data", str(cache), "--out", str(tmp_path)], standalone_mode=False)
    result = json.loads((tmp_path / f"contest-{measure.device_kind()}.json").read_text())
    found = {row["what"]: row["median"] for row in result["rows"]}
    clips, synthetic = result["sets"]
    assert (clips, synthetic) == ("60 clips, untrained image features", "mean, 40 videos, 1 : 1, width 64")
    for name in few:
        assert 0 <= found[f"{clips}: {name}: ROC AUC"] <= 1
        assert 0 <= found[f"{clips}: {name}: ROC AUC, mean of the folds"] <= 1
        assert found[f"largest regret: {name}"] >= 0
    assert 0 <= found[f"{clips}: default: F1"] <= 1
    assert f"{clips}: regression: F1" not in found  # it chooses no threshold
    assert found[f"{synthetic}: oracle: ROC AUC"] > 0.7


def test_all_contestants_are_tested_on_the_same_videos(tmp_path: Path) -> None:
    cache = write_cache(tmp_path / "cache", num_harmful=36, num_safe=24, groups=GROUPS)
    race = contest.cached(cache, None).draw(1)
    ours, theirs = (race.plan(**settings).splits for settings in ({"preset": "fast"}, {"preset": "model4"}))
    for one, other in zip(ours, theirs, strict=True):
        assert (one.rows("test") == other.rows("test")).all()
        inside = set(race.dataset.groups[one.rows("test")])
        assert not inside & set(np.delete(race.dataset.groups, one.rows("test")))


def test_classifiers_never_see_a_test_label() -> None:
    race = contest.synthetic(SyntheticSet(structure="none", num_videos=60, ratio=1, width=64), num_tested=40).draw(0)
    contestants = {"head": SMALL, "regression": contest.CONTESTANTS["regression"]}
    before = {name: scores for name, (scores, _), _ in contest.run_all(race, contestants, epochs=1)}
    tested = race.dataset.splits == "test"
    race.dataset.labels[tested] = 1 - race.dataset.labels[tested]
    after = {name: scores for name, (scores, _), _ in contest.run_all(race, contestants, epochs=1)}
    for name in contestants:
        assert (before[name][tested] == after[name][tested]).all(), name


def test_regret_is_the_distance_to_the_best_of_the_row() -> None:
    found = {
        ("mean, 10", "a", "ROC AUC"): [0.7, 0.9],
        ("mean, 10", "b", "ROC AUC"): [0.7, 0.7],
        ("mean, 10", "oracle", "ROC AUC"): [1.0, 1.0],
        ("mean, 10", "a", "seconds"): [9.0, 9.0],
        ("none, 10", "b", "ROC AUC"): [0.4, 0.4],
        ("none, 10", "a", "ROC AUC"): [0.6, 0.6],
    }
    regrets = contest.regrets(found)
    assert regrets["a"] == {"mean, 10": 0}
    assert regrets["b"] == {"mean, 10": pytest.approx(0.1)}


def test_sets_with_too_few_of_a_class_are_left_out() -> None:
    sets = contest.synthetic_sets(["mean"], [100, 1000], [2.7, 0.01], [512])
    assert [(each.num_videos, each.ratio) for each in sets] == [(100, 2.7), (1000, 2.7), (1000, 0.01)]


def test_nothing_to_compare_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(click.UsageError, match="nothing to compare on"):
        contest.main.main(["--no-synthetic", "--out", str(tmp_path)], standalone_mode=False)
