"""README and Makefile say what is there."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import haechi

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z]+):", MAKEFILE, flags=re.MULTILINE))


def test_every_command_stands_in_the_table() -> None:
    assert re.findall(r"^\| `haechi (\w+) ", README, flags=re.MULTILINE) == list(haechi.COMMANDS)


def test_every_target_named_is_there() -> None:
    named = set(re.findall(r"(?:^|`)make +([a-z]+)", README, flags=re.MULTILINE))
    assert {"demo", "test", "features", "train", "inspect"} <= named
    assert named <= TARGETS


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("run", ["one-run", "one-run-grouped"])
def test_the_results_are_those_of_the_run(run: str) -> None:
    metrics = json.loads((ROOT / "docs" / run / "metrics.json").read_text())
    val = metrics["metrics"]["val"]
    figures = [val["f1"], val["balanced_accuracy"], val["roc_auc"], metrics["best_threshold"]]
    cells = " | ".join([*(f"{figure:.3f}" for figure in figures), str(metrics["best_epoch"])])
    assert f"| {cells} | [metrics](docs/{run}/metrics.json) |" in README
    assert metrics["untrained"] == ["clip", "slowfast"]
    num_harmful, num_safe = (metrics["counts"]["val"][name] for name in ("harmful", "safe"))
    assert (
        f"would score F1 {2 * num_harmful / (2 * num_harmful + num_safe):.3f} on these {num_harmful + num_safe}"
        in README
    )


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_help_lists_every_target() -> None:
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in TARGETS:
        assert re.search(rf"^  {target} ", listed, flags=re.MULTILINE), target


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_arguments_reach_the_command() -> None:
    for target, command in (("train", "haechi train"), ("inspect", "haechi inspect"), ("verify", "haechi verify")):
        dry = ["make", "--dry-run", "-o", ".venv/installed", target, "CACHE=a b", "ARGS=--seed 3"]
        printed = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert re.search(rf"{command} 'a b'.*--seed 3", printed), printed
