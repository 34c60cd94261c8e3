"""Both backbones as one thing: load them together, run them on batches of pieces of videos, name their settings."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from haechi.cache.errors import HaechiError
from haechi.extract.backbones.device import Compute, Mark
from haechi.extract.backbones.openclip import OpenClip
from haechi.extract.backbones.slowfast import SlowFast
from haechi.extract.backbones.weights import WeightsError
from haechi.extract.decoding.shared_frames import Output
from haechi.extract.decoding.windows import WINDOW_FRAMES
from haechi.extract.settings import ExtractSettings
from haechi.extract.timing import CLIP, SLOWFAST

# Batches on their way at once on a GPU: one is copied to it while another is computed.
BATCHES_ON_GPU = 2


# Of frames.
DTYPES: dict[type[np.generic], torch.dtype] = {np.uint8: torch.uint8, np.float16: torch.float16}


class DeviceMemoryError(HaechiError):
    """The device's memory is too small for even one frame or window."""


@dataclass(frozen=True, kw_only=True)
class MediaFeatures:
    """What the backbones make of one video or image, or of a piece of it, float32, in host memory."""

    clip: np.ndarray
    """(T, 512) for ViT-B-32; T is 1 for an image."""
    slowfast: np.ndarray
    """(S, 2304) for slowfast_r50: a row a window. An image has none."""
    slowfast_logits: np.ndarray
    """(S, 400), likewise."""


@dataclass(frozen=True, kw_only=True)
class Running:
    """A batch of pieces that the device works on. On a GPU its tensors are filled when `result` returns."""

    clip: torch.Tensor
    """(ΣT, 512)"""
    slowfast: torch.Tensor
    """(ΣS, 2304)"""
    logits: torch.Tensor
    """(ΣS, 400)"""
    counts: Sequence[tuple[int, int]]
    """T and S of each piece."""
    marks: tuple[Mark, Mark, Mark]
    """Before CLIP, between both, after SlowFast."""

    def result(self) -> tuple[list[MediaFeatures], dict[str, float]]:
        """Wait for the device. The pieces' features, and the device's seconds by step."""
        start, middle, end = self.marks
        end.wait()
        num_clip, num_windows = ([piece[i] for piece in self.counts] for i in range(2))
        arrays = zip(
            torch.split(self.clip, num_clip),
            torch.split(self.slowfast, num_windows),
            torch.split(self.logits, num_windows),
            strict=True,
        )
        pieces = [
            MediaFeatures(clip=clip.numpy(), slowfast=slowfast.numpy(), slowfast_logits=logits.numpy())
            for clip, slowfast, logits in arrays
        ]
        return pieces, {CLIP: middle.since(start), SLOWFAST: end.since(middle)}


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
            Output(transform=self._clip.transform, num_frames=settings.sampler.max_clip_frames),
            Output(transform=self._slowfast.transform, num_frames=WINDOW_FRAMES),
        ]
        self.settings = cache_settings(settings, clip=self._clip.identity, slowfast=self._slowfast.identity)
        self._pieces_per_batch = max(1, compute.batch_windows, compute.batch_frames // settings.frames)

    def run(self, clip_frames: torch.Tensor, windows: torch.Tensor) -> list[MediaFeatures]:
        """Features of B videos of a window each: (B, T, h, w, 3) and (B, 32, H, W, 3), 0..255, in host memory."""
        counts = [(clip_frames.shape[1], 1)] * len(windows)
        videos, _ = self.start(clip_frames.flatten(0, 1), windows, counts).result()
        return videos

    def start(self, clip_frames: torch.Tensor, windows: torch.Tensor, counts: Sequence[tuple[int, int]]) -> Running:
        """Begin with pieces of videos, or images, which have no window; on a GPU this returns before they are done.

        `clip_frames` (ΣT, h, w, 3) and `windows` (ΣS, 32, H, W, 3), 0..255, in host memory, are not to be changed
        before the result is there; `counts` are T and S of each piece. More than a batch is cut into batches.

        Raises `DeviceMemoryError` where not even batches of one fit.
        """
        widths = self.settings["slowfast"]["widths"]
        start = self._compute.mark()
        clip = torch.empty(0, self.settings["clip"]["widths"]["features"])
        if len(clip_frames):
            (clip,) = self._in_parts(lambda part: (self._clip.features(part),), clip_frames, "batch_frames")
        middle = self._compute.mark()
        slowfast, logits = (torch.empty(0, widths[name]) for name in ("features", "logits"))
        if len(windows):
            slowfast, logits = self._in_parts(self._slowfast.forward, windows, "batch_windows")
        return Running(
            clip=self._compute.to_host(clip),
            slowfast=self._compute.to_host(slowfast),
            logits=self._compute.to_host(logits),
            counts=counts,
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

    def new_queue(self) -> "Queue":
        """Batches for these backbones, none of them begun."""
        return Queue(self, num_running=BATCHES_ON_GPU if self._compute.on_gpu else 0)

    def new_frames(self) -> list[torch.Tensor]:
        """Host memory for the frames of one batch: CLIP's (frames, h, w, 3), and windows (windows, 32, H, W, 3)."""
        clip, slowfast = self.outputs
        number, pinned = self._pieces_per_batch, self._compute.on_gpu  # the GPU fetches from pinned memory by itself
        return [
            torch.empty(
                (number * clip.shape[0], *clip.shape[1:]), dtype=DTYPES[clip.transform.dtype], pin_memory=pinned
            ),
            torch.empty((number, *slowfast.shape), dtype=DTYPES[slowfast.transform.dtype], pin_memory=pinned),
        ]


# Names a piece: the index of its video, and which attempt at that it belongs to.
Key = tuple[int, int]


class Queue:
    """Batches on their way through the backbones: one is filled, others run. Its memory is fixed."""

    def __init__(self, backbones: Backbones, *, num_running: int) -> None:
        """`num_running`: batches that may run while the next one is filled."""
        self._backbones = backbones
        self._free: list[list[torch.Tensor]] = []  # made when the first piece comes
        self._num_running = num_running
        self._keys: list[Key] = []  # of the batch that is filled
        self._counts: list[tuple[int, int]] = []  # CLIP frames and windows of each of its pieces
        self._running: deque[tuple[list[torch.Tensor], list[Key], Running]] = deque()
        self.seconds = {CLIP: 0.0, SLOWFAST: 0.0}
        """The device's, of all finished batches."""

    def add(self, key: Key, frames: Sequence[np.ndarray]) -> list[tuple[Key, MediaFeatures]]:
        """Take a piece's frames: CLIP's (T, h, w, 3), and those of one window (32, H, W, 3), or of none (0, H, W, 3).

        What finished meanwhile, in the order in which it was added.
        """
        if not self._free and not self._running:
            self._free = [self._backbones.new_frames() for _ in range(self._num_running + 1)]
        clip, window = frames
        count = len(clip), int(len(window) > 0)
        if not self._fits(count):
            self._start()
            finished = self._finish(self._num_running)
        else:
            finished = []
        batch, (num_clip, num_windows) = self._free[-1], self._filled
        batch[0].numpy()[num_clip : num_clip + len(clip)] = clip
        if len(window):
            batch[1][num_windows].numpy()[:] = window
        self._keys.append(key)
        self._counts.append(count)
        if not self._fits((1, 1)):
            self._start()
            finished += self._finish(self._num_running)
        return finished

    def drain(self) -> list[tuple[Key, MediaFeatures]]:
        """Run what waits; all that is not finished yet."""
        if self._keys:
            self._start()
        return self._finish(0)

    @property
    def _filled(self) -> tuple[int, int]:
        """CLIP frames and windows in the batch that is filled."""
        return sum(clip for clip, _ in self._counts), sum(windows for _, windows in self._counts)

    def _fits(self, count: tuple[int, int]) -> bool:
        return all(
            filled + more <= len(tensor)
            for filled, more, tensor in zip(self._filled, count, self._free[-1], strict=True)
        )

    def _start(self) -> None:
        frames = self._free.pop()
        clip, windows = (tensor[:filled] for tensor, filled in zip(frames, self._filled, strict=True))
        self._running.append((frames, self._keys, self._backbones.start(clip, windows, self._counts)))
        self._keys, self._counts = [], []

    def _finish(self, num_left: int) -> list[tuple[Key, MediaFeatures]]:
        """Wait for the oldest batches until only `num_left` run."""
        finished: list[tuple[Key, MediaFeatures]] = []
        while len(self._running) > num_left:
            frames, keys, running = self._running.popleft()
            pieces, seconds = running.result()
            self._free.append(frames)
            self.seconds = {step: total + seconds[step] for step, total in self.seconds.items()}
            finished += zip(keys, pieces, strict=True)
        return finished


def cache_settings(settings: ExtractSettings, *, clip: dict[str, Any], slowfast: dict[str, Any]) -> dict[str, Any]:
    """All that decides a feature's value: what the fingerprint hashes."""
    return {
        "sampling": settings.sampler.settings,
        "store": settings.store,
        "clip": clip,
        "slowfast": slowfast,
    }
