"""README and Makefile say what is there."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import haechi.cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z]+):", MAKEFILE, flags=re.MULTILINE))


def test_every_command_stands_in_the_table() -> None:
    assert re.findall(r"^\| `haechi (\w+) ", README, flags=re.MULTILINE) == list(haechi.cli.COMMANDS)


def test_every_target_named_is_there() -> None:
    named = set(re.findall(r"(?:^|`)make +([a-z]+)", README, flags=re.MULTILINE))
    assert {"demo", "test", "features", "train", "inspect"} <= named
    assert named <= TARGETS


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ("nothing (`--no-scenes`)", "random"),
        ("near-duplicate scenes (the default)", "scenes"),
        ("recordings as `group`, and scenes", "recordings"),
    ],
)
def test_the_results_are_those_of_the_runs(row: str, kind: str) -> None:
    data = json.loads((ROOT / "docs" / "runs" / f"{kind}.json").read_text())
    runs = data["experiments"]
    assert data["untrained"] == ["clip", "slowfast"]
    assert [run["settings"]["seed"] for run in runs] == [0, 1, 2, 3, 4]
    columns = [[run["metrics"]["test"][name] for run in runs] for name in ("f1", "balanced_accuracy", "roc_auc")]
    columns.append([run["best_threshold"] for run in runs])
    cells = [f"{sum(c) / len(c):.3f} ({min(c):.3f} to {max(c):.3f})" for c in columns]
    assert f"| {row} | {' | '.join(cells)} |" in README
    figures = runs[0]["metrics"]["test"]
    harmful = figures["true_positive"] + figures["false_negative"]
    safe = figures["false_positive"] + figures["true_negative"]
    always = 2 * harmful / (2 * harmful + safe)
    assert f"{harmful + safe} surveillance clips ({harmful} fights, {safe} other)" in README
    assert f"To call every clip a fight scores F1 {always:.3f}." in README


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_help_lists_every_target() -> None:
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in TARGETS:
        assert re.search(rf"^  {target} ", listed, flags=re.MULTILINE), target


def test_no_target_is_taken_for_a_folder() -> None:
    """`predict/` and `bench/` are folders here: a target of that name that is not phony is never made."""
    phony = re.search(r"^\.PHONY: (.+)$", MAKEFILE, flags=re.MULTILINE)
    assert phony is not None
    assert set(phony[1].split()) == TARGETS


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_arguments_reach_the_command() -> None:
    for target, command in (("train", "haechi train"), ("inspect", "haechi inspect"), ("verify", "haechi verify")):
        dry = ["make", "--dry-run", "-o", ".venv/installed", target, "CACHE=a b", "ARGS=--seed 3"]
        printed = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert re.search(rf"{command} 'a b'.*--seed 3", printed), printed
