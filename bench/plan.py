"""What extracting a large dataset on many GPUs takes, by simulation: `python -m bench.plan`.

Slices wait in one queue. Each worker takes one after another and starts a process for it. Workers may be lost, as
machines that a cloud takes away are: what they have finished is kept up to their last shard if others see their disk.
The simulation is compared with real runs of two processes with tiny networks, which are killed at the same times.
"""

import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import simpy

from bench import measure
from bench.figures import show
from bench.measure import ROOT, Measurement
from bench.networks import write_clip_config
from bench.options import common
from bench.synthetic import CLIP_WIDTH, NUM_FRAMES, NUM_LOGITS, SLOWFAST_WIDTH
from bench.videos import pick_videos, write_manifest
from haechi.cache.reader import Cache
from haechi.cache.slices import slice_of

# The plan: 10 million videos on 64 GPUs. Rate and size are assumptions, to be replaced by those of your own videos.
NUM_VIDEOS, NUM_GPUS = 10_000_000, 64
SHARD_SIZE = 256
PAUSE_SECONDS = 120.0  # ours: until a scheduler has another machine

NUM_DRAWS, QUICK_DRAWS = 20, 2

# The real runs: kills after these seconds, for each worker.
REAL_ROWS, QUICK_REAL_ROWS, REAL_SLICES = 1200, 40, 8
REAL_STOPS, QUICK_REAL_STOPS = ((11.0, 31.0), (19.0,)), ((4.0,), ())
REAL_SHARD_SIZE = 16
MARK_LEAST, MARK_MOST = 0.8, 1.25  # ours: two processes on two cores do not run evenly

# A video from a store takes a question for its size and its ETag, and its download (haechi.extract.stores.fetcher).
REQUESTS_OF_A_VIDEO = 2
# A shard is put in parts of 5 MB, with one request more to begin and one to end; obstore's own size of a part.
PART_BYTES = 5 << 20

# Bytes in the cache of a video with 32 frames and one window: features in float16, times, and a row of the tables.
CACHED_BYTES = 2 * (NUM_FRAMES * CLIP_WIDTH + SLOWFAST_WIDTH + NUM_LOGITS) + 4 * (NUM_FRAMES + 2) + 300


Stops = Sequence[Sequence[float]]
"""For each worker the times at which it is lost, in seconds from the beginning."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A dataset and the workers that extract it."""

    rows: tuple[int, ...]
    """Rows of each slice."""
    num_workers: int
    seconds_by_row: float
    """Of one worker."""
    start_seconds: float
    """From the start of a process until its first video is handed to a decoder: imports and models."""
    shard_rows: int
    """Finished rows are written to disk this many at a time."""
    starts_once: bool = False
    """Whether a worker starts once, and again after a stop only (`--devices`); else once for each slice (`--slice`)."""
    hours_between_stops: float = math.inf
    """Mean time until a worker is lost, at any time equally likely."""
    pause_seconds: float = 0.0
    """Until a lost worker is there again."""
    keeps_work: bool = True
    """Whether the shards of a lost worker are on a disk that the next one sees."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a plan takes."""

    hours: float
    """Until the last slice is committed."""
    worker_hours: float
    """Of all workers, until each has no slice left to take. Pauses do not count."""
    lost_hours: float
    """Of them: starts after a stop, and work that was done again."""
    num_stops: int
    rows_read: int
    """Rows that were fetched and decoded, with those that were done again."""


def simulate(plan: Plan, *, seed: int, stops: Stops | None = None) -> Forecast:
    """Simulate a plan. Without `stops`, workers are lost at random times."""
    env = simpy.Environment()
    waiting = list(plan.rows)
    worker_seconds, useful_seconds, num_stops, rows_read = 0.0, 0.0, 0, 0

    def work(times: Iterator[float]) -> Generator[simpy.Event]:
        nonlocal worker_seconds, useful_seconds, num_stops, rows_read
        stop = next(times)
        start_seconds = plan.start_seconds
        while waiting:
            left = waiting.pop(0)
            useful_seconds += start_seconds + left * plan.seconds_by_row
            while True:
                while stop <= env.now:
                    stop = next(times)
                needed = start_seconds + left * plan.seconds_by_row
                seconds = min(needed, stop - env.now)
                yield env.timeout(seconds)
                worker_seconds += seconds
                if seconds == needed:
                    rows_read += left
                    start_seconds = 0.0 if plan.starts_once else plan.start_seconds
                    break
                done = max(0.0, seconds - start_seconds) / plan.seconds_by_row
                num_stops += 1
                rows_read += min(left, math.ceil(done))
                if plan.keeps_work:
                    left -= math.floor(done) // plan.shard_rows * plan.shard_rows
                start_seconds = plan.start_seconds
                yield env.timeout(plan.pause_seconds)

    rng = np.random.default_rng(seed)
    for number in range(plan.num_workers):
        own = np.random.default_rng(rng.integers(1 << 63))
        env.process(work(_random_stops(plan, own) if stops is None else _given(stops[number])))
    env.run()
    return Forecast(
        hours=env.now / 3600,
        worker_hours=worker_seconds / 3600,
        lost_hours=max(0.0, worker_seconds - useful_seconds) / 3600,
        num_stops=num_stops,
        rows_read=rows_read,
    )


def _random_stops(plan: Plan, rng: np.random.Generator) -> Iterator[float]:
    now = 0.0
    while True:
        now += rng.exponential(plan.hours_between_stops * 3600) if math.isfinite(plan.hours_between_stops) else math.inf
        yield now


def _given(times: Sequence[float]) -> Iterator[float]:
    yield from times
    while True:
        yield math.inf


def slice_rows(num_rows: int, num_slices: int, *, seed: int) -> tuple[int, ...]:
    """Rows of each slice of a manifest: ids are hashed, so that they are as in a draw."""
    return tuple(np.random.default_rng(seed).multinomial(num_rows, [1 / num_slices] * num_slices).tolist())


def num_requests(forecast: Forecast, num_slices: int, num_rows: int, shard_size: int) -> int:
    """Requests to stores, if media come from one and the cache is in one."""
    num_shards = num_slices * math.ceil(num_rows / num_slices / shard_size)
    parts = 2 + math.ceil(shard_size * CACHED_BYTES / PART_BYTES)
    return forecast.rows_read * REQUESTS_OF_A_VIDEO + num_shards * parts + num_slices


@click.command()
@common
@click.option("--videos-per-second", default=10.0, show_default=True, help="Of one GPU, for the plan.")
@click.option("--start-seconds", default=30.0, show_default=True, help="Of one process, until its first video.")
@click.option("--video-mb", default=5.0, show_default=True, help="Mean size of a file, for the plan.")
def main(
    *,
    data: Path | None,
    out: Path,
    rounds: int,
    quick: bool,
    videos_per_second: float,
    start_seconds: float,
    video_mb: float,
) -> None:
    """Forecast the extraction of 10 million videos on 64 GPUs; compare forecasts of small runs with these runs."""
    with tempfile.TemporaryDirectory() as name:
        calm, killed = (
            [forecast_of_real(Path(name, f"{what}-{i}"), data, quick=quick, stops=stops) for i in range(rounds)]
            for what, stops in (("calm", ((), ())), ("killed", QUICK_REAL_STOPS if quick else REAL_STOPS))
        )
    rows = [
        Measurement(
            what=f"forecast / time of a real run by 2 processes, {what}",
            unit="x",
            values=values,
            at_least=MARK_LEAST,
            at_most=MARK_MOST,
        )
        for what, values in (("undisturbed", calm), ("killed now and then", killed))
    ]
    usual = Plan(
        rows=(),
        num_workers=NUM_GPUS,
        seconds_by_row=1 / videos_per_second,
        start_seconds=start_seconds,
        shard_rows=SHARD_SIZE,
        pause_seconds=PAUSE_SECONDS,
    )
    scenarios = {
        **{f"{count:,} slices by `--slice`": (usual, count) for count in (278, 1_000, 4_000)},
        "4,000 slices by `--devices`": (replace(usual, starts_once=True), 4_000),
        **{
            f"1,000 slices by `--slice`; {what}": (replace(usual, hours_between_stops=hours, keeps_work=keeps), 1_000)
            for what, hours, keeps in (
                ("each GPU is lost once a day", 24.0, True),
                ("each GPU is lost every two hours", 2.0, True),
                ("each GPU is lost every two hours, with its disk", 2.0, False),
            )
        },
    }
    for what, (plan, num_slices) in scenarios.items():
        rows += _rows_of(what, plan, num_slices, video_mb, quick=quick)
    show(
        measure.write(
            out,
            "plan",
            rows,
            untrained=False,
            scenarios=list(scenarios),
            videos_per_second=videos_per_second,
            start_seconds=start_seconds,
            video_megabytes=video_mb,
        )
    )


def _rows_of(what: str, plan: Plan, num_slices: int, video_mb: float, *, quick: bool) -> list[Measurement]:
    """What the plan takes, over several draws."""
    found = [
        simulate(replace(plan, rows=slice_rows(NUM_VIDEOS, num_slices, seed=seed)), seed=seed)
        for seed in range(QUICK_DRAWS if quick else NUM_DRAWS)
    ]
    requests = [num_requests(each, num_slices, NUM_VIDEOS, SHARD_SIZE) / 1e6 for each in found]
    values = {
        "time": ("h", [each.hours for each in found]),
        "lost GPU time": ("%", [100 * each.lost_hours / each.worker_hours for each in found]),
        "requests": ("million", requests),
        "read": ("TB", [each.rows_read * video_mb / 1e6 for each in found]),
    }
    return [Measurement(what=f"{what}: {title}", unit=unit, values=each) for title, (unit, each) in values.items()]


def forecast_of_real(folder: Path, data: Path | None, *, quick: bool, stops: Stops) -> float:
    """Forecast time of a real run of slices by two workers, divided by its time.

    `stops`: for each worker, the seconds after which its process is killed.
    """
    folder.mkdir()
    videos = pick_videos(data, folder / "videos", num_videos=8, height=48, width=64, num_frames=20)
    num_rows = QUICK_REAL_ROWS if quick else REAL_ROWS
    command = [sys.executable, "-m", "bench.tiny", "extract"]
    command.append(str(write_manifest(folder / "rows.csv", videos, num_rows=num_rows)))
    command += ["--clip-model", write_clip_config(folder / "clip"), "--clip-weights", "random:0"]
    command += ["--slowfast-weights", "random:0", "--frames", "8", "--workers", "1", "--json"]
    command += ["--shard-size", str(REAL_SHARD_SIZE)]
    numbers = [slice_of(f"{i:05d}", REAL_SLICES) for i in range(num_rows)]
    trial = run_slices([*command, "--out", str(folder / "trial")], [0, 1], ((), ()))
    seconds_by_row = [each.work_seconds / each.num_rows for each in trial]
    plan = Plan(
        rows=tuple(numbers.count(number) for number in range(REAL_SLICES)),
        num_workers=2,
        seconds_by_row=float(np.mean(seconds_by_row)),
        start_seconds=float(np.mean([each.seconds - each.work_seconds for each in trial])),
        shard_rows=REAL_SHARD_SIZE,
    )
    began = time.perf_counter()
    run_slices([*command, "--out", str(folder / "cache")], list(range(REAL_SLICES)), stops)
    seconds = time.perf_counter() - began
    assert len(Cache.open(folder / "cache").columns("id")[0]) == num_rows
    return simulate(plan, seed=0, stops=stops).hours * 3600 / seconds


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A slice that one process extracted."""

    seconds: float
    """Of the process."""
    work_seconds: float
    """From the first video until the last shard."""
    num_rows: int


def run_slices(command: Sequence[str], numbers: list[int], stops: Stops) -> list[Finished]:
    """Extract slices by one process at a time for each worker, which is killed at the times in `stops`."""
    waiting, finished, began = list(numbers), list[Finished](), time.perf_counter()

    def work(times: Sequence[float]) -> None:
        left = list(times)
        while waiting:
            number = waiting.pop(0)
            while not extract(number, left):
                left.pop(0)

    def extract(number: int, left: Sequence[float]) -> bool:
        """Run a process for a slice until it ends, or until the first of the times that are left. Whether it ended."""
        started = time.perf_counter()
        arguments = [*command, "--slice", f"{number}/{REAL_SLICES}"]
        with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:  # noqa: S603
            try:
                limit = max(0.0, began + left[0] - started) if left else None
                output, _ = process.communicate(timeout=limit)
            except subprocess.TimeoutExpired:
                process.kill()
                return False
        if process.returncode:
            raise RuntimeError(f"{' '.join(arguments)}: exit status {process.returncode}")
        summary = json.loads(output)
        seconds = time.perf_counter() - started
        finished.append(Finished(seconds=seconds, work_seconds=summary["work_seconds"], num_rows=summary["num_rows"]))
        return True

    with ThreadPoolExecutor(len(stops)) as threads:
        list(threads.map(work, stops))
    return finished


if __name__ == "__main__":
    main()
