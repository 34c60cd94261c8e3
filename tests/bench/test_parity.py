"""The real run agrees with the reference implementation, and parity finds errors that are put in."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench import parity
from bench.networks import SIDE, write_clip_config
from bench.parity import BOUNDS, compare, extracted, reference_features, relative_error
from bench.videos import pick_videos
from haechi.extract.backbones import openclip, slowfast
from haechi.extract.decoding.transforms import FrameTransform
from haechi.extract.settings import ExtractSettings

# Features of the tiny networks are large compared with their differences, so float16 changes them more than real ones.
BOUND_STORAGE = 0.005
# The same holds for bfloat16: on a processor that computes in it, one run of eight reached 0.0307.
BOUND_BF16 = 0.04


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Videos of constant and of variable frame rate."""
    return pick_videos(None, tmp_path_factory.mktemp("videos"), num_videos=3, height=90, width=160, num_frames=40)


@pytest.fixture
def settings(small_slowfast: None, tmp_path: Path) -> ExtractSettings:
    model = write_clip_config(tmp_path / "clip")
    return ExtractSettings(
        clip_model=model, clip_weights="random:0", slowfast_weights="random:0", frames=8, device="cpu", precision="fp32"
    )


def test_every_bound_is_kept(videos: list[Path], settings: ExtractSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "BOUND_STORAGE", BOUND_STORAGE)
    monkeypatch.setitem(BOUNDS, "bf16", BOUND_BF16)
    rows = compare(videos, settings, precisions=["bf16"])
    assert len(rows) == 19
    assert not [row for row in rows if not row.holds]


def test_a_wrong_transform_is_seen(
    videos: list[Path], settings: ExtractSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = reference_features(videos, settings)
    bilinear = FrameTransform(size=SIDE, interpolation="bilinear")
    monkeypatch.setattr(openclip, "_transform", lambda preprocess, name: bilinear)  # in place of bicubic
    monkeypatch.setattr(slowfast, "MEAN", 0.46)
    errors = extracted(videos, settings).errors(reference)
    assert min(errors.values()) > BOUNDS["fp32"], errors


def test_an_error_is_relative_to_the_distance_of_different_rows() -> None:
    reference = np.array([[0.0, 0.0], [4.0, 0.0]], np.float32)
    assert relative_error(reference + np.array([[0, 0], [0, 1]]), reference) == 0.25
    assert relative_error(reference[::-1].copy(), reference) == 1.0


def test_videos_are_held_to_their_own_features(videos: list[Path], settings: ExtractSettings) -> None:
    reference = reference_features(videos, settings)
    swapped = replace(reference, slowfast=np.roll(reference.slowfast, 1, axis=0))
    errors = swapped.errors(reference)
    assert errors["slowfast"] > BOUNDS["fp32"] > errors["clip"] == 0
