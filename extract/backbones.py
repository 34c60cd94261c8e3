"""Both backbones as one thing: load them together, run them on the frames of several videos, name their settings."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from extract.decode import Sampled
from extract.device import Compute
from extract.openclip import OpenClip
from extract.sampling import SHORT_POLICY, UNIFORM, uniform
from extract.settings import ExtractSettings
from extract.slowfast import FAST_FRAMES, SlowFast
from extract.weights import WeightsError
from extract.workers import Decoded, Output


@dataclass(frozen=True, kw_only=True)
class VideoFeatures:
    """What the backbones make of one video, float32, in host memory."""

    clip: np.ndarray
    """(T, 512) for ViT-B-32."""
    slowfast: np.ndarray
    """(1, 2304) for slowfast_r50: `uniform` sampling makes one window a video."""
    slowfast_logits: np.ndarray
    """(1, 400)."""


class Backbones:
    """The frozen networks on their device, and what they want of each video."""

    def __init__(self, settings: ExtractSettings, compute: Compute) -> None:
        """Load both. Raises `WeightsError` that names all weights that are not to be had, not only the first."""
        missing: list[str] = []

        def load(backbone: Callable[..., Any], model: str, weights: str) -> Any:
            try:
                return backbone(model=model, weights=weights, device=compute.device, dtype=compute.dtype)
            except WeightsError as error:
                missing.append(str(error))

        clip = load(OpenClip, settings.clip_model, settings.clip_weights)
        slowfast = load(SlowFast, settings.slowfast_model, settings.slowfast_weights)
        if missing:
            raise WeightsError("\n".join(missing))
        self._clip: OpenClip = clip
        self._slowfast: SlowFast = slowfast
        self._compute = compute
        self.outputs = [
            Output(transform=self._clip.transform, positions=list(range(settings.frames))),
            Output(transform=self._slowfast.transform, positions=uniform(settings.frames, FAST_FRAMES)),
        ]
        self.settings = cache_settings(settings, clip=self._clip.identity, slowfast=self._slowfast.identity)
        self.videos_per_batch = max(1, compute.batch_windows, compute.batch_frames // settings.frames)

    def new_batch(self) -> "Batch":
        """Room for the frames of `videos_per_batch` videos."""
        return Batch(self)

    def run(self, clip_frames: torch.Tensor, slowfast_frames: torch.Tensor) -> list[VideoFeatures]:
        """Features of B videos.

        `clip_frames` (B, T, h, w, 3) and `slowfast_frames` (B, 32, H, W, 3), uint8, in host memory. Larger than a
        batch is cut into batches; features leave the device with each.
        """
        num_videos, num_frames = clip_frames.shape[:2]
        flat = clip_frames.flatten(0, 1)  # (B * T, h, w, 3)
        clip = np.concatenate([self._clip.features(part) for part in torch.split(flat, self._compute.batch_frames)])
        parts = [self._slowfast.forward(part) for part in torch.split(slowfast_frames, self._compute.batch_windows)]
        slowfast, logits = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        clip = clip.reshape(num_videos, num_frames, -1)
        return [
            VideoFeatures(clip=clip[i], slowfast=slowfast[i : i + 1], slowfast_logits=logits[i : i + 1])
            for i in range(num_videos)
        ]


class Batch:
    """Frames of several videos in host memory, waiting for the backbones."""

    def __init__(self, backbones: "Backbones") -> None:
        self._backbones = backbones
        self._frames = [
            torch.empty((backbones.videos_per_batch, *output.shape), dtype=torch.uint8) for output in backbones.outputs
        ]
        self._waiting: list[tuple[int, Sampled]] = []

    @property
    def is_full(self) -> bool:
        return len(self._waiting) == len(self._frames[0])

    def add(self, index: int, decoded: Decoded) -> None:
        for frames, array in zip(self._frames, decoded.frames, strict=True):
            frames[len(self._waiting)].numpy()[:] = array
        self._waiting.append((index, decoded.sampled))

    def run(self) -> list[tuple[int, Sampled, VideoFeatures]]:
        """Features of all that wait, which then wait no longer."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return []
        features = self._backbones.run(*(frames[: len(waiting)] for frames in self._frames))
        return [(index, sampled, of_video) for (index, sampled), of_video in zip(waiting, features, strict=True)]


def cache_settings(settings: ExtractSettings, *, clip: dict[str, Any], slowfast: dict[str, Any]) -> dict[str, Any]:
    """All that decides a feature's value: what the fingerprint hashes."""
    return {
        "sampling": {"name": UNIFORM, "frames": settings.frames, "short": SHORT_POLICY},
        "store": settings.store,
        "clip": clip,
        "slowfast": slowfast,
    }
