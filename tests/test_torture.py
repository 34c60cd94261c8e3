"""The runs of `make torture` in small sizes: nothing is lost and no damaged data is accepted."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import ffmpeg
from tests.torture.__main__ import RUNS

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Name -> result of each run, made in another process: the runs fork, and this process has threads."""
    out = tmp_path_factory.mktemp("torture") / "result.json"
    command = [sys.executable, "-m", "tests.torture", "--quick", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert out.exists(), done.stdout + done.stderr
    records = {record["name"]: record for record in json.loads(out.read_text(encoding="utf-8"))["runs"]}
    assert done.returncode == any(record["losses"] for record in records.values()), done.stderr
    return records


@pytest.mark.parametrize("name", RUNS)
def test_nothing_is_lost(records: dict[str, Any], name: str) -> None:
    record = records[name]
    if name == "variations" and not ffmpeg.is_installed():
        pytest.skip(record["note"])
    assert record["losses"] == []
    assert record["survived"] == record["tried"] > 0
