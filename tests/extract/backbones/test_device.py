"""What `Compute` chooses where the settings leave it open, and what it changes in torch."""

import joblib
import pytest
import torch

from haechi.extract.backbones.device import Compute, Mark
from haechi.extract.settings import ExtractSettings

CPU = ExtractSettings(device="cpu")


@pytest.mark.parametrize(("cores", "workers"), [(1, 1), (2, 1), (16, 2)])
def test_on_a_cpu_the_backbones_get_the_cores(cores: int, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joblib, "cpu_count", lambda: cores)
    compute = Compute.choose(CPU)
    assert (compute.workers, compute.threads) == (workers, cores)
    assert (compute.batch_frames, compute.batch_windows) == (32, 2)


def test_beside_a_gpu_the_decoders_get_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joblib, "cpu_count", lambda: 16)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    compute = Compute.choose(ExtractSettings())
    assert compute.name == "cuda (NVIDIA H100)"
    assert (compute.workers, compute.threads, compute.precision) == (15, 1, "bf16")
    assert (compute.batch_frames, compute.batch_windows) == (512, 16)


def test_settings_of_the_user_are_kept() -> None:
    given = {"workers": 3, "batch_frames": 7, "batch_windows": 5, "precision": "bf16"}
    compute = Compute.choose(ExtractSettings(device="cpu", **given))  # type: ignore[arg-type]
    assert {name: getattr(compute, name) for name in given} == given


def test_torch_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads(), torch.backends.cudnn.allow_tf32
    monkeypatch.setattr(joblib, "cpu_count", lambda: before[0] + 1)
    with Compute.choose(CPU).applied():
        assert (torch.get_num_threads(), torch.backends.cudnn.allow_tf32) == (before[0] + 1, False)
    assert (torch.get_num_threads(), torch.backends.cudnn.allow_tf32) == before


def test_marks_on_a_cpu_use_the_clock() -> None:
    first, second = Mark(torch.device("cpu")), Mark(torch.device("cpu"))
    second.wait()
    assert 0 <= second.since(first) < 1
