"""A sample of the labelled videos."""

import json
from pathlib import Path

import numpy as np
import pytest

from haechi.train.api import train_head, train_heads
from haechi.train.data.sample import draw_sample
from tests import synthetic

NONE = ""


def test_it_is_stratified_and_random() -> None:
    labels = (np.arange(1000) < 270).astype(np.int8)
    groups = np.full(1000, NONE, dtype=object)
    first, again, other = (draw_sample(labels, groups, 100, seed=seed) for seed in (0, 0, 1))
    assert (len(first), labels[first].sum()) == (100, 27)
    assert first.tolist() == again.tolist() == sorted(first.tolist())
    assert first.tolist() != other.tolist()


def test_groups_are_whole() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=600).astype(np.int8)
    groups = np.array([f"g{i}" for i in rng.integers(100, size=600)], dtype=object)
    drawn = draw_sample(labels, groups, 200, seed=0)
    assert not set(groups[drawn].tolist()) & set(np.delete(groups, drawn).tolist())
    assert 150 <= len(drawn) <= 202


def test_a_rare_class_stays() -> None:
    labels = np.array([1, *[0] * 999], dtype=np.int8)
    assert labels[draw_sample(labels, np.full(1000, NONE, dtype=object), 10, seed=0)].sum() == 1


def test_all_are_enough() -> None:
    labels = np.array([0, 1, 1], dtype=np.int8)
    assert draw_sample(labels, np.full(3, NONE, dtype=object), 3, seed=0).tolist() == [0, 1, 2]


def test_a_run_says_that_it_saw_a_sample(tmp_path: Path) -> None:
    cache = synthetic.write_cache(tmp_path / "cache", num_harmful=40, num_safe=60)
    result = train_head(cache, tmp_path / "run", sample=50, folds=0, moments=0)
    assert (len(result.labels), int(result.labels.sum())) == (50, 20)
    note = "a sample of 50 of 100 labelled videos (stratified, groups whole, seed 0)"
    assert note in json.loads((tmp_path / "run" / "metrics.json").read_text())["split_notes"]
    assert note in (tmp_path / "run" / "report.html").read_text()


def test_each_seed_sees_a_sample_of_its_own(tmp_path: Path) -> None:
    cache = synthetic.write_cache(tmp_path / "cache", num_harmful=40, num_safe=60)
    train_heads(cache, tmp_path / "runs", seeds=2, sample=50, folds=0, moments=0)
    first, second = ((tmp_path / "runs" / f"seed-{seed}" / "predictions.csv").read_text() for seed in (0, 1))
    ids = [{line.split(",")[0] for line in text.splitlines()} for text in (first, second)]
    assert len(ids[0]) == len(ids[1]) == 51
    assert ids[0] != ids[1]
    alone = train_head(cache, tmp_path / "alone", seed=1, sample=50, folds=0, moments=0)
    assert (tmp_path / "alone" / "predictions.csv").read_text() == second
    assert pytest.approx(len(alone.labels)) == 50
