"""The slice that a job scheduler gives to a process."""

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

import haechi.cli
from haechi.cache.errors import SettingsError
from haechi.cache.slices import Slice, array_expression
from haechi.extract.cli import extract
from haechi.extract.job_array import scheduled_slice
from haechi.extract.pipeline import Extraction

DOCUMENT = Path(__file__).parents[2] / "docs" / "scale.md"


def slurm(number: int, first: int, last: int, count: int) -> dict[str, str]:
    values = {"ID": number, "MIN": first, "MAX": last, "COUNT": count, "STEP": 1}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


def skypilot(rank: int, jobs: int, node: int, nodes: int) -> dict[str, str]:
    names = ("JOB_RANK", "NUM_JOBS", "NODE_RANK", "NUM_NODES")
    return {f"SKYPILOT_{name}": str(value) for name, value in zip(names, (rank, jobs, node, nodes), strict=True)}


@pytest.mark.parametrize(
    ("environment", "pinned", "expected"),
    [
        (slurm(3, 0, 7, 8), None, "3/8"),
        (slurm(3, 3, 9, 4), 10, "3/10"),  # --array=3,7-9: the missing ones
        (slurm(2, 0, 2, 3), 10, "2/10"),  # --array=0-2: these too
        (slurm(3, 3, 3, 1) | {"HAECHI_SLICES": "5"}, None, "3/5"),
        ({"SLURM_ARRAY_TASK_ID": "3"}, 4, "3/4"),
        ({"JOB_COMPLETION_INDEX": "0", "HAECHI_SLICES": "64"}, None, "0/64"),
        ({"JOB_COMPLETION_INDEX": "5"}, 8, "5/8"),
        ({"JOB_COMPLETION_INDEX": "5", "HAECHI_SLICES": "9"}, 8, "5/9"),  # the pin refuses it
        ({"SKYPILOT_NODE_RANK": "1", "SKYPILOT_NUM_NODES": "4"}, None, "1/4"),
        ({"SKYPILOT_JOB_RANK": "1", "SKYPILOT_NUM_JOBS": "4"}, None, "1/4"),
        (skypilot(rank=7, jobs=10, node=0, nodes=1), None, "7/10"),
        (skypilot(rank=7, jobs=10, node=1, nodes=2), None, "15/20"),
    ],
)
def test_the_slice_of_a_scheduler(environment: dict[str, str], pinned: int | None, expected: str) -> None:
    assert scheduled_slice(environment | {"PATH": "/bin"}, pinned=pinned) == Slice.parse(expected)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (
            {},
            r"no variable of a job scheduler in the environment \(SLURM_ARRAY_TASK_ID, JOB_COMPLETION_INDEX, .*\); use",
        ),
        (slurm(0, 0, 1, 2) | {"JOB_COMPLETION_INDEX": "1"}, r"several job schedulers .*\(SLURM_ARRAY_TASK_ID, JOB_"),
        (slurm(3, 3, 9, 4), "this array does not count from 0 without gaps; set HAECHI_SLICES"),
        (slurm(2, 0, 8, 5), "this array does not count from 0 without gaps"),
        (slurm(8, 1, 8, 8) | {"HAECHI_SLICES": "8"}, "slice 8/8: there is no such slice; slices are numbered from 0"),
        ({"JOB_COMPLETION_INDEX": "1"}, "a completion index has no total; set HAECHI_SLICES"),
        ({"JOB_COMPLETION_INDEX": "x", "HAECHI_SLICES": "2"}, "JOB_COMPLETION_INDEX is 'x' in the environment"),
        ({"JOB_COMPLETION_INDEX": "1", "HAECHI_SLICES": ""}, "HAECHI_SLICES is '' in the environment"),
        ({"SKYPILOT_JOB_RANK": "1"}, "SKYPILOT_NUM_JOBS is '' in the environment, expected a whole number from 0"),
    ],
)
def test_an_environment_without_a_slice(environment: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        scheduled_slice(environment, pinned=None)


@pytest.mark.parametrize(
    ("numbers", "expected"), [([], ""), ([3], "3"), ([3, 7, 8, 9], "3,7-9"), ([0, 1, 3, 4], "0-1,3-4")]
)
def test_the_array_of_some_slices(numbers: list[int], expected: str) -> None:
    assert array_expression(numbers) == expected


def example(title: str) -> str:
    """The block of code below a title of docs/scale.md."""
    found = re.search(rf"^## {title}$.*?^```\w+\n(.*?)^```", DOCUMENT.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert found is not None, title
    return found[1]


def commands(script: str) -> list[list[str]]:
    """The calls of haechi in a shell script, without line continuations."""
    lines = script.replace("\\\n", " ").splitlines()
    return [shlex.split(line.strip()) for line in lines if line.strip().startswith("haechi ")]


def slurm_example() -> tuple[str, dict[str, str], int]:
    script = example("Slurm")
    array = re.search(r"^#SBATCH --array=0-(\d+)", script, flags=re.MULTILINE)
    assert array is not None
    last = int(array[1])
    return script, slurm(last, 0, last, last + 1), last + 1


def kubernetes_example() -> tuple[str, dict[str, str], int]:
    job: dict[str, Any] = yaml.safe_load(example("Kubernetes"))
    spec = job["spec"]
    assert (job["apiVersion"], job["kind"], spec["completionMode"]) == ("batch/v1", "Job", "Indexed")
    assert spec["template"]["spec"]["restartPolicy"] == "Never"  # backoffLimitPerIndex requires it
    (container,) = spec["template"]["spec"]["containers"]
    environment = {each["name"]: each["value"] for each in container["env"]}
    assert environment == {"HAECHI_SLICES": str(spec["completions"])}
    last = spec["completions"] - 1
    return shlex.join(container["command"]), environment | {"JOB_COMPLETION_INDEX": str(last)}, last + 1


def skypilot_example() -> tuple[str, dict[str, str], int]:
    task: dict[str, Any] = yaml.safe_load(example("SkyPilot"))
    submitted = re.search(r"sky jobs launch .*--num-jobs (\d+)", DOCUMENT.read_text())
    assert submitted is not None
    number = int(submitted[1])
    return task["run"], skypilot(rank=number - 1, jobs=number, node=0, nodes=1), number


def test_the_example_of_one_machine(tmp_path: Path) -> None:
    """The script runs, with a command that only says how it was called."""
    fake = tmp_path / "haechi"
    fake.write_text('#!/bin/bash\necho "$@"\n')
    fake.chmod(0o755)
    together = shlex.split(example("Several GPUs in one machine"))
    assert extract.make_context("extract", together[2:]).params["devices"] == "all"
    script = example("Several GPUs by hand")
    done = subprocess.run(
        ["bash"], input=script, text=True, capture_output=True, check=True, env={"PATH": f"{tmp_path}:{os.defpath}"}
    )
    calls = sorted(shlex.split(line) for line in done.stdout.splitlines())
    assert [call[call.index("--slice") + 1] for call in calls] == ["0/4", "1/4", "2/4", "3/4"]
    for number, call in enumerate(calls):
        assert call[call.index("--device") + 1] == f"cuda:{number}"
        assert extract.make_context("extract", call[1:]).params["slice"] == f"{number}/4"


@pytest.mark.parametrize("read", [slurm_example, kubernetes_example, skypilot_example])
def test_the_examples_of_the_documentation(read: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each script is one of bash, and its last job extracts the last slice of as many as there are jobs."""
    script, environment, number = read()
    done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    (command,) = [command for command in commands(script) if command[1] == "extract"]
    for name in ("SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX", "SKYPILOT_JOB_RANK", "SKYPILOT_NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    called: list[tuple[Slice, int]] = []

    def record(data: Path, out: Path, *, slice: Slice, **_: object) -> Extraction:
        called.append((slice.number, slice.num_slices))
        raise SettingsError(["called"])

    monkeypatch.setattr("haechi.extract.api.extract_features", record)
    result = CliRunner().invoke(haechi.cli.main, command[1:])
    assert "called" in result.output
    assert called == [(number - 1, number)]
