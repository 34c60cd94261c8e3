"""Forecasts: the simulation against what follows by hand."""

import json
import math
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench import measure, plan, tables
from bench.plan import CACHED_BYTES, Plan, num_requests, simulate, slice_rows
from bench.synthetic import SETTINGS, item, provenance
from haechi.cache.writer import shard_path, write_shard

CALM = Plan(rows=(10, 10, 10, 10), num_workers=2, seconds_by_row=2.0, start_seconds=5.0, shard_rows=4)


def test_without_stops() -> None:
    found = simulate(CALM, seed=0)
    assert found.hours == pytest.approx(50 / 3600)
    assert found.worker_hours == pytest.approx(100 / 3600)
    assert (found.lost_hours, found.num_stops, found.rows_read) == (pytest.approx(0), 0, 40)


def test_workers_that_start_once() -> None:
    found = simulate(replace(CALM, starts_once=True), seed=0)
    assert found.hours == pytest.approx(45 / 3600)
    again = simulate(replace(CALM, starts_once=True), seed=0, stops=((28.0,), ()))
    assert again.lost_hours * 3600 == pytest.approx(3 + 5)  # one row and a half, and a start


def test_a_worker_more_than_slices_waits() -> None:
    assert simulate(replace(CALM, num_workers=5), seed=0).hours == pytest.approx(25 / 3600)


@pytest.mark.parametrize(
    ("keeps_work", "seconds", "lost", "rows"),
    [
        # Killed after 18 s: 6 rows are finished and the 7th is begun, 4 of them are in a shard. 6 remain.
        (True, 18 + 7 + (5 + 6 * 2), 13 - 4 * 2 + 5, 7 + 6),
        (False, 18 + 7 + (5 + 10 * 2), 13 + 5, 7 + 10),
    ],
)
def test_a_stop_costs_a_start_and_what_is_in_no_shard(keeps_work: bool, seconds: float, lost: float, rows: int) -> None:
    one = replace(CALM, rows=(10,), num_workers=1, pause_seconds=7.0, keeps_work=keeps_work)
    found = simulate(one, seed=0, stops=((18.0,),))
    assert found.hours * 3600 == pytest.approx(seconds)
    assert found.worker_hours * 3600 == pytest.approx(seconds - 7)
    assert found.lost_hours * 3600 == pytest.approx(lost)
    assert (found.num_stops, found.rows_read) == (1, rows)


def test_a_stop_before_the_first_video_costs_that_time() -> None:
    found = simulate(replace(CALM, rows=(10,), num_workers=1), seed=0, stops=((3.0, 4.0),))
    assert found.hours * 3600 == pytest.approx(4 + 25)
    assert (found.num_stops, found.rows_read) == (2, 10)
    assert found.lost_hours * 3600 == pytest.approx(4)


def test_random_stops_come_as_often_as_they_should() -> None:
    calm = replace(CALM, rows=(1000,) * 100, num_workers=10, start_seconds=0.0, shard_rows=1, hours_between_stops=1.0)
    found = simulate(calm, seed=1)
    expected = found.worker_hours
    assert abs(found.num_stops - expected) < 4 * math.sqrt(expected)
    assert found == simulate(calm, seed=1)
    assert found.rows_read == 100_000 + found.num_stops  # the row that was begun


def test_rows_of_slices_are_all_rows() -> None:
    rows = slice_rows(10_000, 20, seed=0)
    assert (len(rows), sum(rows)) == (20, 10_000)
    assert 400 < min(rows) < max(rows) < 600


def test_bytes_of_a_video_in_the_cache(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    items = [item(f"clips/{i:07d}.mp4", split="train", label=1, rng=rng) for i in range(256)]
    write_shard(shard_path(tmp_path, 0), items, [], provenance())
    assert SETTINGS["store"] == "float16"
    assert shard_path(tmp_path, 0).stat().st_size / 256 == pytest.approx(CACHED_BYTES, rel=0.02)


def test_requests() -> None:
    found = simulate(CALM, seed=0)
    assert num_requests(found, num_slices=4, num_rows=40, shard_size=5) == 40 * 2 + 4 * 2 * 3 + 4


def test_processes_are_killed_at_their_times(tmp_path: Path) -> None:
    """The second worker's first process is killed after 1.5 s; it takes up the same slice again."""
    script = tmp_path / "extract.py"
    script.write_text(
        "import json, sys, time\n"
        f"with open({str(tmp_path / 'log')!r}, 'a') as log: log.write(sys.argv[-1] + '\\n')\n"
        "time.sleep(2)\n"
        "print(json.dumps({'work_seconds': 1.5, 'num_rows': 7}))\n"
    )
    began = time.perf_counter()
    found = plan.run_slices([sys.executable, str(script)], [0, 1], ((), (1.5,)))
    assert time.perf_counter() - began > 3.5
    assert [(each.work_seconds, each.num_rows) for each in found] == [(1.5, 7)] * 2
    assert all(each.seconds > 2 for each in found)
    assert sorted((tmp_path / "log").read_text().split()) in (["0/8", "0/8", "1/8"], ["0/8", "1/8", "1/8"])


def test_a_process_that_fails_ends_the_benchmark(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="exit status 3"):
        plan.run_slices([sys.executable, "-c", "raise SystemExit(3)"], [0], ((),))


def test_quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "forecast_of_real", lambda *_, **__: 0.9)  # runs twenty commands, each loads torch
    plan.main.main(["--quick", "--rounds", "1", "--out", str(tmp_path)], standalone_mode=False)
    result = json.loads((tmp_path / f"plan-{measure.device_kind()}.json").read_text())
    found = {row["what"]: row["median"] for row in result["rows"]}
    assert found["forecast / time of a real run by 2 processes, undisturbed"] == 0.9
    times = [found[f"{what}: time"] for what in result["scenarios"]]
    assert times[0] > times[1]  # few large slices do not end at the same time
    assert min(times) == times[3] > 1e7 / 64 / 10 / 3600
    assert "| 278 slices by `--slice` | " in tables.table("plan", tmp_path)
