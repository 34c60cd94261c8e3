"""The report's method of extraction, common in notebooks: the baseline of `bench.extract`."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import open_clip
import torch
from PIL import Image
from torch import Tensor, nn

from haechi.extract.backbones.slowfast import MODELS
from haechi.extract.settings import ExtractSettings

NUM_FRAMES, SIDE, ALPHA = 32, 256, 4
MEAN, STD = 0.45, 0.225


class ReportExtractor:
    """Both networks in float32, with random weights, because speed does not depend on the weights."""

    def __init__(self, settings: ExtractSettings, device: torch.device) -> None:
        self._device = device
        clip, _, self._preprocess = open_clip.create_model_and_transforms(settings.clip_model)
        self._clip: Any = clip.eval().to(device)
        self._slowfast: nn.Module = MODELS[settings.slowfast_model](pretrained=False).eval().to(device)

    @torch.no_grad()
    def extract(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        """The CLIP embeddings (32, 512) and SlowFast logits (400,) of one video."""
        frames = read_frames(path)
        embeddings = []
        for frame in frames:  # one frame at a time
            picture: Tensor = self._preprocess(Image.fromarray(frame)).unsqueeze(0)  # (1, 3, h, w)
            embeddings.append(self._clip.encode_image(picture.to(self._device)).cpu().numpy()[0])
        fast = torch.from_numpy(np.stack(frames)).permute(3, 0, 1, 2).float() / 255  # (3, 32, 256, 256)
        fast = ((fast - MEAN) / STD).unsqueeze(0).to(self._device)
        slow = fast[:, :, torch.linspace(0, NUM_FRAMES - 1, NUM_FRAMES // ALPHA).long()]
        logits = self._slowfast([slow, fast]).cpu().numpy()[0]
        return np.stack(embeddings), logits


def read_frames(path: Path) -> list[np.ndarray]:
    """32 evenly spaced frames (256, 256, 3), with a seek for each."""
    video = cv2.VideoCapture(str(path))
    num_frames = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    frames = []
    for index in np.linspace(0, num_frames - 1, NUM_FRAMES, dtype=int):
        video.set(cv2.CAP_PROP_POS_FRAMES, int(index))
        was_read, frame = video.read()
        if not was_read:
            frame = np.zeros((SIDE, SIDE, 3), np.uint8)  # as in the report: a black frame
        frames.append(cv2.resize(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), (SIDE, SIDE)))
    video.release()
    return frames
