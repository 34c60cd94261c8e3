"""Features straight from the backbones, without a queue."""

import numpy as np
import torch

from haechi.cache.schema import FRAME_STREAM, WINDOW_STREAM
from haechi.extract.backbones.pair import Backbones


def video_features(backbones: Backbones, images: torch.Tensor, windows: torch.Tensor) -> list[dict[str, np.ndarray]]:
    """Dataset -> rows of each of B videos: images (B, T, h, w, 3), and one window each (B, F, H, W, 3)."""
    frames = {FRAME_STREAM: images.flatten(0, 1), WINDOW_STREAM: windows}
    counts = {FRAME_STREAM: [images.shape[1]] * len(images), WINDOW_STREAM: [1] * len(windows)}
    videos, _ = backbones.start(frames, counts).result()
    return videos
