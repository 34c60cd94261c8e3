"""Runs killed at random moments and begun again: no finished shard is lost, no row doubled, no process left."""

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
from tests.torture.apart import Command, family, how_it_ended, survivors
from tests.torture.held import Held, differences, flaws, held
from tests.torture.media import extract_command, write_mixed
from tests.torture.record import Record

VIDEOS, SHARD_SIZE, WORKERS = 40, 4, 2

# Rows that a kill may cost: a shard that is being filled, one that is being written, and what the decoders have ready.
MOST_ROWS = 2 * SHARD_SIZE + 2 * WORKERS + 1

# How long a run may take to end by itself: undisturbed, and after it was asked to.
RUN_SECONDS, ASKED_SECONDS = 120.0, 15.0


def kill(number: int, *, seed: int = 0) -> Record:
    """Stop runs `number` times, two thirds with SIGKILL; compare each cache that got full with an undisturbed run's."""
    started = time.monotonic()
    rng = np.random.default_rng(seed)
    losses: list[str] = []
    costs: list[int] = []
    how, bad, num_full = Counter[str](), 0, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = write_mixed(folder / "videos", number=VIDEOS)
        expected, run_seconds = _undisturbed(manifest, folder)
        out = folder / "cache"
        while sum(how.values()) < number:
            command = Command(extract_command(manifest, out, folder, shard_size=SHARD_SIZE), folder)
            before = _ids(out)
            if command.wait(float(rng.uniform(0, run_seconds))):
                wrong = _at_the_end(command, out, expected)
                num_full += 1
                shutil.rmtree(out, ignore_errors=True)
            else:
                sent = signal.Signals(rng.choice([signal.SIGKILL] * 4 + [signal.SIGINT, signal.SIGTERM]))
                how[sent.name] += 1
                wrong = _stop(command, sent)
                costs.append(len(set(command.rows) - _ids(out)))
                wrong += flaws(out, finished=False)
                wrong += [f"{id} was in the cache and is gone" for id in before - _ids(out)]
                if costs[-1] > MOST_ROWS:
                    wrong.append(f"{costs[-1]} finished rows are in no shard, at most {MOST_ROWS} may be")
                bad += bool(wrong)
            losses += [f"after {sum(how.values())} kills ({dict(how)}): {text}" for text in wrong]
        command = Command(extract_command(manifest, out, folder, shard_size=SHARD_SIZE), folder)
        command.wait(RUN_SECONDS)
        losses += [f"the last run: {text}" for text in _at_the_end(command, out, expected)]
    kinds = ", ".join(f"{count} {name}" for name, count in sorted(how.items()))
    return Record(
        what="runs killed",
        tried=number,
        survived=number - bad,
        losses=losses,
        note=f"{kinds}; {num_full + 1} caches got full, each the undisturbed one; "
        f"a kill cost {np.mean(costs):.1f} finished rows, at most {max(costs)}, in shards of {SHARD_SIZE}",
        facts={"signals": dict(how), "caches": num_full + 1, "rows_lost": costs, "undisturbed_seconds": run_seconds},
        seconds=time.monotonic() - started,
    )


def _undisturbed(manifest: Path, folder: Path) -> tuple[Held, float]:
    """What a run leaves that nobody stops, and how long the shortest of three takes: machines are noisy."""
    out = folder / "undisturbed"
    seconds = []
    for _ in range(3):
        shutil.rmtree(out, ignore_errors=True)
        started = time.monotonic()
        command = Command(extract_command(manifest, out, folder, shard_size=SHARD_SIZE), folder)
        status = command.finish(RUN_SECONDS)
        assert status == 0, command.told
        seconds.append(time.monotonic() - started)
    return held(out), min(seconds)


def _at_the_end(command: Command, out: Path, expected: Held) -> list[str]:
    """What is wrong with a run that was let finish, and with what it left."""
    status = command.finish(0)
    if status != 0:
        return [f"it ended with {how_it_ended(status)}: {command.told[-500:]}" if status else "it hung"]
    return flaws(out, finished=True) + differences(held(out), expected)


def _stop(command: Command, sent: signal.Signals) -> list[str]:
    """Stop a run: with SIGINT as a terminal does, which sends it to all of its processes; what went wrong."""
    members = family(command.pid)
    with contextlib.suppress(ProcessLookupError):
        if sent == signal.SIGINT:
            os.killpg(command.pid, sent)
        else:
            os.kill(command.pid, sent)
    asked = time.monotonic()
    status = command.finish(ASKED_SECONDS)
    wrong = [f"{process.pid} outlives it: {' '.join(process.cmdline())[-200:]}" for process in survivors(members)]
    if status is None:
        wrong.append(f"still runs {time.monotonic() - asked:.0f} s after {sent.name}")
    elif sent != signal.SIGKILL and "Traceback" in command.told:
        wrong.append(f"{sent.name} ends in a traceback: {command.told[-1500:]}")
    return wrong


def _ids(out: Path) -> set[str]:
    """All that the shards of a cache hold."""
    if not out.is_dir() or not shard_paths(out):
        return set()
    return set(Cache.open(out).places)
