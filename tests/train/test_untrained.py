"""Only backbones whose features a head sees make it UNTRAINED: here CLIP is trained and SlowFast is not."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import haechi.cli
from haechi.predict.classifier import Classifier
from haechi.train.model import checkpoint
from haechi.train.untrained import of_all_heads, seen_by_head
from tests import synthetic
from tests.train.output.test_plots import red_pixels

QUICK = ["--preset", "model4", "--epochs", "1", "--feedforward", "16", "--device", "cpu", "--folds", "0"]

SAMPLING = {"name": "windows", "window_seconds": 2.0, "stride_seconds": 2.0, "clip_fps": 2.0}


def call(*args: object) -> str:
    done = CliRunner().invoke(haechi.cli.main, [*map(str, args)])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache, and runs `clip` on its trained stream and `both` on both streams, each with its output in a file."""
    folder = tmp_path_factory.mktemp("untrained")
    source = synthetic.provenance(clip_trained=True)
    model = source.settings["slowfast"] | {"model": "slowfast_r50"}
    settings = source.settings | {"sampling": SAMPLING, "slowfast": model}  # predict needs names that it knows
    source = dataclasses.replace(source, settings=settings)
    synthetic.write_cache(folder / "cache", source=source)
    for name, slowfast in [("clip", "none"), ("both", "pooled")]:
        text = call("train", folder / "cache", "--out", folder / name, *QUICK, "--slowfast", slowfast)
        (folder / f"{name}.txt").write_text(text)
    return folder


def everything(folder: Path, name: str) -> dict[str, str]:
    """Everything that could say UNTRAINED of a run, as text."""
    run = folder / name
    return {
        "train": (folder / f"{name}.txt").read_text(),
        "page": (run / "report.html").read_text(encoding="utf-8").partition("<h1")[0],
        "predict": call("predict", run, "--cache", folder / "cache"),
        "compare": call("compare", run, run),
    }


def recorded(run: Path) -> list[list[str]]:
    """The names in metrics.json and model.pt, and what predict reads."""
    metrics = json.loads((run / "metrics.json").read_text())
    saved = torch.load(run / "model.pt", weights_only=True)
    return [metrics["untrained"], saved["untrained"], Classifier.load(run).untrained]


def test_a_head_on_trained_features_is_not_called_untrained(folder: Path) -> None:
    for where, text in everything(folder, "clip").items():
        assert "UNTRAINED" not in text, where
    assert recorded(folder / "clip") == [[], [], []]
    assert red_pixels(folder / "clip" / "curves.png") == 0


def test_a_head_that_sees_one_random_backbone_names_it(folder: Path) -> None:
    for where, text in everything(folder, "both").items():
        assert "UNTRAINED" in text, where
        assert "slowfast" in text.lower(), where
        assert "random weights in clip" not in text, where
    assert recorded(folder / "both") == [["slowfast"]] * 3
    assert red_pixels(folder / "both" / "curves.png") > 100
    assert "UNTRAINED" in call("compare", folder / "clip", folder / "both")


def test_the_cache_still_says_what_it_has(folder: Path) -> None:
    assert "UNTRAINED" in call("inspect", folder / "cache")


def test_older_runs_named_all_backbones_of_the_cache(folder: Path, tmp_path: Path) -> None:
    data = torch.load(folder / "clip" / "model.pt", weights_only=True)
    torch.save(data | {"untrained": ["slowfast"]}, tmp_path / "model.pt")
    assert checkpoint.load(tmp_path / "model.pt").untrained == []
    metrics = json.loads((folder / "clip" / "metrics.json").read_text())
    (tmp_path / "metrics.json").write_text(json.dumps(metrics | {"untrained": ["slowfast"]}))
    (tmp_path / "predictions.csv").write_bytes((folder / "clip" / "predictions.csv").read_bytes())
    assert "UNTRAINED" not in call("compare", tmp_path, folder / "clip")


def test_several_runs_name_what_one_of_them_sees(folder: Path, tmp_path: Path) -> None:
    for slowfast, expected in [("none", []), ("none,pooled", ["slowfast"])]:
        out = tmp_path / slowfast
        text = call("train", folder / "cache", "--out", out, *QUICK, "--grid", f"slowfast={slowfast}", "--seeds", 1)
        assert json.loads((out / "experiments.json").read_text())["untrained"] == expected
        assert ("UNTRAINED" in text) == bool(expected)


def test_of_all_heads() -> None:
    assert seen_by_head(["clip", "slowfast"], ["slowfast/logits"]) == ["slowfast"]
    assert of_all_heads([["slowfast"], [], ["clip"]]) == ["clip", "slowfast"]
