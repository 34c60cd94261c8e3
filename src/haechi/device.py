"""The device and the precision that torch computes with: both stages choose them here."""

import torch

from haechi.cache.errors import SettingsError

FORMS = "auto, cpu, cuda or cuda:N"
PATTERN = r"auto|cpu|cuda(:\d{1,3})?"


def find_device(wanted: str) -> torch.device:
    """The device that `auto`, `cpu`, `cuda` or `cuda:N` means; `auto` is CUDA where there is a CUDA device.

    Raises `SettingsError` for a device that is not there, or of another kind.
    """
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise SettingsError([f"--device {wanted}: no such device, expected {FORMS}"]) from error
    if device.type not in {"cpu", "cuda"}:
        raise SettingsError([f"--device {wanted}: only cpu and cuda are supported, expected {FORMS}"])
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SettingsError(
            [
                f"--device {wanted}: torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices; use "
                "--device cpu or auto"
            ]
        )
    return device


def has_bfloat16(device: torch.device) -> bool:
    """Whether the hardware computes in bfloat16; emulated, that is hundreds of times slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
