"""Caches and runs that earlier versions wrote are read for ever (see tests/archive/README.md)."""

import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import haechi.cli
from haechi.cache.integrity.verify import verify
from haechi.cache.reader import Cache
from haechi.cache.schema import STREAMS
from haechi.predict.classifier import Classifier
from haechi.train.evaluate.compare import compare

ARCHIVE = Path(__file__).parent / "archive"
METRICS = json.loads((ARCHIVE / "run" / "metrics.json").read_text(encoding="utf-8"))


def scores_of_the_run() -> dict[str, float]:
    with (ARCHIVE / "run" / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return {row["id"]: float(row["score"]) for row in csv.DictReader(file)}


CACHES = pytest.mark.parametrize("cache", [ARCHIVE / "cache", ARCHIVE / "cache-2"], ids=["version 1", "version 2"])


@CACHES
def test_the_cache_is_read(cache: Path) -> None:
    opened = Cache.open(cache)
    assert opened.fingerprint == METRICS["fingerprint"]
    assert opened.untrained == ["clip", "slowfast"]
    assert (len(opened.media["id"]), [failure.id for failure in opened.failures]) == (15, ["safe/cut-off.mp4"])
    assert opened.rows("clip", "features").shape == (92, 32)
    assert opened.shards[0].provenance.weights == {"clip": "random:0", "slowfast": "random:0"}


def test_both_versions_hold_the_same() -> None:
    one, other = (Cache.open(ARCHIVE / name) for name in ("cache", "cache-2"))
    assert [one.shards[0].version, other.shards[0].version] == [1, 2]
    for column, values in one.media.items():
        np.testing.assert_array_equal(values, other.media[column])
    assert one.failures == other.failures
    for stream, arrays in STREAMS.items():
        np.testing.assert_array_equal(one.offset(stream), other.offset(stream))
        for name in arrays:
            np.testing.assert_array_equal(one.rows(stream, name), other.rows(stream, name))
    assert one.shards[0].provenance == other.shards[0].provenance


@CACHES
def test_the_cache_verifies(cache: Path) -> None:
    assert verify(cache).problems == []


@CACHES
@pytest.mark.parametrize("command", [["inspect"], ["inspect", "--video", "safe/safe-00.mp4"], ["verify"]])
def test_commands_take_the_cache(cache: Path, command: list[str]) -> None:
    done = CliRunner().invoke(haechi.cli.main, [command[0], str(cache), *command[1:]])
    assert done.exit_code == 0, done.output


def test_the_run_judges_as_it_did(tmp_path: Path) -> None:
    """Its head gives the scores that the version which trained it wrote down."""
    from bench.networks import write_clip_config

    classifier = Classifier.load(ARCHIVE / "run", clip_model=write_clip_config(tmp_path / "clip"), device="cpu")
    scores = {each.id: each.score for each in classifier.predict_cache(Cache.open(ARCHIVE / "cache"))}
    expected = scores_of_the_run()
    found = np.array([scores[id] for id in expected], dtype=float)
    np.testing.assert_allclose(found, list(expected.values()), atol=1e-5)
    assert classifier.models["video"].best_threshold == METRICS["best_threshold"]


def test_the_run_is_compared() -> None:
    first, second = compare([ARCHIVE / "run", ARCHIVE / "run"])
    assert METRICS["metrics"]["test"].items() <= first.figures.items()
    assert second.run.threshold == METRICS["best_threshold"]


def test_training_model4_on_the_cache_gives_the_same_figures(tmp_path: Path) -> None:
    """To the rounding of another processor; texts may be worded in another way."""
    expected = json.loads((ARCHIVE / "model4" / "metrics.json").read_text(encoding="utf-8"))
    shutil.copytree(ARCHIVE / "cache", tmp_path / "cache")
    small = ["--preset", "model4", "--projection", "16", "--feedforward", "16", "--epochs", "3"]
    parts = ["--folds", "0", "--test-fraction", "0.25", "--val-fraction", "0.3"]
    computed = ["--device", "cpu", "--precision", "fp32"]
    command = ["train", str(tmp_path / "cache"), "--out", str(tmp_path / "run"), *small, *parts, *computed]
    done = CliRunner().invoke(haechi.cli.main, command)
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert differences(expected, found) == []


def differences(old: Any, new: Any, where: str = "") -> list[str]:
    """The places at which two JSON values differ in structure or figures; sentences are not compared."""
    if isinstance(old, dict) and isinstance(new, dict):
        gone = [f"{where}.{key} is gone" for key in old.keys() - new.keys()]
        return gone + [
            text for key in old.keys() & new.keys() for text in differences(old[key], new[key], f"{where}.{key}")
        ]
    if isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            return [f"{where}: {len(old)} against {len(new)} values"]
        return [
            text for i, pair in enumerate(zip(old, new, strict=True)) for text in differences(*pair, f"{where}[{i}]")
        ]
    if isinstance(old, str) and isinstance(new, str) and " " in old:
        return []
    if isinstance(old, float) and isinstance(new, float):
        return [] if math.isclose(old, new, rel_tol=1e-4, abs_tol=1e-4) else [f"{where}: {old} against {new}"]
    return [] if old == new else [f"{where}: {old!r} against {new!r}"]
