"""Where the backbones run, and in which arithmetic."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import joblib
import torch

from haechi.device import find_device, has_bfloat16
from haechi.extract.settings import ExtractSettings

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Mark:
    """A moment in the device's work: on a GPU, when it has done all that was asked of it before."""

    def __init__(self, device: torch.device) -> None:
        self._event = None
        if device.type == "cuda":
            self._event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            self._event.record(torch.cuda.current_stream(device))
        self._seconds = time.perf_counter()

    def wait(self) -> None:
        """Return when the device has come here."""
        if self._event is not None:
            self._event.synchronize()

    def since(self, earlier: "Mark") -> float:
        """Seconds between two moments that were waited for."""
        if self._event is not None and earlier._event is not None:
            return float(earlier._event.elapsed_time(self._event)) / 1000
        return self._seconds - earlier._seconds


@dataclass(frozen=True, kw_only=True)
class Compute:
    """A device with the precision, batch sizes and number of decoding processes that suit it."""

    device: torch.device
    name: str
    """Such as `cpu` or `cuda (NVIDIA H100)`."""
    precision: str
    """`fp32`, `bf16` or `fp16`."""
    batch_frames: int
    batch_windows: int
    workers: int
    threads: int
    """Of torch, on the CPU."""

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.precision]

    @classmethod
    def choose(cls, settings: ExtractSettings) -> "Compute":
        """Take what the settings say, else what the machine has. Raises `SettingsError` for a device it lacks."""
        device = find_device(settings.device)
        on_gpu = device.type == "cuda"
        cores = joblib.cpu_count()  # those that this process may use, as a container's limit leaves them
        workers = settings.workers or (max(1, cores - 1) if on_gpu else max(1, cores // 8))
        return cls(
            device=device,
            name=f"cuda ({torch.cuda.get_device_name(device)})" if on_gpu else "cpu",
            precision=settings.precision if settings.precision != "auto" else _fastest_precision(device),
            batch_frames=settings.batch_frames or (512 if on_gpu else settings.frames),
            # For a single window on a CPU, torch leaves a third of SlowFast's convolutions to its slow fallback.
            batch_windows=settings.batch_windows or (16 if on_gpu else 2),
            # On a CPU the backbones take nearly all the time and all the cores.
            workers=workers,
            threads=max(1, cores - workers) if on_gpu else cores,
        )

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def mark(self) -> Mark:
        """This moment in the device's work."""
        return Mark(self.device)

    @cached_property
    def _copies(self) -> torch.cuda.Stream:
        """Copies to the GPU run beside its work."""
        return torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]

    def to_device(self, frames: torch.Tensor) -> torch.Tensor:
        """Frames for the device's next work; on a GPU this returns before they are there."""
        if not self.on_gpu:
            return frames
        with torch.cuda.stream(self._copies):
            copied = frames.to(self.device, non_blocking=True)
        stream = torch.cuda.current_stream(self.device)
        stream.wait_stream(self._copies)
        copied.record_stream(stream)
        return copied

    def to_host(self, features: torch.Tensor) -> torch.Tensor:
        """Features in host memory; on a GPU this returns before they are there."""
        if not self.on_gpu:
            return features
        host = torch.empty(features.shape, dtype=features.dtype, pin_memory=True)
        return host.copy_(features, non_blocking=True)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """torch takes no more cores than the decoding processes leave it, and keeps float32 as exact as it is meant.

        Left alone, a GPU computes float32 convolutions in TF32, with 10 bits of mantissa instead of 23.
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
