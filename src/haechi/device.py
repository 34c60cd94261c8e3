"""The device and the precision that torch computes with: both stages choose them here."""

import torch

from haechi.cache.errors import SettingsError
from haechi.cache.rules import DEVICE


def find_device(wanted: str) -> torch.device:
    """The device that `auto`, `cpu`, `cuda` or `cuda:N` means; `auto` is CUDA where there is a CUDA device.

    Raises `SettingsError` for a CUDA device that this machine does not have.
    """
    assert DEVICE.allows(wanted), wanted
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(wanted)
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
