"""What `--devices` accepts, and what it says about the rest."""

import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from click.testing import CliRunner

import haechi.cli
from haechi.cache.errors import SettingsError
from haechi.extract.api import extract_features
from haechi.extract.engines import processes
from haechi.extract.engines.coordinator import MAX_ROWS_PER_SLICE, number_of_slices
from haechi.extract.engines.devices import parse_devices
from haechi.extract.engines.engine import Job
from haechi.extract.engines.processes import Processes
from haechi.extract.settings import ExtractSettings


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all", ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]),
        ("0,1,3", ["cuda:0", "cuda:1", "cuda:3"]),
        ("cuda:2,cuda:0", ["cuda:2", "cuda:0"]),
        ("cpu:2", ["cpu", "cpu"]),
        ("cpu", ["cpu"]),
        ("1,cpu:2", ["cuda:1", "cpu", "cpu"]),
    ],
)
def test_devices(text: str, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert parse_devices(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all", ["no CUDA device", "use --devices cpu:2"]),
        ("0", ["no 'cuda:0'; torch sees 0 CUDA devices"]),
        ("gpu,cpu:0,", ["'gpu' is no device", "'cpu:0' is no device", "'' is no device", "0,1,3, or cpu:N"]),
        ("1,1,2,cuda:2", ["'cuda:1', 'cuda:2' more than once"]),
        ("cpu:9999", ["9999 processes, expected at most 256"]),
    ],
)
def test_devices_that_are_not_there(text: str, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(SettingsError) as caught:
        parse_devices(text)
    for part in expected:
        assert part in str(caught.value)


def test_one_device_or_several() -> None:
    with pytest.raises(SettingsError) as caught:
        extract_features("nothing", "out", devices="cpu:2", device="cpu", slice="0/2")
    assert "--device cpu is for one device" in str(caught.value)
    assert "--slice 0/2 is for one process" in str(caught.value)


def test_the_number_of_slices() -> None:
    """Each worker gets several; small manifests and very large ones are cut otherwise."""
    assert number_of_slices(10, 2) == 2
    assert number_of_slices(130, 2) == 4
    assert number_of_slices(5_000, 2) == 8
    assert number_of_slices(1_000_000, 64) == 256
    assert number_of_slices(10_000_000, 8) == 10_000_000 // MAX_ROWS_PER_SLICE
    assert number_of_slices(10**9, 8) == 10_000  # the most that a cache may have


def test_cores_and_limits_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[Any, ...]] = []

    def make(target: object, args: tuple[Any, ...]) -> Mock:
        started.append(args)
        return Mock()

    monkeypatch.setattr(processes.multiprocessing, "get_context", lambda _: Mock(Process=make))
    monkeypatch.setattr(processes.joblib, "cpu_count", lambda: 16)
    for workers in (0, 9):
        job = Job(
            out=Path("out"),
            settings=ExtractSettings(workers=workers, spool_gb=9),
            producer="haechi test",
            retry=(),
            num_manifest_rows=1,
        )
        with Processes(["cuda:0", "cuda:1", "cpu"]) as engine:
            assert engine.workers == ["cuda:0", "cuda:1", "cpu (1)"]
            for worker in range(3):
                engine.start(worker, job)
    assert [args[3] for args in started] == ["cuda:0", "cuda:1", "cpu"] * 2
    assert [args[2].settings.workers for args in started] == [0] * 3 + [3] * 3
    assert {(args[2].settings.spool_gb, args[4]) for args in started} == {(3.0, 5)}


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "haechi.extract.engines.actors", raising=False)
    called = CliRunner().invoke(haechi.cli.main, ["extract", "nothing.csv", "--out", "out", "--engine", "ray"])
    assert called.exit_code == 1
    assert "--engine ray `pip install 'haechi[ray]'`" in called.output
