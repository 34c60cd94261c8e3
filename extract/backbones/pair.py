"""The image and the motion backbone, or one of them: load them, run them on batches, and say what identifies them."""

import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from haechi.cache.errors import HaechiError
from haechi.cache.progress import SILENT, Progress
from haechi.cache.schema import FRAME_STREAM, STREAMS, WINDOW_STREAM, without_model
from haechi.extract import pixel_aspect
from haechi.extract.backbones.catalog import ANY_OTHER, IMAGE_MODELS, MOTION_MODELS
from haechi.extract.backbones.device import Compute, Mark
from haechi.extract.backbones.roles import Backbone, ImageBackbone, MotionBackbone
from haechi.extract.backbones.weights import WeightsError
from haechi.extract.decoding.shared_frames import NO_OUTPUT, Output
from haechi.extract.settings import ExtractSettings

# Batches that a GPU has at a time: one is copied to it while another is computed.
BATCHES_ON_GPU = 2

FRAME_DTYPES: dict[type[np.generic], torch.dtype] = {np.uint8: torch.uint8, np.float16: torch.float16}

BATCH_FLAGS = {FRAME_STREAM: "--batch-frames", WINDOW_STREAM: "--batch-windows"}


class DeviceMemoryError(HaechiError):
    """The device's memory is too small for even one frame or window."""


@dataclass(frozen=True, kw_only=True)
class RunningBatch:
    """A batch of pieces of videos, or images, that the device works on."""

    arrays: dict[str, torch.Tensor]
    """Dataset -> the rows of all pieces, (ΣT, width) or (ΣS, width) float32, in host memory. On a GPU they are filled
    when `result` returns."""
    counts: Mapping[str, Sequence[int]]
    """Stream -> the number of rows of each piece."""
    marks: Sequence[Mark]
    """Before each backbone, and after the last one's rows are in host memory."""

    def result(self) -> tuple[list[dict[str, np.ndarray]], dict[str, float]]:
        """Wait for the device. Returns dataset -> rows for each piece, and the device's seconds by stream."""
        self.marks[-1].wait()
        split = {
            name: torch.split(rows, list(self.counts[name.partition("/")[0]])) for name, rows in self.arrays.items()
        }
        pieces = [
            {name: rows.numpy() for name, rows in zip(split, piece, strict=True)}
            for piece in zip(*split.values(), strict=True)
        ]
        spans = pairwise(self.marks)
        return pieces, {stream: end.since(start) for stream, (start, end) in zip(STREAMS, spans, strict=True)}


class Backbones:
    """The frozen networks on their device, one for each stream of the cache that has a model."""

    def __init__(self, settings: ExtractSettings, compute: Compute) -> None:
        """Load the networks.

        Raises `SettingsError` for a model that does not exist, `WeightsError` that names all missing weights, not only
        the first.
        """
        self._compute = compute
        image, motion = _load(settings, compute)
        both: dict[str, Backbone | None] = {FRAME_STREAM: image, WINDOW_STREAM: motion}
        self._backbones = {stream: backbone for stream, backbone in both.items() if backbone is not None}
        self._alike: dict[tuple[str, int], bool] = {}
        self._batch_sizes = {FRAME_STREAM: compute.batch_frames, WINDOW_STREAM: compute.batch_windows}
        self._pieces_per_batch = _pieces_per_batch(settings, compute)
        aspect = settings.pixel_aspect
        self.outputs = [
            Output(transform=replace(b.transform, pixel_aspect=aspect), num_frames=num_frames) if b else NO_OUTPUT
            for b, num_frames in (
                (image, settings.sampler.max_clip_frames),
                (motion, motion.num_frames if motion else 0),
            )
        ]
        """The frames that the decoders prepare of each piece, in the order of the streams."""
        self.settings: dict[str, Any] = {
            "sampling": settings.sampler.settings,
            "store": settings.store,
            **pixel_aspect.entry(aspect),
            **{stream: without_model(stream) for stream in STREAMS},
            **{stream: backbone.identity for stream, backbone in self._backbones.items()},
        }
        """Everything that decides a feature's value: what the fingerprint hashes."""

    @property
    def streams(self) -> list[str]:
        """The streams of the cache that have a network."""
        return list(self._backbones)

    @property
    def computes_repeats_once(self) -> bool:
        """Whether frames that are identical to the one before are left out. On a GPU decoding limits the speed."""
        return not self._compute.on_gpu

    def is_alike_in_all_places(self, stream: str, frame: torch.Tensor, number: int) -> bool:
        """Whether a network that computes `number` frames or windows at once gives each the same bits in every place.

        It is tried with copies of `frame`, once for each number. Not every matrix product does: with 2 threads, MKL
        computes some of the last rows in another order if there are few.
        """
        if (stream, number) not in self._alike:
            copies = frame.expand(number, *frame.shape).contiguous()
            arrays = self._backbones[stream].forward(self._compute.to_device(copies)).values()
            self._alike[stream, number] = all(bool((rows == rows[0]).all()) for rows in arrays)
        return self._alike[stream, number]

    def batch_size(self, stream: str) -> int:
        """The most frames or windows that the network of a stream computes at once."""
        return self._batch_sizes[stream]

    def widths(self, stream: str) -> dict[str, int]:
        """Array name -> width of the features of a stream."""
        widths: dict[str, int] = self._backbones[stream].identity["widths"]
        return widths

    @property
    def max_running(self) -> int:
        """How many batches may run while the next one is filled."""
        return BATCHES_ON_GPU if self._compute.on_gpu else 0

    def start(
        self,
        frames: Mapping[str, torch.Tensor],
        counts: Mapping[str, Sequence[int]],
        *,
        progress: Progress = SILENT,
    ) -> RunningBatch:
        """Run the networks on a batch of pieces. On a GPU this returns before they are done.

        `frames` are those of all pieces by stream, in host memory: (ΣT, h, w, 3) for the image backbone, (ΣS,
        num_frames, H, W, 3) for the motion backbone. They must not change before the result is there. `counts` are T
        and S of each piece; an image has no window. What is more than a batch of a network is cut into batches. If the
        device's memory is too small, they become smaller for good, and `progress` gets a notice.

        Raises `DeviceMemoryError` if not even batches of one fit.
        """
        arrays: dict[str, torch.Tensor] = {}
        marks: list[Mark] = []
        for stream in STREAMS:
            marks.append(self._compute.mark())
            if stream in self._backbones:
                for name, rows in self._forward(stream, frames[stream], progress).items():
                    arrays[f"{stream}/{name}"] = rows
        on_host = {name: self._compute.to_host(rows) for name, rows in arrays.items()}
        marks.append(self._compute.mark())
        return RunningBatch(arrays=on_host, counts=counts, marks=marks)

    def _forward(self, stream: str, frames: torch.Tensor, progress: Progress) -> dict[str, torch.Tensor]:
        """Array name -> (n, width) on the device, for `frames` (n, ...) of one network."""
        backbone, device = self._backbones[stream], self._compute.name
        widths = self.widths(stream)
        if not len(frames):
            return {name: torch.empty(0, width) for name, width in widths.items()}
        first_size = self._batch_sizes[stream]
        while True:
            size = self._batch_sizes[stream]
            try:
                parts = [backbone.forward(self._compute.to_device(part)) for part in torch.split(frames, size)]
            except torch.OutOfMemoryError as error:
                if size == 1:
                    raise DeviceMemoryError(
                        f"the memory of {device} is too small for {BATCH_FLAGS[stream]} 1; does another program use "
                        "it? --device cpu works everywhere"
                    ) from error
                self._batch_sizes[stream] = min(size, len(frames)) // 2 or 1
                torch.cuda.empty_cache()
                continue
            if size < first_size:
                progress.notice(f"the memory of {device} is too small: continuing with {BATCH_FLAGS[stream]} {size}")
            return {name: torch.cat([part[name] for part in parts]) for name in widths}

    def new_buffers(self) -> dict[str, torch.Tensor]:
        """Host memory for the frames of one batch: stream -> (n, h, w, 3) or (n, num_frames, H, W, 3)."""
        number, pinned = self._pieces_per_batch, self._compute.on_gpu  # a GPU copies from pinned memory by itself
        images, windows = self.outputs
        shapes = [(number * images.shape[0], *images.shape[1:]), (number, *windows.shape)]
        return {
            stream: torch.empty(shape, dtype=FRAME_DTYPES[output.transform.dtype], pin_memory=pinned)
            for stream, shape, output in zip(STREAMS, shapes, self.outputs, strict=True)
            if stream in self._backbones
        }


def _pieces_per_batch(settings: ExtractSettings, compute: Compute) -> int:
    """How many pieces are computed together."""
    if settings.streams == [WINDOW_STREAM]:
        return compute.batch_windows
    if settings.streams == [FRAME_STREAM]:
        return max(1, compute.batch_frames // settings.sampler.max_clip_frames)
    return max(1, compute.batch_windows, compute.batch_frames // settings.frames)


def _load(settings: ExtractSettings, compute: Compute) -> tuple[ImageBackbone | None, MotionBackbone | None]:
    """Build the network of each stream that has a model and load its weights. Raises as `Backbones` does."""
    classes = {FRAME_STREAM: IMAGE_MODELS, WINDOW_STREAM: MOTION_MODELS}
    loaded: dict[str, Any] = {}
    missing: list[str] = []
    for stream in settings.streams:
        model, weights, places = settings.models[stream], settings.weights[stream], classes[stream]
        backbone = pkgutil.resolve_name(places[model] if model in places else places[ANY_OTHER])
        try:
            loaded[stream] = backbone(model=model, weights=weights, device=compute.device, dtype=compute.dtype)
        except WeightsError as error:
            missing.append(str(error))
    if missing:
        raise WeightsError("\n".join(missing))
    return loaded.get(FRAME_STREAM), loaded.get(WINDOW_STREAM)
