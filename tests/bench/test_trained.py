"""The trained image backbone knows what pictures show, and extraction takes it."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from bench import trained
from haechi.extract.backbones.openclip import OpenClip
from haechi.extract.decoding.transforms import FrameTransform

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec(trained.PACKAGE) is None, reason=f"{trained.PACKAGE} is not installed: no trained backbone"
)

PALACE = 698  # ImageNet's class `palace`


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> OpenClip:
    name, weights = trained.write_trained(tmp_path_factory.mktemp("tower"))
    return OpenClip(model=name, weights=str(weights), device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture(scope="module")
def china() -> np.ndarray:
    datasets = pytest.importorskip("sklearn.datasets")
    return np.asarray(datasets.load_sample_image("china.jpg"))


def frame_of(picture: np.ndarray, transform: FrameTransform) -> torch.Tensor:
    return torch.tensor(transform(picture)).unsqueeze(0)


def test_it_counts_as_trained(backbone: OpenClip) -> None:
    assert backbone.identity["trained"] is True
    assert backbone.width == trained.WIDTH


def test_its_features_are_timms_pooled_output_and_know_a_palace(backbone: OpenClip, china: np.ndarray) -> None:
    tower = trained.load_tower().eval()
    frames = frame_of(china, backbone.transform)
    pixels = (frames.permute(0, 3, 1, 2).float() / 255 - 0.498) / 0.502
    with torch.inference_mode():
        pooled = tower.forward_head(tower.forward_features(pixels), pre_logits=True)
        logits = tower.get_classifier()(backbone.forward(frames)["features"])
    torch.testing.assert_close(backbone.forward(frames)["features"], pooled, rtol=1e-4, atol=1e-4)
    assert PALACE in logits[0].topk(3).indices.tolist()


def test_the_package_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trained, "PACKAGE", "no_such_package")
    with pytest.raises(
        trained.click.ClickException, match=r"needs the package no-such-package: pip install 'haechi\[b"
    ):
        trained.write_trained(tmp_path)
