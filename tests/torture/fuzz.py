"""Fuzzing of the readers of caches and manifests, guided by coverage if atheris is installed."""

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
    """Fuzz each reader for `seconds`; only `HaechiError` may be raised. Findings are copied to `keep`."""
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
                    timeout=seconds + START_SECONDS, preexec_fn=_disable_core_dumps,
                )  # fmt: skip
                status, output = done.returncode, done.stderr
            except subprocess.TimeoutExpired:
                status, output = None, "it hung"
            progress = folder / "progress.json"
            found = json.loads(progress.read_text()) if progress.exists() else {"number": 0, "guided": True}
            counts[name], guided = found["number"], guided and found["guided"]
            if status != 0:
                losses.append(f"{name}: the reader's process ended with {status}: {output[-1500:]}")
            elif found["guided"] and "Instrumenting haechi." not in output:
                losses.append(f"{name}: atheris follows no module of haechi, so that coverage guides nothing")
            losses += [f"{name}: {path.read_text(encoding='utf-8')[-800:]}" for path in folder.glob("raised-*.txt")]
            if keep is not None:
                keep.mkdir(parents=True, exist_ok=True)
                for path in [*folder.glob("raised-*"), *folder.glob("died-*")]:
                    shutil.copy(path, keep / f"{name}-{path.name}")
    method = "guided by coverage" if guided else "at random because atheris is not installed"
    return Record(
        what="fuzzing of the readers",
        tried=sum(counts.values()),
        survived=sum(counts.values()) - len(losses),
        losses=losses,
        note=f"{method}, {seconds} s each: "
        + ", ".join(f"{count:,} inputs for the {name}" for name, count in counts.items()),
        facts={"inputs": counts, "guided": guided},
        seconds=time.monotonic() - started,
    )


def _disable_core_dumps() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
