"""What `--devices` accepts, and what it says about the rest."""

import pytest
import torch

from haechi.cache.errors import SettingsError
from haechi.extract.api import extract_features
from haechi.extract.engines.coordinator import MAX_ROWS_PER_SLICE, number_of_slices
from haechi.extract.engines.devices import parse_devices


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
