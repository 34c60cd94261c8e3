"""Where the backbones run, and with which precision."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import joblib
import torch

from haechi.device import find_device, has_bfloat16
from haechi.extract.settings import ExtractSettings

PRECISION_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Mark:
    """A point in time of the device: on a GPU, when all work that was queued before is done."""

    def __init__(self, device: torch.device) -> None:
        self._event = None
        if device.type == "cuda":
            self._event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            self._event.record(torch.cuda.current_stream(device))
        self._seconds = time.perf_counter()

    def wait(self) -> None:
        """Wait until the device has reached this point."""
        if self._event is not None:
            self._event.synchronize()

    def since(self, earlier: "Mark") -> float:
        """Seconds from `earlier` to this point; both must have been waited for."""
        if self._event is not None and earlier._event is not None:
            return float(earlier._event.elapsed_time(self._event)) / 1000
        return self._seconds - earlier._seconds


@dataclass(frozen=True, kw_only=True)
class Compute:
    """A device, with the precision, batch sizes and number of decoding processes to use on it."""

    device: torch.device
    name: str
    """Such as `cpu` or `cuda (NVIDIA H100)`."""
    precision: str
    """`fp32`, `bf16` or `fp16`."""
    batch_frames: int
    batch_windows: int
    workers: int
    threads: int
    """CPU threads of torch."""

    @property
    def dtype(self) -> torch.dtype:
        return PRECISION_DTYPES[self.precision]

    @classmethod
    def choose(cls, settings: ExtractSettings) -> "Compute":
        """Use the settings; values of 0 or auto are chosen for the machine.

        Raises `SettingsError` for a device that the machine does not have.
        """
        device = find_device(settings.device)
        on_gpu = device.type == "cuda"
        cores = joblib.cpu_count()  # those that this process may use: a container's limit counts
        workers = settings.workers or (max(1, cores - 1) if on_gpu else max(1, cores // 8))
        return cls(
            device=device,
            name=f"cuda ({torch.cuda.get_device_name(device)})" if on_gpu else "cpu",
            precision=settings.precision if settings.precision != "auto" else _fastest_precision(device),
            batch_frames=settings.batch_frames or (512 if on_gpu else settings.frames),
            # With one window a batch on a CPU, torch runs a third of SlowFast's convolutions in its slow fallback.
            batch_windows=settings.batch_windows or (16 if on_gpu else 2),
            # On a CPU the backbones need nearly all the time, and all cores.
            workers=workers,
            threads=max(1, cores - workers) if on_gpu else cores,
        )

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def mark(self) -> Mark:
        """The present point in time of the device."""
        return Mark(self.device)

    @cached_property
    def _copies(self) -> torch.cuda.Stream:
        """A separate stream for copies to the GPU, in parallel with its computations."""
        return torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]

    def to_device(self, frames: torch.Tensor) -> torch.Tensor:
        """Copy frames to the device for its next work; on a GPU this returns before the copy is done."""
        if not self.on_gpu:
            return frames
        with torch.cuda.stream(self._copies):
            copied = frames.to(self.device, non_blocking=True)
        stream = torch.cuda.current_stream(self.device)
        stream.wait_stream(self._copies)
        copied.record_stream(stream)
        return copied

    def to_host(self, features: torch.Tensor) -> torch.Tensor:
        """Copy features to host memory; on a GPU this returns before the copy is done."""
        if not self.on_gpu:
            return features
        host = torch.empty(features.shape, dtype=features.dtype, pin_memory=True)
        return host.copy_(features, non_blocking=True)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within this context, torch uses `threads` threads, and float32 convolutions are exact on a GPU too.

        By default a GPU computes them in TF32, with 10 bits of mantissa instead of 23.
        """
        before = torch.get_num_threads(), torch.backends.cudnn.allow_tf32
        torch.set_num_threads(self.threads)
        torch.backends.cudnn.allow_tf32 = False
        try:
            yield
        finally:
            threads, torch.backends.cudnn.allow_tf32 = before
            torch.set_num_threads(threads)


def _fastest_precision(device: torch.device) -> str:
    if has_bfloat16(device):
        return "bf16"
    return "fp16" if device.type == "cuda" else "fp32"
