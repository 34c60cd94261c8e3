"""The coordinator: every slice is done once, whatever happens to the workers."""

import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from haechi.cache.errors import HaechiError, SettingsConflictError, SettingsError
from haechi.cache.integrity.verify import verify
from haechi.cache.progress import Progress
from haechi.cache.reader import Cache
from haechi.cache.slices import Pin, Slice
from haechi.cache.status import read_status
from haechi.extract import pipeline
from haechi.extract.engines import coordinator
from haechi.extract.engines.coordinator import extract_on
from haechi.extract.engines.engine import Died, Event, Job, Refused, Report
from haechi.extract.engines.worker import CORES_VARIABLE
from haechi.extract.interrupt import InterruptedRunError
from haechi.extract.manifest import Entry, Manifest
from haechi.extract.pipeline import Extraction
from haechi.extract.slices import extract_slice
from tests.extract.engines.inline import Ending, Inline
from tests.extract.slice_race import SETTINGS as SMALL_SHARDS
from tests.extract.slice_race import MadeFlow

SETTINGS = SMALL_SHARDS.changed(shard_size=64)
DEATH = Died(why="its process was ended by SIGKILL")


def manifest_of(number: int) -> Manifest:
    """Rows whose files do not exist; every fourth becomes a failure."""
    entries = (
        Entry(id=f"{i}.mp4", file=f"/nowhere/{i}.mp4", label=1, split="", group="", line=0) for i in range(number)
    )
    return Manifest(entries=tuple(entries), notices=())


class Shown(Progress):
    """What a user sees."""

    def __init__(self) -> None:
        self.total = self.num_done = self.num_failed = 0
        self.whats: list[str] = []
        self.notices: list[str] = []

    def start(self, total: int, what: str) -> None:
        self.total += total
        self.whats.append(what)

    def advance(self, count: int = 1, *, failed: bool = False) -> None:
        assert count > 0
        self.num_done += count
        self.num_failed += count * failed

    def notice(self, text: str) -> None:
        self.notices.append(text)


@pytest.fixture(autouse=True)
def no_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CORES_VARIABLE, "1")
    monkeypatch.setattr(pipeline, "open_flow", MadeFlow.opened)
    monkeypatch.setattr("haechi.extract.engines.worker.open_flow", MadeFlow.opened)
    monkeypatch.setattr(coordinator, "MIN_ROWS_PER_SLICE", 5)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def run(engine: Inline, manifest: Manifest, out: Path, progress: Progress | None = None, **options: Any) -> Extraction:
    return extract_on(
        engine, manifest, out, SETTINGS, producer="haechi test", progress=progress or Progress(), **options
    )


def test_all_slices_are_done(out: Path) -> None:
    shown, engine = Shown(), Inline(2)
    done = run(engine, manifest_of(40), out, shown)
    assert (done.num_rows, done.num_used, done.num_failed, done.num_new, done.cache) == (40, 30, 10, 40, out)
    assert (shown.total, shown.num_done, shown.num_failed) == (40, 40, 10)
    assert shown.whats == ["extract on inline workers"]
    assert sorted(engine.order) == list(range(8))
    assert engine.num_starts == 2
    assert [each.name for each in done.devices] == ["worker 0", "worker 1"]
    assert sum(each.num_rows for each in done.devices) == 40
    assert sum(each.num_slices for each in done.devices) == 8
    assert (done.device, done.precision, done.workers) == ("cpu", "fp32", 2)
    assert verify(out).problems == []


def test_again_there_is_nothing_to_do(out: Path) -> None:
    run(Inline(2), manifest_of(40), out)
    engine, shown = Inline(3), Shown()
    again = run(engine, manifest_of(40), out, shown)
    assert (again.num_new, again.num_rows, again.num_used) == (0, 40, 30)
    assert (engine.num_starts, shown.whats, shown.notices, again.devices) == (0, [], [], ())


def test_a_worker_that_dies_loses_its_slice_only(out: Path) -> None:
    shown, engine = Shown(), Inline(2, {(1, 0): DEATH, (3, 0): DEATH, (3, 1): DEATH})
    done = run(engine, manifest_of(40), out, shown)
    assert (done.num_rows, done.num_used) == (40, 30)
    assert engine.order[:8] == list(range(8))  # a slice on which a worker died is tried again after the others
    assert sorted(engine.order[8:]) == [1, 3, 3]
    assert engine.num_starts == 4  # the worker that died last was not needed any more
    assert [notice.partition(": ")[2] for notice in shown.notices] == [
        f"its process was ended by SIGKILL; slice {number}/8 is handed out again" for number in (1, 3, 3)
    ]
    assert (shown.num_done, shown.num_failed) == (40, 10)


def test_a_slice_that_kills_workers_is_given_up(out: Path) -> None:
    deaths = {(number, attempt): DEATH for number in (2, 5) for attempt in range(9)}
    with pytest.raises(HaechiError) as caught:
        run(Inline(2, deaths), manifest_of(40), out)
    text = str(caught.value)
    assert "2 of 8 slices could not be finished; the others are committed" in text
    assert "run the same command again" in text
    for number in (2, 5):
        assert f"slice {number}/8: 3 attempts; the last one: worker" in text
    assert read_status(out).done == [0, 1, 3, 4, 6, 7]
    again = run(Inline(1), manifest_of(40), out)
    assert (again.num_rows, again.num_used) == (40, 30)
    assert again.num_new == sum(
        len(task.entries) for task in coordinator.tasks_of(manifest_of(40), 8, without={}) if task.part.number in (2, 5)
    )


def test_a_device_that_always_fails_is_not_used_again(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator, "SLICES_PER_WORKER", 8)
    deaths = {(number, 0): DEATH for number in range(8)}
    shown = Shown()
    with pytest.raises(HaechiError, match="3 slices that no device was left for"):
        run(Inline(1, deaths), manifest_of(40), out, shown)
    assert shown.notices[-1] == "worker 0 is not used any more: its process died 5 times in a row"


def test_an_error_of_the_user_ends_the_run(out: Path) -> None:
    engine = Inline(2, {(0, 0): Refused(kind=SettingsConflictError, text="other weights")})
    with pytest.raises(SettingsConflictError, match="worker 0: other weights"):
        run(engine, manifest_of(40), out)
    assert engine.order == [0, 1]
    assert engine.stopped == [1]
    refused = Refused(kind=SettingsError, text="no such device")
    with pytest.raises(SettingsError, match="worker 0: no such device"):
        run(Inline(1, {(0, 0): refused}), manifest_of(40), out)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_in_order(out: Path, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    engine = Inline(1, {(2, 0): lambda: os.kill(os.getpid(), number)})
    with pytest.raises(
        InterruptedRunError, match=r"interrupted: \d+ of 40 rows .*run the same command again"
    ) as caught:
        run(engine, manifest_of(40), out)
    assert signal.getsignal(number) == before
    committed = read_status(out)
    assert committed.done == [0, 1, 2]
    assert int(str(caught.value).split()[1]) == committed.num_used + sum(committed.failures.values())
    done = run(Inline(2), manifest_of(40), out)
    assert (done.num_rows, done.num_used, done.num_new) == (40, 30, 40 - int(str(caught.value).split()[1]))


def test_the_rest_of_slices_that_were_begun_by_hand(out: Path) -> None:
    """The number of slices is theirs; what their manifest lacked is done after them."""
    few = Manifest(entries=manifest_of(40).entries[::2], notices=())
    extract_slice(few, out, SETTINGS, Slice(number=1, num_slices=3), producer="haechi test")
    engine, shown = Inline(2), Shown()
    done = run(engine, manifest_of(40), out, shown)
    pin = Pin.read(out)
    assert pin is not None
    assert pin.num_slices == 3
    assert sorted(engine.order) == [0, 2]
    assert (done.num_rows, done.num_used, done.num_failed) == (40, 30, 10)
    assert done.num_new == 40 - sum(Slice(number=1, num_slices=3).holds(entry.id) for entry in few.entries)
    assert shown.notices == [
        "all slices are finished: what is new or has changed is done on one device, in this process"
    ]
    assert len(Cache.open(out).media["id"]) == 30
    assert verify(out).problems == []


def test_new_rows_and_labels_of_a_finished_cache(out: Path) -> None:
    run(Inline(2), manifest_of(40), out)
    relabelled = Manifest(entries=tuple(replace(entry, split="val") for entry in manifest_of(45).entries), notices=())
    engine = Inline(2)
    done = run(engine, relabelled, out)
    assert (done.num_new, done.num_relabelled, done.num_rows, engine.num_starts) == (5, 30, 45, 0)
    assert run(engine, relabelled, out, retry="damaged").num_new == 12  # the failures of `tests.synthetic`


def test_a_cache_without_slices_is_continued(out: Path) -> None:
    pipeline.extract(manifest_of(8), out, SETTINGS, producer="haechi test")
    engine, shown = Inline(2), Shown()
    done = run(engine, manifest_of(12), out, shown)
    assert (done.num_new, done.num_rows, engine.num_starts) == (4, 12, 0)
    assert shown.notices == [
        "this cache was made without slices: what is new or has changed is done on one device, in this process"
    ]


def test_other_settings_are_refused_before_a_worker_starts(out: Path) -> None:
    extract_slice(manifest_of(40), out, SETTINGS, Slice(number=1, num_slices=3), producer="haechi test")
    engine = Inline(2)
    with pytest.raises(SettingsConflictError, match="frames"):
        extract_on(engine, manifest_of(40), out, SETTINGS.changed(frames=16), producer="haechi test")
    with pytest.raises(SettingsConflictError, match="shard_size"):
        extract_on(engine, manifest_of(40), out, SETTINGS.changed(shard_size=16), producer="haechi test")
    assert engine.num_starts == 0


def test_an_idle_worker_takes_a_second_copy_of_the_last_slice(out: Path) -> None:
    """One of them commits, and the other one is ended."""
    engine = Inline(2)
    engine.does_copies = True
    shown = Shown()
    done = run(engine, manifest_of(40), out, shown)
    assert (done.num_rows, done.num_used) == (40, 30)
    assert engine.order == [*range(8), 7]
    assert engine.stopped == [0]
    assert sum(each.num_slices for each in done.devices) == 8
    assert (shown.num_done, shown.notices) == (40, [])
    assert verify(out).problems == []


def test_a_copy_of_a_slice_whose_worker_hangs(out: Path) -> None:
    """The copy finishes, and the run does not wait for the other."""
    engine = Inline(2, {(7, 0): Report(number=7, num_rows=None, num_done=0, num_failed=0, num_windows=0, notices=())})
    engine.does_copies = True
    done = run(engine, manifest_of(40), out)
    assert (done.num_rows, done.num_used) == (40, 30)
    assert engine.order == [*range(8), 7]
    assert engine.stopped == [1]


class AtOnce(Inline):
    """The last worker reports first, and all report together. One that was killed does nothing until it is started."""

    def __init__(self, num_workers: int, endings: Mapping[tuple[int, int], Ending]) -> None:
        super().__init__(num_workers, endings)
        self.does_copies = True
        self._dead = set[int]()

    def start(self, worker: int, job: Job) -> None:
        super().start(worker, job)
        self._dead.discard(worker)

    def kill(self, worker: int) -> None:
        self._dead.add(worker)

    def events(self, seconds: float) -> list[tuple[int, Event]]:
        given, found = self._given[::-1], list[tuple[int, Event]]()
        for worker, task in given:
            self._given = [(worker, task)]
            found += [(worker, Died(why="was killed"))] if worker in self._dead else super().events(seconds)
        self._given = []
        return found


def test_a_second_copy_that_ends_before_it_can_be_killed(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its worker is started again before it gets the slice of another one, which died."""
    monkeypatch.setattr(coordinator, "number_of_slices", lambda *_: 2)
    small = min(coordinator.tasks_of(manifest_of(40), 2, without={}), key=lambda task: len(task.entries))
    shown, engine = Shown(), AtOnce(3, {(small.part.number, 0): DEATH})
    done = run(engine, manifest_of(40), out, shown)
    assert (done.num_rows, done.num_used) == (40, 30)
    assert engine.num_starts == 3 + 2
    assert len(shown.notices) == 1
    assert shown.notices[0].endswith(f"its process was ended by SIGKILL; slice {small.part} is handed out again")


class Elsewhere(Inline):
    """On another machine, which has another folder of the same name."""

    def start(self, worker: int, job: Job) -> None:
        assert isinstance(job.out, Path)
        super().start(worker, replace(job, out=job.out.with_name("elsewhere") if worker else job.out))


def test_machines_that_do_not_share_the_folder(out: Path) -> None:
    with pytest.raises(HaechiError, match="finished slices are not there; all machines must see this folder") as caught:
        run(Elsewhere(2), manifest_of(40), out)
    assert str(caught.value).startswith(f"{out}: ")
    assert len(read_status(out).missing) == 4
    done = run(Inline(2), manifest_of(40), out)
    assert (done.num_rows, done.num_used) == (40, 30)
