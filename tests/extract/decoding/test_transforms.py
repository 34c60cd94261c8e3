import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from haechi.extract.backbones.slowfast import TRANSFORM
from haechi.extract.decoding.transforms import FrameTransform

SIZES = [(240, 320), (720, 1280), (1280, 720), (181, 321), (224, 224), (100, 90), (225, 224), (333, 777), (256, 340)]


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_clip_frames_are_open_clips_own_to_the_pixel(height: int, width: int) -> None:
    frame = noise(height, width)
    ours = FrameTransform(size=224, interpolation="bicubic")(frame)
    pixels = torch.from_numpy(ours.copy()).permute(2, 0, 1).float() / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))
    theirs = open_clip.image_transform(224, is_train=False)(Image.fromarray(frame))
    assert torch.equal((pixels - mean) / std, theirs)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_squash_is_open_clips_own_to_the_pixel(height: int, width: int) -> None:
    frame = noise(height, width)
    ours = FrameTransform(size=224, interpolation="bicubic", mode="squash")(frame)
    theirs = open_clip.image_transform(224, is_train=False, resize_mode="squash", mean=(0,) * 3, std=(1,) * 3)
    assert torch.equal(torch.from_numpy(ours.copy()).permute(2, 0, 1).float() / 255, theirs(Image.fromarray(frame)))


@pytest.mark.parametrize(("height", "width"), [*SIZES, (30, 70), (16, 16), (90, 20), (2160, 3840)])
def test_slowfast_frames_are_torchvisions_float_frames(height: int, width: int) -> None:
    frame = noise(height, width)
    ours = torch.from_numpy(TRANSFORM(frame).copy()).permute(2, 0, 1).float()
    pixels = torch.from_numpy(frame).permute(2, 0, 1).float()
    theirs = F.center_crop(F.resize(pixels, 256, InterpolationMode.BILINEAR, antialias=True), 256)
    assert (ours - theirs).abs().max() <= 0.08  # float16 holds eighths beyond 128
