"""Stands in for a worker's task: some paths kill or hang their process."""

import os
import signal
import time
from pathlib import Path

from extract.decode import Sampled
from extract.workers import Rejected, _sample_into_slot


def sample_into_slot(path: Path, *arguments: object) -> Sampled | Rejected:
    if "abort" in path.name:
        os.abort()
    if "segfault" in path.name:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "hang" in path.name:
        time.sleep(3600)
    if "bug" in path.name:
        raise ZeroDivisionError("a defect of ours")
    return _sample_into_slot(path, *arguments)  # type: ignore[arg-type]
