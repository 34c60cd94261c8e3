"""Hostile bytes for the readers of caches and manifests, guided by coverage (atheris) where that is installed."""

import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.torture.record import Record

ROOT = Path(__file__).parent.parent.parent
START_SECONDS = 60


def fuzz(seconds: int, *, seed: int = 0, keep: Path | None = None) -> Record:
    """Feed each reader for so long; every input ends in a value or an error of Haechi's. `keep` receives findings."""
    started = time.monotonic()
    losses: list[str] = []
    counts: dict[str, int] = {}
    guided = True
    for name in ("cache", "manifest"):
        with tempfile.TemporaryDirectory() as folder_name:
            folder = Path(folder_name)
            command = [sys.executable, "-m", "tests.torture.fuzz_target", name, str(folder), str(seconds), str(seed)]
            try:
                done = subprocess.run(
                    command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False,
                    timeout=seconds + START_SECONDS, preexec_fn=_no_cores,
                )  # fmt: skip
                status, told_last = done.returncode, done.stderr[-1500:]
            except subprocess.TimeoutExpired:
                status, told_last = None, "it hangs"
            told = folder / "told.json"
            found = json.loads(told.read_text()) if told.exists() else {"number": 0, "guided": True}
            counts[name], guided = found["number"], guided and found["guided"]
            if status != 0:
                losses.append(f"{name}: the reader's process ended with {status}: {told_last}")
            losses += [f"{name}: {path.read_text(encoding='utf-8')[-800:]}" for path in folder.glob("raised-*.txt")]
            if keep is not None:
                keep.mkdir(parents=True, exist_ok=True)
                for path in [*folder.glob("raised-*"), *folder.glob("died-*")]:
                    shutil.copy(path, keep / f"{name}-{path.name}")
    told_how = "guided by coverage" if guided else "at random: atheris is not installed"
    return Record(
        what="hostile bytes for the readers",
        tried=sum(counts.values()),
        survived=sum(counts.values()) - len(losses),
        losses=losses,
        note=f"{told_how}, {seconds} s each: "
        + ", ".join(f"{count:,} for the {name}" for name, count in counts.items()),
        facts={"inputs": counts, "guided": guided},
        seconds=time.monotonic() - started,
    )


def _no_cores() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
