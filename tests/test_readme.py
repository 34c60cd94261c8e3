"""README and Makefile say what is there."""

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
    named = set(re.findall(r"`?make ([a-z]+)", README))
    assert {"demo", "test", "features", "train", "inspect"} <= named
    assert named <= TARGETS


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


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
