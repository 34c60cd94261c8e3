"""A plain reference implementation of the features, which `bench.parity` compares the real code with.

PyAV decodes every frame. CLIP gets one frame at a time, through open_clip's own preprocessing. SlowFast gets one window
at a time, of float frames resized by torchvision. All is float32 on the CPU. Only names and weights are shared with
`extract`.
"""

from pathlib import Path
from typing import Any

import av
import numpy as np
import open_clip
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as picture_ops

from haechi.extract.backbones.openclip import resolve_model
from haechi.extract.backbones.slowfast import MODELS
from haechi.extract.backbones.weights import Weights
from haechi.extract.settings import ExtractSettings

# From pytorchvideo's tutorial for slowfast_r50.
SIDE, NUM_FAST, ALPHA, MEAN, STD = 256, 32, 4, 0.45, 0.225


class Reference:
    """CLIP and SlowFast as their libraries build them."""

    def __init__(self, settings: ExtractSettings, *, side: int = SIDE) -> None:
        """`side`: height and width of SlowFast's frames."""
        self._side = side
        wanted = Weights.parse(settings.clip_weights, flag="--clip-weights")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(wanted.seed or 0)
            clip, _, self._preprocess = open_clip.create_model_and_transforms(
                resolve_model(settings.clip_model, wanted),
                pretrained=None if wanted.seed is not None else str(wanted.file or wanted.tag),
            )
        self._clip: Any = clip.eval()
        wanted = Weights.parse(settings.slowfast_weights, flag="--slowfast-weights")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(wanted.seed or 0)
            self._slowfast: Any = MODELS[settings.slowfast_model](pretrained=wanted.tag is not None).eval()
        if wanted.file is not None:
            self._slowfast.load_state_dict(torch.load(wanted.file, weights_only=True)["model_state"])
        self._before_classifier: list[Tensor] = []  # the latest input of the classifier
        classifier: Any = self._slowfast.blocks[-1]
        classifier.proj.register_forward_pre_hook(lambda _, inputs: self._before_classifier.append(inputs[0]))

    @torch.no_grad()
    def clip(self, pictures: list[Image.Image]) -> np.ndarray:
        """The embeddings (T, 512) of T pictures."""
        return np.concatenate([self._clip.encode_image(self._preprocess(p).unsqueeze(0)).numpy() for p in pictures])

    @torch.no_grad()
    def slowfast(self, pictures: list[Image.Image]) -> tuple[np.ndarray, np.ndarray]:
        """The features before the classifier (2304,) and the logits (400,) of one window."""
        chosen = [pictures[i] for i in np.linspace(0, len(pictures) - 1, NUM_FAST, dtype=int)]
        frames = []
        for picture in chosen:
            frame = picture_ops.pil_to_tensor(picture).float() / 255  # (3, h, w)
            frame = picture_ops.resize(frame, [self._side], antialias=True)  # by the short side
            frame = picture_ops.center_crop(frame, [self._side, self._side])
            frames.append((frame - MEAN) / STD)
        fast = torch.stack(frames, dim=1)  # (3, 32, 256, 256)
        slow = torch.index_select(fast, 1, torch.linspace(0, NUM_FAST - 1, NUM_FAST // ALPHA).long())
        logits = self._slowfast([slow.unsqueeze(0), fast.unsqueeze(0)])[0]  # (400,)
        features = self._before_classifier.pop()[0].mean(dim=(0, 1, 2))  # (1, h, w, 2304) -> (2304,)
        return features.numpy(), logits.numpy()


def sampled(path: Path, num_samples: int) -> tuple[list[Image.Image], np.ndarray]:
    """Decode a whole video; return T frames, first and last included, and their times (T,) in seconds."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    chosen = [frames[i] for i in np.linspace(0, len(frames) - 1, num_samples, dtype=int)]
    pictures = [frame.to_image().rotate(frame.rotation, expand=True) for frame in chosen]
    return pictures, np.array([frame.time for frame in chosen])
