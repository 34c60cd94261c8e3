"""Runs commands in this process and with tiny networks: the code of the benchmarks without the time for start-up."""

import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("cv2", reason="opencv is not installed: no benchmarks")
pytest.importorskip("psutil", reason="psutil is not installed: no benchmarks")

import haechi.cli
from bench import contestants, measure, networks
from haechi.extract.backbones import slowfast

COMMANDS = {"haechi": haechi.cli.main, "bench.tiny": haechi.cli.main, "bench.contestants": contestants.main}


@pytest.fixture
def small_slowfast(monkeypatch: pytest.MonkeyPatch) -> None:
    """slowfast_r50 is a tiny network until the test ends."""
    monkeypatch.setitem(slowfast.MODELS, "slowfast_r50", slowfast.MODELS["slowfast_r50"])
    monkeypatch.setattr(slowfast.SlowFast, "transform", slowfast.SlowFast.transform)
    networks.shrink_slowfast()


@pytest.fixture
def in_process(small_slowfast: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """`measure.run` calls a command in this process instead of starting a new one."""

    def run(command: Sequence[str | Path], *, watch: bool = False) -> measure.CommandResult:
        module, *arguments = map(str, command)
        started = time.perf_counter()
        result = CliRunner().invoke(COMMANDS[module], arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return measure.CommandResult(
            seconds=time.perf_counter() - started,
            peak_megabytes=100.0 if watch else 0.0,
            peak_child_megabytes=50.0 if watch else 0.0,
            device_megabytes=[],
            stdout=result.stdout,
        )

    monkeypatch.setattr(measure, "run", run)
