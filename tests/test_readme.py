"""README, docs and Makefile agree with the code and with the measured figures."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import haechi.cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DOCUMENTS = {path: path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
NUMBERS = DOCUMENTS[ROOT / "docs" / "numbers.md"]
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z]+):", MAKEFILE, flags=re.MULTILINE))


def test_every_command_stands_in_the_table() -> None:
    assert re.findall(r"^\| `haechi (\w+) ", README, flags=re.MULTILINE) == list(haechi.cli.COMMANDS)


def test_every_target_named_is_there() -> None:
    named = set(re.findall(r"(?:^|`)make +([a-z]+)", README, flags=re.MULTILINE))
    assert {"demo", "test", "features", "train", "inspect"} <= named
    for text in DOCUMENTS.values():
        assert set(re.findall(r"(?:^|`)make +([a-z]+)", text, flags=re.MULTILINE)) <= TARGETS


def test_links_lead_somewhere() -> None:
    for document, text in DOCUMENTS.items():
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_every_document_is_linked_from_the_readme() -> None:
    linked = {ROOT / target for target in re.findall(r"\]\(([^)#]+)\)", README)}
    assert set(DOCUMENTS) - {ROOT / "README.md"} <= linked


def test_your_videos_are_on_the_first_screen() -> None:
    assert README.splitlines().index("## Your videos") < 40


def test_every_path_of_the_map_exists() -> None:
    """The tree of folders, and the table of what to edit."""
    tree = re.search(r"^## Where things are\n\n```\n(.*?)```", README, flags=re.MULTILINE | re.DOTALL)
    assert tree is not None
    folder = ROOT
    for line in tree[1].splitlines():
        indented, name = re.match(r"( *)(\S+/) ", line).groups()  # type: ignore[union-attr]
        path = (folder if indented else ROOT) / name
        assert path.is_dir(), path
        folder = folder if indented else path
    rows = re.findall(r"^\| ((?:add|change) .+?) \| (.+) \|$", README, flags=re.MULTILINE)
    assert len(rows) >= 10
    for change, files in rows:
        paths = re.findall(r"`([\w/.]+/[\w/.]+)`", files)
        assert paths, change
        for name in paths:
            assert (ROOT / name).exists(), f"{change}: {name}"


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ("nothing (`--no-scenes`)", "random"),
        ("near-duplicate scenes (the default)", "scenes"),
        ("recordings as `group`, and scenes", "recordings"),
        ("trained | nothing", "random-trained"),
        ("trained | near-duplicate scenes", "scenes-trained"),
        ("trained | recordings as `group`, and scenes", "recordings-trained"),
    ],
)
def test_the_results_are_those_of_the_runs(row: str, kind: str) -> None:
    data = json.loads((ROOT / "docs" / "runs" / f"{kind}.json").read_text())
    runs = data["experiments"]
    assert data["untrained"] == ([] if kind.endswith("-trained") else ["clip", "slowfast"])
    assert [run["settings"]["seed"] for run in runs] == [0, 1, 2, 3, 4]
    columns = [[run["metrics"]["test"][name] for run in runs] for name in ("f1", "balanced_accuracy", "roc_auc")]
    columns.append([run["best_threshold"] for run in runs])
    cells = [f"{sum(c) / len(c):.3f} ({min(c):.3f} to {max(c):.3f})" for c in columns]
    assert f"| {row} | {' | '.join(cells)} |" in NUMBERS
    figures = runs[0]["metrics"]["test"]
    harmful = figures["true_positive"] + figures["false_negative"]
    safe = figures["false_positive"] + figures["true_negative"]
    always = 2 * harmful / (2 * harmful + safe)
    assert f"{harmful + safe} surveillance clips ({harmful} fights, {safe} other)" in NUMBERS
    assert f"To call every clip a fight scores F1 {always:.3f}." in NUMBERS
    if kind == "scenes":  # the headline
        headline = " ".join(README.split())
        f1, balanced, auc = (f"{sum(c) / len(c):.3f}" for c in columns[:3])
        assert f"{harmful + safe} surveillance clips ({harmful} fights, {safe} other), UNTRAINED backbones" in headline
        assert f"F1 {f1}, balanced accuracy {balanced}, ROC AUC {auc}. " in headline
        assert f"A classifier that calls every clip a fight also gets F1 {always:.3f}. " in headline


def test_the_ratios_of_the_headline_are_those_of_the_benchmarks() -> None:
    ratios = {}
    for name, what in (("train", "the report's loop / Haechi, per epoch"), ("extract", "the report's method / Haechi")):
        rows = json.loads((ROOT / "docs" / "bench" / f"{name}-cpu.json").read_text())["rows"]
        (ratios[name],) = [f"{row['median']:.3g} times" for row in rows if row["what"] == what]
    headline = " ".join(README.split())
    assert f"an epoch of stage 2 is {ratios['train']} as fast as the report's loop" in headline
    assert f"On a CPU, stage 1 is {ratios['extract']} as fast as the report's method and runs only once" in headline


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


def make_with_pythons(folder: Path, **pythons: str) -> subprocess.CompletedProcess[str]:
    """`make install` where only these Pythons are on the PATH, each a shell script; nothing is installed."""
    (folder / "bin").mkdir()
    for name, script in pythons.items():
        (folder / "bin" / name.replace("_", ".")).write_text(f"#!/bin/sh\n{script}\n")
        (folder / "bin" / name.replace("_", ".")).chmod(0o755)
    command = [str(shutil.which("make")), "install", f"VENV={folder / 'venv'}"]
    environment = {"PATH": str(folder / "bin")}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_takes_the_newest_python_that_runs(tmp_path: Path) -> None:
    """A pyenv shim exists but fails if its version is not selected."""
    suitable = f'test "$1" = -c || {{ echo "RAN $0 $*"; exit 1; }}; exec {sys.executable} "$@"'
    done = make_with_pythons(
        tmp_path, python3_13="exit 127", python3_12=suitable, python3_11=suitable, python3="exit 1"
    )
    assert f"RAN {tmp_path}/bin/python3.12 -m venv {tmp_path}/venv" in done.stdout


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_says_which_python_is_needed(tmp_path: Path) -> None:
    done = make_with_pythons(tmp_path, python3_13="exit 127", python3="exit 1")
    assert done.returncode != 0
    assert "Python 3.13, 3.12 or 3.11 is needed" in done.stderr
    assert "-m venv" not in done.stdout
