"""Two runs on one cache: one writes, the other is refused with a message. The lock of a killed run blocks no one."""

import os
import shutil
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from tests.torture.contents import Contents, differences, flaws, read_contents
from tests.torture.media import extract_command, write_mixed
from tests.torture.processes import Command
from tests.torture.record import Record

VIDEOS = 24
RUN_SECONDS = 120.0
REFUSAL = "another run is writing to this cache"


def write_twice(number: int, *, seed: int = 0) -> Record:
    """Start two runs on an empty cache almost at once, `number` times; every third time, kill the first one."""
    started = time.monotonic()
    rng = np.random.default_rng(seed)
    losses: list[str] = []
    ends, num_bad = Counter[str](), 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest, out = write_mixed(folder / "videos", number=VIDEOS), folder / "cache"
        for side in ("one", "other"):
            (folder / side).mkdir()
        arguments = extract_command(manifest, out, folder)
        expected: Contents = {}
        for i in range(number + 1):
            one = Command(arguments, folder / "one")
            if i == 0:  # a run alone: all others must give the same cache
                assert one.finish(RUN_SECONDS) == 0, one.output
                expected = read_contents(out)
            else:
                one.wait(float(rng.uniform(0, 0.5)))
                if i % 3 == 0:
                    os.kill(one.pid, signal.SIGKILL)
                    one.finish(RUN_SECONDS)
                other = Command(arguments, folder / "other")
                wrong, how = _check_pair(one.finish(RUN_SECONDS), other.finish(RUN_SECONDS), one.output, other.output)
                ends[how] += 1
                wrong += flaws(out, finished=True) + differences(read_contents(out), expected)
                num_bad += bool(wrong)
                losses += [f"pair {i}: {text}" for text in wrong]
            shutil.rmtree(out)
    return Record(
        what="two runs on one cache",
        tried=number,
        survived=number - num_bad,
        losses=losses,
        note=", ".join(f"{count} x {how}" for how, count in ends.most_common()),
        facts={"ends": dict(ends)},
        seconds=time.monotonic() - started,
    )


def _check_pair(one: int | None, other: int | None, one_output: str, other_output: str) -> tuple[list[str], str]:
    """What went wrong (one line each), and how the two runs ended."""
    refused = [text for status, text in ((one, one_output), (other, other_output)) if status == 1 and REFUSAL in text]
    if 0 not in (one, other):
        return [f"neither run completes ({one}, {other}): {one_output[-500:]} {other_output[-500:]}"], "none"
    # Decoding processes that were just starting when their run was killed may complain that it is gone.
    ended = [text for status, text in ((one, one_output), (other, other_output)) if status != -signal.SIGKILL]
    if any("Traceback" in text for text in ended):
        return [f"a traceback: {one_output[-1000:]} {other_output[-1000:]}"], "traceback"
    if refused:
        return [], "one refused"
    if one == -signal.SIGKILL:
        return [], "one killed, the other goes on"
    wrong = [] if (one, other) == (0, 0) else [f"they end with {one} and {other}: {one_output} {other_output}"]
    return wrong, "one after the other"
