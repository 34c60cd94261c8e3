"""A new backbone needs one class in one file, and one line in the catalog: shown with toys on real videos."""

import pkgutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch

from haechi.cache.errors import SettingsConflictError, SettingsError
from haechi.cache.integrity.verify import verify
from haechi.cache.reader import Cache
from haechi.extract.backbones import catalog, slowfast
from haechi.extract.backbones.openclip import OpenClip
from haechi.extract.cli import extract
from haechi.extract.decoding.decode import sample
from haechi.extract.decoding.limits import Limits
from haechi.extract.decoding.shared_frames import Output
from haechi.extract.decoding.transforms import FrameTransform
from haechi.extract.pipeline import Extraction
from haechi.extract.settings import ExtractSettings
from tests.extract.conftest import manifest_of
from tests.sinks import Kept

NAMES = ["sound.mp4", "one_frame.mp4", "portrait.mp4"]
WINDOWS = {"sampling": "windows", "window_seconds": 0.5, "stride_seconds": 0.25, "clip_fps": 4.0, "frames": 32}


class Brightness:
    """A motion backbone: the brightness of each of eight frames, and as logits the mean of each colour."""

    transform = FrameTransform(size=16, interpolation="bilinear")
    num_frames = 8

    def __init__(self, *, model: str, weights: str, device: torch.device, dtype: torch.dtype) -> None:
        self.identity: dict[str, Any] = {
            "model": model,
            "weights_sha256": "0" * 64,
            "trained": True,
            "widths": {"features": 8, "logits": 3},
        }

    def forward(self, frames: torch.Tensor) -> dict[str, torch.Tensor]:
        assert frames.shape[1:] == (8, 16, 16, 3)
        pixels = frames.float()
        return {"features": pixels.mean(dim=(2, 3, 4)), "logits": pixels.mean(dim=(1, 2, 3))}


class Colour:
    """An image backbone: the mean of each colour."""

    transform = FrameTransform(size=4, interpolation="bicubic")

    def __init__(self, *, model: str, weights: str, device: torch.device, dtype: torch.dtype) -> None:
        self.identity: dict[str, Any] = {
            "model": model,
            "weights_sha256": "1" * 64,
            "trained": True,
            "widths": {"features": 3},
        }

    def forward(self, frames: torch.Tensor) -> dict[str, torch.Tensor]:
        assert frames.shape[1:] == (4, 4, 3)
        return {"features": frames.float().mean(dim=(1, 2))}


@pytest.fixture
def _toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(catalog.MOTION_MODELS, "brightness", f"{__name__}:Brightness")
    monkeypatch.setitem(catalog.IMAGE_MODELS, "colour", f"{__name__}:Colour")


def decoded(path: Path, settings: ExtractSettings) -> Kept:
    """The frames that the toys see of a video."""
    kept = Kept(
        Output(transform=Colour.transform, num_frames=settings.sampler.max_clip_frames),
        Output(transform=Brightness.transform, num_frames=Brightness.num_frames),
    )
    sample(path, sampling=settings.sampler, limits=Limits.of(settings), sink=kept)
    return kept


@pytest.mark.usefixtures("_toys")
@pytest.mark.parametrize("sampling", [{"frames": 8}, WINDOWS])
def test_a_motion_backbone_is_one_class_and_one_line(
    data: Path, run: Callable[..., Extraction], tiny_settings: ExtractSettings, sampling: dict[str, Any]
) -> None:
    done = run(manifest_of(data, NAMES), slowfast_model="brightness", store="float32", workers=1, **sampling)
    assert (done.num_used, done.failures, done.untrained) == (3, {}, ["clip"])
    assert verify(done.cache).problems == []
    cache = Cache.open(done.cache)
    assert cache.settings["slowfast"]["model"] == "brightness"
    settings = replace(tiny_settings, **sampling)
    toy = Brightness(model="brightness", weights="", device=torch.device("cpu"), dtype=torch.float32)
    offset = cache.offset("slowfast")
    for i, name in enumerate(NAMES):
        windows = np.stack([arrays[1] for arrays in decoded(data / name, settings).published if len(arrays[1])])
        expected = toy.forward(torch.from_numpy(windows))
        rows = slice(*offset[i : i + 2].tolist())
        assert len(windows) == rows.stop - rows.start
        for array, values in expected.items():
            np.testing.assert_allclose(cache.rows("slowfast", array)[rows], values.numpy(), rtol=1e-5)
    assert cache.rows("slowfast", "features").std() > 1


@pytest.mark.usefixtures("_toys")
def test_an_image_backbone_is_one_class_and_one_line(
    data: Path, run: Callable[..., Extraction], tiny_settings: ExtractSettings
) -> None:
    done = run(manifest_of(data, NAMES), clip_model="colour", store="float32")
    assert (done.num_used, done.failures, done.untrained) == (3, {}, ["slowfast"])
    assert verify(done.cache).problems == []
    cache = Cache.open(done.cache)
    assert cache.settings["clip"]["model"] == "colour"
    frames = np.concatenate([decoded(data / name, tiny_settings).frames(0) for name in NAMES])
    toy = Colour(model="colour", weights="", device=torch.device("cpu"), dtype=torch.float32)
    expected = toy.forward(torch.from_numpy(frames))["features"].numpy()
    assert expected.shape == (3 * 8, 3)
    np.testing.assert_allclose(cache.rows("clip", "features"), expected, rtol=1e-5)


@pytest.mark.usefixtures("_toys")
def test_a_run_goes_on_with_the_same_model_only(
    data: Path, run: Callable[..., Extraction], no_models: Callable[[], None]
) -> None:
    assert run(manifest_of(data, NAMES[:1]), slowfast_model="brightness").num_new == 1
    no_models()
    assert run(manifest_of(data, NAMES[:1]), slowfast_model="brightness").num_new == 0
    with pytest.raises(SettingsConflictError, match=r"slowfast\.model: 'brightness' in the cache, 'slowfast_r50' here"):
        run(manifest_of(data, NAMES[:1]))


def test_models_that_are_not_in_the_catalog() -> None:
    with pytest.raises(
        SettingsError, match="slowfast_model is 'brightness', expected one of slowfast_r50, slowfast_r101"
    ):
        ExtractSettings(slowfast_model="brightness")


def test_the_catalog_is_what_the_command_offers() -> None:
    (flag,) = [parameter for parameter in extract.params if parameter.name == "slowfast_model"]
    assert isinstance(flag.type, click.Choice)
    assert list(flag.type.choices) == [*catalog.MOTION_MODELS, "none"]
    assert list(catalog.MOTION_MODELS) == list(slowfast.MODELS)
    assert {pkgutil.resolve_name(place) for place in catalog.MOTION_MODELS.values()} == {slowfast.SlowFast}
    assert {pkgutil.resolve_name(place) for place in catalog.IMAGE_MODELS.values()} == {OpenClip}
