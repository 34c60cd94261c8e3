from pathlib import Path

import pytest
import torch

from haechi.cache.errors import SettingsError
from haechi.device import find_device
from haechi.train import device
from haechi.train.device import features_limit, find_precision
from haechi.train.settings import TrainSettings

CPU = torch.device("cpu")


def test_a_device_that_is_not_there_is_an_error() -> None:
    assert find_device("cpu") == CPU
    with pytest.raises(SettingsError, match="cuda:99"):
        find_device("cuda:99")


@pytest.mark.parametrize(
    ("avx512", "amx", "expected"), [(False, False, "fp32"), (True, False, "bf16"), (False, True, "bf16")]
)
def test_bf16_only_where_the_cpu_computes_in_it(monkeypatch, avx512: bool, amx: bool, expected: str) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert find_precision(TrainSettings(precision="auto"), CPU) == expected
    assert find_precision(TrainSettings(precision="bf16"), CPU) == "bf16"
    assert find_precision(TrainSettings(), CPU) == "fp32"


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_bf16_only_where_the_gpu_computes_in_it(monkeypatch, capability: tuple, expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert find_precision(TrainSettings(precision="auto"), torch.device("cuda")) == expected


def test_a_containers_limit_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unlimited = features_limit(CPU)
    assert unlimited > 1 << 20
    (tmp_path / "v2").write_text("1000000\n")
    (tmp_path / "none").write_text("max\n")
    monkeypatch.setattr(device, "MEMORY_LIMITS", (tmp_path / "none", tmp_path / "absent", tmp_path / "v2"))
    assert features_limit(CPU) == 500_000
