"""The precision of training, and the memory for features."""

import os
from pathlib import Path

import torch

from haechi.device import has_bfloat16
from haechi.train.settings import TrainSettings

# Files with a container's memory limit in bytes, or a word if there is none: control groups of version 2 and 1.
MEMORY_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))

FEATURES_SHARE = 0.5  # of the available memory; the rest is for the head, for reading, and for other processes


def find_precision(settings: TrainSettings, device: torch.device) -> str:
    """The precision of training steps, `fp32` or `bf16`; `auto` is bf16 if the hardware supports it."""
    if settings.precision != "auto":
        return settings.precision
    return "bf16" if has_bfloat16(device) else "fp32"


def features_limit(device: torch.device) -> int:
    """Bytes that features may take: `FEATURES_SHARE` of the memory that this process, and the device, can use."""
    available = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        available.append(int(lines["MemAvailable"].split()[0]) * 1024)
    available += [int(text) for path in MEMORY_LIMITS if path.exists() and (text := path.read_text().strip()).isdigit()]
    if device.type == "cuda":
        available.append(torch.cuda.mem_get_info(device)[0])
    return int(FEATURES_SHARE * min(available))
