"""Where the backbones run, and in which arithmetic."""

import os
from dataclasses import dataclass

import torch

from extract.settings import ExtractSettings, SettingsError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


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

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.precision]

    @classmethod
    def choose(cls, settings: ExtractSettings) -> "Compute":
        """Take what the settings say, else what the machine has. Raises `SettingsError` for a device it lacks."""
        has_cuda = torch.cuda.is_available()
        wanted = settings.device if settings.device != "auto" else ("cuda" if has_cuda else "cpu")
        try:
            device = torch.device(wanted)
        except RuntimeError as error:
            raise SettingsError(f"--device {wanted}: no such device; say auto, cpu, cuda or cuda:N") from error
        if device.type not in {"cpu", "cuda"}:
            raise SettingsError(f"--device {wanted}: only cpu and cuda are supported")
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise SettingsError(f"--device {wanted}: this machine has {torch.cuda.device_count()} CUDA devices")
        on_gpu = device.type == "cuda"
        cores = len(os.sched_getaffinity(0))
        return cls(
            device=device,
            name=f"cuda ({torch.cuda.get_device_name(device)})" if on_gpu else "cpu",
            precision=settings.precision if settings.precision != "auto" else _fastest_precision(device),
            # A CPU gains nothing from more than one video at a time; a GPU needs several to be full.
            batch_frames=settings.batch_frames or (512 if on_gpu else settings.frames),
            batch_windows=settings.batch_windows or (16 if on_gpu else 1),
            # On a CPU the backbones take nearly all the time and all the cores.
            workers=settings.workers or (max(1, cores - 1) if on_gpu else max(1, cores // 8)),
        )


def _fastest_precision(device: torch.device) -> str:
    """bfloat16 only where the hardware computes in it: emulated, it is hundreds of times slower than float32."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if has_bf16 else "fp32"
