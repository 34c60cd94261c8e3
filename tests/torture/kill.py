"""Runs stopped at random moments and started again: no shard is lost, no row stored twice, no process left running."""

import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from haechi.cache.reader import Cache, shard_paths
from tests.torture.contents import Contents, differences, flaws, read_contents
from tests.torture.media import extract_command, write_mixed
from tests.torture.processes import Command, describe_exit, process_tree, still_running
from tests.torture.record import Record

VIDEOS, SHARD_SIZE, WORKERS = 40, 4, 2

# Finished rows that a stop may lose: the shard being filled, the one being written, and what the decoders have ready.
MAX_LOST_ROWS = 2 * SHARD_SIZE + 2 * WORKERS + 1

# Time limits of a run that nobody stops, and of a run that was sent a signal.
RUN_SECONDS, STOP_SECONDS = 120.0, 15.0


def kill(number: int, *, seed: int = 0) -> Record:
    """Stop runs `number` times, two thirds with SIGKILL; compare completed caches with that of an undisturbed run."""
    started = time.monotonic()
    rng = np.random.default_rng(seed)
    losses: list[str] = []
    lost_rows: list[int] = []
    signals, num_bad, num_completed = Counter[str](), 0, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = write_mixed(folder / "videos", number=VIDEOS)
        expected, run_seconds = _undisturbed(manifest, folder)
        out = folder / "cache"
        while signals.total() < number:
            command = Command(extract_command(manifest, out, folder, shard_size=SHARD_SIZE), folder)
            before = _ids(out)
            if command.wait(float(rng.uniform(0, run_seconds))):
                wrong = _check_completed(command, out, expected)
                num_completed += 1
                shutil.rmtree(out, ignore_errors=True)
            else:
                sent = signal.Signals(rng.choice([signal.SIGKILL] * 4 + [signal.SIGINT, signal.SIGTERM]))
                signals[sent.name] += 1
                wrong = _stop(command, sent)
                lost_rows.append(len(set(command.finished_ids) - _ids(out)))
                wrong += flaws(out, finished=False)
                wrong += [f"{id} was in the cache and is no longer there" for id in before - _ids(out)]
                if lost_rows[-1] > MAX_LOST_ROWS:
                    wrong.append(f"{lost_rows[-1]} finished rows are in no shard; at most {MAX_LOST_ROWS} are allowed")
                num_bad += bool(wrong)
            losses += [f"after {signals.total()} stops ({dict(signals)}): {text}" for text in wrong]
        command = Command(extract_command(manifest, out, folder, shard_size=SHARD_SIZE), folder)
        command.wait(RUN_SECONDS)
        losses += [f"the last run: {text}" for text in _check_completed(command, out, expected)]
    signals_text = ", ".join(f"{count} {name}" for name, count in sorted(signals.items()))
    return Record(
        what="runs stopped by a signal",
        tried=number,
        survived=number - num_bad,
        losses=losses,
        note=f"{signals_text}; {num_completed + 1} caches were completed, each equal to that of an undisturbed run; "
        f"finished rows lost per stop: mean {np.mean(lost_rows):.1f}, maximum {max(lost_rows)}, {SHARD_SIZE} per shard",
        facts={
            "signals": dict(signals),
            "caches": num_completed + 1,
            "rows_lost": lost_rows,
            "undisturbed_seconds": run_seconds,
        },
        seconds=time.monotonic() - started,
    )


def _undisturbed(manifest: Path, folder: Path) -> tuple[Contents, float]:
    """Contents of the cache of a run that nobody stops, and the duration of the shortest of three such runs."""
    out = folder / "undisturbed"
    seconds = []
    for _ in range(3):
        shutil.rmtree(out, ignore_errors=True)
        started = time.monotonic()
        command = Command(extract_command(manifest, out, folder, shard_size=SHARD_SIZE), folder)
        status = command.finish(RUN_SECONDS)
        assert status == 0, command.output
        seconds.append(time.monotonic() - started)
    return read_contents(out), min(seconds)


def _check_completed(command: Command, out: Path, expected: Contents) -> list[str]:
    """What is wrong with a run that has ended by itself, and with its cache."""
    status = command.finish(0)
    if status != 0:
        return [f"it ended with {describe_exit(status)}: {command.output[-500:]}" if status else "it hung"]
    return flaws(out, finished=True) + differences(read_contents(out), expected)


def _stop(command: Command, sent: signal.Signals) -> list[str]:
    """Send a signal to a run, and SIGINT to all its processes, as a terminal does; what went wrong."""
    processes = process_tree(command.pid)
    with contextlib.suppress(ProcessLookupError):
        if sent == signal.SIGINT:
            os.killpg(command.pid, sent)
        else:
            os.kill(command.pid, sent)
    stopped = time.monotonic()
    status = command.finish(STOP_SECONDS)
    wrong = [
        f"process {process.pid} is still running: {' '.join(process.cmdline())[-200:]}"
        for process in still_running(processes)
    ]
    if status is None:
        wrong.append(f"the run had not ended {time.monotonic() - stopped:.0f} s after {sent.name}")
    elif sent != signal.SIGKILL and "Traceback" in command.output:
        wrong.append(f"{sent.name} ends in a traceback: {command.output[-1500:]}")
    return wrong


def _ids(out: Path) -> set[str]:
    """All ids in the shards of a cache; empty if there are none."""
    if not out.is_dir() or not shard_paths(out):
        return set()
    return set(Cache.open(out).locations)
