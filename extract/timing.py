"""How long each step of a run takes."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from haechi.cache.schema import FRAME_STREAM, WINDOW_STREAM

# The steps in their order. The first three run in the decoding processes: their seconds are summed over all processes.
READ, DECODE, RESIZE, WAIT, WRITE = "read", "decode", "resize", "wait", "write"
STEPS = {
    READ: "check, header, hash",
    DECODE: "file to frames",
    RESIZE: "frames to model input",
    WAIT: "backbones idle: no frames yet",
    FRAME_STREAM: "image backbone",
    WINDOW_STREAM: "motion backbone",
    WRITE: "shards to disk, in parallel with the rest",
}
IN_DECODERS = (READ, DECODE, RESIZE)


class Stopwatch:
    """Adds up seconds by step."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STEPS, 0.0)

    @contextmanager
    def time(self, step: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[step] += time.perf_counter() - started

    def add(self, seconds: Mapping[str, float]) -> None:
        for step, more in seconds.items():
            self.seconds[step] += more
