"""Two runs on one cache: one of them writes, the other is refused in words; a killed run's lock blocks nobody."""

import os
import shutil
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from tests.torture.apart import Command
from tests.torture.held import Held, differences, flaws, held
from tests.torture.media import extract_command, write_mixed
from tests.torture.record import Record

VIDEOS = 24
RUN_SECONDS = 120.0
REFUSAL = "another run is writing to this cache"


def write_twice(number: int, *, seed: int = 0) -> Record:
    """Start two runs on an empty cache at almost the same time, `number` times; kill the first in every third."""
    started = time.monotonic()
    rng = np.random.default_rng(seed)
    losses: list[str] = []
    ends, bad = Counter[str](), 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest, out = write_mixed(folder / "videos", number=VIDEOS), folder / "cache"
        for who in ("one", "other"):
            (folder / who).mkdir()
        arguments = extract_command(manifest, out, folder)
        expected: Held = {}
        for i in range(number + 1):
            one = Command(arguments, folder / "one")
            if i == 0:  # the first run is alone, and what it leaves is what all must leave
                assert one.finish(RUN_SECONDS) == 0, one.told
                expected = held(out)
            else:
                one.wait(float(rng.uniform(0, 0.5)))
                if i % 3 == 0:
                    os.kill(one.pid, signal.SIGKILL)
                    one.finish(RUN_SECONDS)
                other = Command(arguments, folder / "other")
                wrong, how = _judge(one.finish(RUN_SECONDS), other.finish(RUN_SECONDS), one.told, other.told)
                ends[how] += 1
                wrong += flaws(out, finished=True) + differences(held(out), expected)
                bad += bool(wrong)
                losses += [f"pair {i}: {text}" for text in wrong]
            shutil.rmtree(out)
    return Record(
        what="two runs on one cache",
        tried=number,
        survived=number - bad,
        losses=losses,
        note=", ".join(f"{count} x {how}" for how, count in ends.most_common()),
        facts={"ends": dict(ends)},
        seconds=time.monotonic() - started,
    )


def _judge(one: int | None, other: int | None, told_by_one: str, told_by_other: str) -> tuple[list[str], str]:
    """What went wrong with a pair of exit statuses, and how the pair ended."""
    refused = [text for status, text in ((one, told_by_one), (other, told_by_other)) if status == 1 and REFUSAL in text]
    if 0 not in (one, other):
        return [f"none completes ({one}, {other}): {told_by_one[-500:]} {told_by_other[-500:]}"], "none"
    if any("Traceback" in text for text in (told_by_one, told_by_other)):
        return [f"a traceback: {told_by_one[-1000:]} {told_by_other[-1000:]}"], "traceback"
    if refused:
        return [], "one refused"
    if one == -signal.SIGKILL:
        return [], "one killed, the other goes on"
    wrong = [] if (one, other) == (0, 0) else [f"they end with {one} and {other}: {told_by_one} {told_by_other}"]
    return wrong, "one after the other"
