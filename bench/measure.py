"""Measures times in rounds and commands with their memory, and writes the results as JSON."""

import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import torch

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "bench"

PACKAGES = (
    *("torch", "torchvision", "decord", "av", "open_clip_torch", "pytorchvideo", "pillow", "h5py", "numpy"),
    "opencv-python-headless",
)

SAMPLE_SECONDS = 0.2


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One figure, measured once or once in each round."""

    what: str
    unit: str
    """`s`, `MB`, `x` (a ratio), or empty for a plain number."""
    values: Sequence[float]
    """One value for each round."""
    at_most: float | None = None
    """The mark: the median should be at most this."""
    at_least: float | None = None
    """The mark: the median should be at least this."""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def holds(self) -> bool | None:
        """Whether the median keeps the mark; None if there is no mark."""
        if self.at_most is None and self.at_least is None:
            return None
        high = self.at_most is None or self.median <= self.at_most
        return high and (self.at_least is None or self.median >= self.at_least)

    def to_dict(self) -> dict[str, Any]:
        spread = {"median": self.median, "min": min(self.values), "max": max(self.values), "rounds": len(self.values)}
        mark = {"at_most": self.at_most, "at_least": self.at_least, "holds": self.holds}
        return {"what": self.what, "unit": self.unit, **spread, **mark}


@dataclass(frozen=True, kw_only=True)
class CommandResult:
    """Time, memory and output of a command that succeeded."""

    seconds: float
    """From the start of the command to its end."""
    peak_megabytes: float
    """Of the process and all its children together; 0 if memory was not watched."""
    peak_child_megabytes: float
    """Of the largest child, including shared pages; 0 if memory was not watched."""
    device_megabytes: list[float]
    """Samples of the GPU's memory in use; empty without a GPU, or if memory was not watched."""
    stdout: str
    """Its standard output."""


def in_turn(contestants: Mapping[str, Callable[[], float]], *, rounds: int) -> dict[str, list[float]]:
    """Seconds of each contestant in each round. The order is A B C A B C, so that a slow minute affects all alike."""
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, contestant in contestants.items():
            found[name].append(contestant())
    return found


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Ratios of two series, round by round."""
    return [a / b for a, b in zip(above, below, strict=True)]


def timed(work: Callable[[], object]) -> float:
    """Seconds of a call, including the GPU work that it started."""
    synchronise()
    started = time.perf_counter()
    work()
    synchronise()
    return time.perf_counter() - started


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def run(command: Sequence[str | Path], *, watch: bool = False) -> CommandResult:
    """Run a Python module as a command, such as `("haechi", "train", …)`, in the root of the repository.

    `watch`: also sample its memory, which costs a little time. Raises `RuntimeError` with its output if it fails.
    """
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(  # noqa: S603 (our own commands)
            [sys.executable, "-m", *map(str, command)], cwd=ROOT, stdout=output, stderr=errors
        )
        memory = Memory(process.pid) if watch else None
        try:
            status = process.wait()
            seconds = time.perf_counter() - started
        finally:
            process.kill()  # if waiting was interrupted
            if memory is not None:
                memory.stop()
        output.seek(0)
        errors.seek(0)
        stdout = output.read()
        if status:
            raise RuntimeError(f"{' '.join(map(str, command))}: exit status {status}\n{stdout}{errors.read()}")
    return CommandResult(
        seconds=seconds,
        peak_megabytes=memory.peak_bytes / 1e6 if memory else 0.0,
        peak_child_megabytes=memory.peak_child_bytes / 1e6 if memory else 0.0,
        device_megabytes=memory.device_megabytes if memory else [],
        stdout=stdout,
    )


class Memory:
    """Samples the memory of a process and its children until `stop` is called.

    Pages shared by several processes count once (PSS), or in each process if the system does not report PSS (RSS).
    """

    def __init__(self, pid: int) -> None:
        self.peak_bytes = self.peak_child_bytes = 0
        self.device_megabytes: list[float] = []
        self._process = psutil.Process(pid)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stopped.wait(SAMPLE_SECONDS):
            with suppress(psutil.NoSuchProcess):
                family = [self._process, *self._process.children(recursive=True)]
                self.peak_bytes = max(self.peak_bytes, sum(map(_proportional_bytes, family)))
                self.peak_child_bytes = max([self.peak_child_bytes, *map(_resident_bytes, family[1:])])
            self.device_megabytes += _device_megabytes()


def _proportional_bytes(process: psutil.Process) -> int:
    """Memory of one process, with shared pages divided among the processes that share them."""
    try:
        return int(process.memory_full_info().pss)
    except psutil.AccessDenied:
        with suppress(psutil.NoSuchProcess):
            return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        pass  # it has ended
    return 0


def _resident_bytes(process: psutil.Process) -> int:
    """Memory of one process, with shared pages counted in full."""
    with suppress(psutil.NoSuchProcess):
        return int(process.memory_info().rss)
    return 0


def _device_megabytes() -> list[float]:
    """Memory in use on the first GPU by all programs; empty without a GPU."""
    tool = shutil.which("nvidia-smi")
    if tool is None or not torch.cuda.is_available():
        return []
    query = [tool, "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    lines = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()  # noqa: S603
    return [float(lines[0]) * 1.048576]  # nvidia-smi reports MiB


def device_kind() -> str:
    """`cuda` if there is a GPU (CUDA_VISIBLE_DEVICES= hides it), else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def machine() -> dict[str, Any]:
    """The machine: processor, cores, memory, GPU and operating system."""
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.release()}",
    }


def package_versions() -> dict[str, str]:
    """Package -> version, of those in `PACKAGES` that are installed: decord exists for x86-64 Linux only."""
    versions = {}
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def write(folder: Path, name: str, rows: Sequence[Measurement], *, untrained: bool, **facts: Any) -> Path:
    """Write `NAME-cpu.json` or `NAME-cuda.json`: the rows, the machine, versions of packages, and the date."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{device_kind()}.json"
    result = {
        "bench": name,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "versions": {"python": platform.python_version()} | package_versions(),
        "untrained": untrained,
        **facts,
        "rows": [row.to_dict() for row in rows],
    }
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
