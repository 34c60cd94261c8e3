"""Both backbones as one thing: load them together, run them on batches of videos, name their settings."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cache.errors import HaechiError
from cache.kinds import IMAGE
from extract.decode import Sampled
from extract.device import Compute, Mark
from extract.openclip import OpenClip
from extract.sampling import SHORT_POLICY, UNIFORM, uniform
from extract.settings import ExtractSettings
from extract.slots import Output
from extract.slowfast import FAST_FRAMES, SlowFast
from extract.steps import CLIP, SLOWFAST
from extract.weights import WeightsError
from extract.workers import Decoded

# Batches on their way at once on a GPU: one is copied to it while another is computed.
BATCHES_ON_GPU = 2


# Of frames.
DTYPES: dict[type[np.generic], torch.dtype] = {np.uint8: torch.uint8, np.float16: torch.float16}


class DeviceMemoryError(HaechiError):
    """The device's memory is too small for even one frame or window."""


@dataclass(frozen=True, kw_only=True)
class MediaFeatures:
    """What the backbones make of one video or image, float32, in host memory."""

    clip: np.ndarray
    """(T, 512) for ViT-B-32; T is 1 for an image."""
    slowfast: np.ndarray
    """(1, 2304) for slowfast_r50: `uniform` sampling makes one window a video. An image has none."""
    slowfast_logits: np.ndarray
    """(1, 400), likewise."""


@dataclass(frozen=True, kw_only=True)
class Running:
    """A batch of B videos or images that the device works on. On a GPU its tensors are filled when `result` returns."""

    clip: torch.Tensor
    """(B * T, 512)"""
    slowfast: torch.Tensor
    """(B, W, 2304): W windows each, 1 of a video, 0 of an image"""
    logits: torch.Tensor
    """(B, W, 400)"""
    marks: tuple[Mark, Mark, Mark]
    """Before CLIP, between both, after SlowFast."""

    def result(self) -> tuple[list[MediaFeatures], dict[str, float]]:
        """Wait for the device. The videos' features, and the device's seconds by step."""
        start, middle, end = self.marks
        end.wait()
        clip = self.clip.numpy().reshape(len(self.slowfast), -1, self.clip.shape[1])  # (B, T, 512)
        slowfast, logits = self.slowfast.numpy(), self.logits.numpy()
        videos = [
            MediaFeatures(clip=clip[i], slowfast=slowfast[i], slowfast_logits=logits[i]) for i in range(len(clip))
        ]
        return videos, {CLIP: middle.since(start), SLOWFAST: end.since(middle)}


class Backbones:
    """The frozen networks on their device, and what they want of each video."""

    def __init__(
        self, settings: ExtractSettings, compute: Compute, *, on_notice: Callable[[str], None] = lambda text: None
    ) -> None:
        """Load both; `on_notice` hears, once, that batches had to be made smaller.

        Raises `WeightsError` that names all weights that are not to be had, not only the first.
        """
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
        self._on_notice = on_notice
        self.batch_sizes = {"batch_frames": compute.batch_frames, "batch_windows": compute.batch_windows}
        self.outputs = [
            Output(transform=self._clip.transform, positions=list(range(settings.frames))),
            Output(transform=self._slowfast.transform, positions=uniform(settings.frames, FAST_FRAMES)),
        ]
        self.settings = cache_settings(settings, clip=self._clip.identity, slowfast=self._slowfast.identity)
        self._videos_per_batch = max(1, compute.batch_windows, compute.batch_frames // settings.frames)

    def run(self, clip_frames: torch.Tensor, slowfast_frames: torch.Tensor) -> list[MediaFeatures]:
        """Features of B videos: `start`, waited for."""
        videos, _ = self.start(clip_frames, slowfast_frames).result()
        return videos

    def start(self, clip_frames: torch.Tensor, slowfast_frames: torch.Tensor | None = None) -> Running:
        """Begin with B videos, or with images, which have no frames for SlowFast; on a GPU this returns before they are
        done.

        `clip_frames` (B, T, h, w, 3) and `slowfast_frames` (B, 32, H, W, 3), 0..255, in host memory, are not to be
        changed before the result is there. More than a batch is cut into batches.

        Raises `DeviceMemoryError` where not even batches of one fit.
        """
        start = self._compute.mark()
        (clip,) = self._in_parts(lambda part: (self._clip.features(part),), clip_frames.flatten(0, 1), "batch_frames")
        middle = self._compute.mark()
        if slowfast_frames is None:
            widths = self.settings["slowfast"]["widths"]
            slowfast, logits = (torch.empty(len(clip_frames), 0, widths[name]) for name in ("features", "logits"))
        else:
            parts = self._in_parts(self._slowfast.forward, slowfast_frames, "batch_windows")
            slowfast, logits = (self._compute.to_host(part.unsqueeze(1)) for part in parts)
        return Running(
            clip=self._compute.to_host(clip),
            slowfast=slowfast,
            logits=logits,
            marks=(start, middle, self._compute.mark()),
        )

    def _in_parts(
        self, forward: Callable[[torch.Tensor], tuple[torch.Tensor, ...]], frames: torch.Tensor, what: str
    ) -> tuple[torch.Tensor, ...]:
        """Run `frames` (n, ...) in batches as large as the device's memory allows; each result is (n, ...)."""
        wanted = self.batch_sizes[what]
        while True:
            size = self.batch_sizes[what]
            try:
                parts = [forward(self._compute.to_device(part)) for part in torch.split(frames, size)]
            except torch.OutOfMemoryError as error:
                if size == 1:
                    raise DeviceMemoryError(
                        f"the memory of {self._compute.name} is too small for {what}=1; is something else using it? "
                        "--device cpu works everywhere"
                    ) from error
                self.batch_sizes[what] = min(size, len(frames)) // 2 or 1
                torch.cuda.empty_cache()
                continue
            if size < wanted:
                flag = "--" + what.replace("_", "-")
                self._on_notice(f"the memory of {self._compute.name} did not hold a batch: going on with {flag} {size}")
            return tuple(torch.cat(tensors) for tensors in zip(*parts, strict=True))

    def new_queue(self, kind: str) -> "Queue":
        """Batches of this kind of media for these backbones, none of them begun."""
        return Queue(self, kind, num_running=BATCHES_ON_GPU if self._compute.on_gpu else 0)

    def new_frames(self, kind: str) -> list[torch.Tensor]:
        """Host memory for the frames of one batch of videos, a tensor an output; of images, for CLIP's alone."""
        number, outputs = self._videos_per_batch, self.outputs
        shapes = [output.shape for output in outputs]
        if kind == IMAGE:
            number, outputs, shapes = self._compute.batch_frames, outputs[:1], [(1, *shapes[0][1:])]
        pinned = self._compute.on_gpu  # the GPU fetches from pinned memory by itself
        return [
            torch.empty((number, *shape), dtype=DTYPES[output.transform.dtype], pin_memory=pinned)
            for output, shape in zip(outputs, shapes, strict=True)
        ]


Finished = tuple[int, Sampled, MediaFeatures]


class Queue:
    """Batches on their way through the backbones: one is filled, others run. Its memory is fixed."""

    def __init__(self, backbones: Backbones, kind: str, *, num_running: int) -> None:
        """`num_running`: batches that may run while the next one is filled."""
        self._backbones, self._kind = backbones, kind
        self._free: list[list[torch.Tensor]] = []  # made when the first of the kind comes
        self._num_running = num_running
        self._waiting: list[tuple[int, Sampled]] = []
        self._running: deque[tuple[list[torch.Tensor], list[tuple[int, Sampled]], Running]] = deque()
        self.seconds = {CLIP: 0.0, SLOWFAST: 0.0}
        """The device's, of all finished batches."""

    def add(self, index: int, decoded: Decoded) -> list[Finished]:
        """Take a file's frames; what finished meanwhile."""
        if not self._free and not self._running:
            self._free = [self._backbones.new_frames(self._kind) for _ in range(self._num_running + 1)]
        frames = self._free[-1]
        for tensor, array in zip(frames, decoded.frames, strict=False):
            tensor[len(self._waiting)].numpy()[:] = array[: tensor.shape[1]]
        self._waiting.append((index, decoded.sampled))
        if len(self._waiting) < len(frames[0]):
            return []
        self._start()
        return self._finish(self._num_running)

    def drain(self) -> list[Finished]:
        """Run what waits; all that is not finished yet."""
        if self._waiting:
            self._start()
        return self._finish(0)

    def _start(self) -> None:
        frames = self._free.pop()
        running = self._backbones.start(*(tensor[: len(self._waiting)] for tensor in frames))
        self._running.append((frames, self._waiting, running))
        self._waiting = []

    def _finish(self, num_left: int) -> list[Finished]:
        """Wait for the oldest batches until only `num_left` run."""
        finished: list[Finished] = []
        while len(self._running) > num_left:
            frames, waiting, running = self._running.popleft()
            videos, seconds = running.result()
            self._free.append(frames)
            self.seconds = {step: total + seconds[step] for step, total in self.seconds.items()}
            finished += [(index, sampled, video) for (index, sampled), video in zip(waiting, videos, strict=True)]
        return finished


def cache_settings(settings: ExtractSettings, *, clip: dict[str, Any], slowfast: dict[str, Any]) -> dict[str, Any]:
    """All that decides a feature's value: what the fingerprint hashes."""
    return {
        "sampling": {"name": UNIFORM, "frames": settings.frames, "short": SHORT_POLICY},
        "store": settings.store,
        "clip": clip,
        "slowfast": slowfast,
    }
