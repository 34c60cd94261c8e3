"""The devices of `--devices`."""

import re
from collections import Counter

from haechi.cache.errors import SettingsError
from haechi.cache.text import counted, named, shown

ALL, CPU = "all", "cpu"

# Ours: more processes than any machine has use for.
MAX_PROCESSES = 256

FORMS = f"{ALL}, numbers of CUDA devices such as 0,1,3, or cpu:N for N processes on the CPU"


def parse_devices(text: str) -> list[str]:
    """The device of each worker, such as `["cuda:0", "cuda:1"]` or `["cpu", "cpu"]`.

    Raises `SettingsError` that lists all parts that cannot be used.
    """
    if text == ALL:
        if not (number := _num_cuda()):
            raise SettingsError(
                [f"--devices {ALL}: this machine has no CUDA device that torch sees; use --devices cpu:2"]
            )
        return [f"cuda:{index}" for index in range(number)]
    devices: list[str] = []
    problems = []
    for part in text.split(","):
        if found := re.fullmatch(r"(?:cuda:)?([0-9]{1,3})", part):
            devices.append(f"cuda:{int(found[1])}")
        elif (count := num_processes(part)) is not None:
            devices += [CPU] * count
        else:
            problems.append(f"--devices: {shown(part)} is no device, expected {FORMS}")
    wanted = [device for device in devices if device != CPU]
    if repeated := [device for device, count in Counter(wanted).items() if count > 1]:
        problems.append(f"--devices: {named(repeated)} more than once")
    if not problems and wanted:
        number = _num_cuda()
        if missing := [device for device in wanted if int(device.partition(":")[2]) >= number]:
            problems.append(f"--devices: no {named(missing)}; torch sees {counted(number, 'CUDA device')}")
    if not problems and len(devices) > MAX_PROCESSES:
        problems.append(f"--devices: {len(devices)} processes, expected at most {MAX_PROCESSES}")
    if problems:
        raise SettingsError(problems)
    return devices


def num_processes(part: str) -> int | None:
    """N of `cpu:N`; 1 for `cpu`; None for another text."""
    found = re.fullmatch(rf"{CPU}(?::([1-9][0-9]{{0,3}}))?", part)
    return int(found[1] or 1) if found else None


def _num_cuda() -> int:
    import torch  # takes seconds: only if CUDA devices are asked for

    return torch.cuda.device_count()
