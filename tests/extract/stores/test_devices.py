"""Several devices fill a cache in a real store: each slice is put once, whatever happens to the workers."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from haechi.cache.errors import CacheError, HaechiError
from haechi.cache.integrity.verify import verify
from haechi.cache.slices import Slice, record_path, work_folder
from haechi.cache.status import read_status
from haechi.cache.stores.location import Location
from haechi.cache.stores.stored_cache import StoredCache, cache_location, folder_name
from haechi.extract.api import extract_features
from haechi.extract.engines import coordinator
from haechi.extract.engines.coordinator import extract_on, tasks_of
from haechi.extract.engines.engine import Finished
from haechi.extract.engines.processes import Processes
from haechi.extract.engines.worker import CORES_VARIABLE
from haechi.extract.interrupt import InterruptedRunError
from haechi.extract.manifest import Manifest
from haechi.extract.pipeline import Extraction
from haechi.extract.slices import extract_slice
from haechi.extract.upload import extract_rows_to_store
from tests.extract.conftest import SOUND, UNSOUND
from tests.extract.engines.doomed import serve_doomed
from tests.extract.engines.inline import Inline
from tests.extract.engines.test_coordinator import DEATH, SETTINGS, Shown, manifest_of
from tests.extract.slice_race import MadeFlow
from tests.extract.stores.conftest import contents, put
from tests.extract.test_slices import settings_of
from tests.miniature import shrink_slowfast

ROWS = manifest_of(40)


@pytest.fixture
def out(place: str, monkeypatch: pytest.MonkeyPatch) -> Location:
    """As `place`; workers make the rows."""
    monkeypatch.setenv(CORES_VARIABLE, "1")
    monkeypatch.setattr("haechi.extract.engines.worker.open_flow", MadeFlow.opened)
    monkeypatch.setattr(coordinator, "MIN_ROWS_PER_SLICE", 5)
    return cache_location(place)


def run(engine: Inline, out: Location, shown: Shown | None = None, *, data: Manifest = ROWS, **how: Any) -> Extraction:
    return extract_on(engine, data, out, SETTINGS, producer="haechi test", progress=shown or Shown(), **how)


def rows_of(number: int) -> int:
    return len(tasks_of(ROWS, 8, without={})[number].entries)


def work(tmp_path: Path, out: Location) -> Path:
    """Where slices are built on this machine."""
    return tmp_path / "user" / "haechi" / "work" / folder_name(out)


def left(folder: Path) -> list[str]:
    """Rows of slices that are still on this machine."""
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix == ".h5" or path.name == "cache"]


def test_all_slices_are_put_once(out: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is probed once, a slice whose worker died is put by another one, and then there is nothing to do."""
    probes, probe = [], StoredCache.refuse_overwriting
    monkeypatch.setattr(StoredCache, "refuse_overwriting", lambda self: (probes.append(1), probe(self)))
    shown, engine = Shown(), Inline(2, {(3, 0): DEATH})
    done = run(engine, out, shown)
    assert (done.num_rows, done.num_used, done.num_failed, done.num_new) == (40, 30, 10, 40)
    assert (done.name, done.has_committed, done.slice) == (str(out), False, None)
    assert sorted(engine.order) == [0, 1, 2, 3, 3, 4, 5, 6, 7]
    assert sum(each.num_rows for each in done.devices) == 40
    assert (shown.total, shown.num_done, shown.num_failed, len(shown.notices)) == (40, 40, 10, 1)
    assert probes == [1]
    extract_features(ROWS, tmp_path / "local", settings=SETTINGS)
    assert contents(str(out)) == contents(tmp_path / "local")
    assert (verify(str(out)).problems, verify(str(out)).notes) == ([], [])
    assert left(work(tmp_path, out)) == []

    engine, shown = Inline(3), Shown()
    again = run(engine, out, shown)
    assert (again.num_new, again.num_rows, again.num_used, again.name, engine.num_starts) == (0, 40, 30, str(out), 0)
    assert len(shown.notices) == 1
    assert "finished before" in shown.notices[0]
    fewer = Manifest(entries=ROWS.entries[1:], notices=())
    with pytest.raises(HaechiError, match=r"slice \d of 8 is finished with \d rows, and the manifest has other ones"):
        run(engine, out, data=fewer)
    assert probes == [1]


def test_ctrl_c_and_the_same_command_again(out: Location, tmp_path: Path) -> None:
    """Finished slices are counted, and rows that are on this machine. `retry` does not refuse what was just put."""
    extract_features(
        Manifest(entries=tasks_of(ROWS, 8, without={})[5].entries, notices=()),
        work(tmp_path, out) / ".work" / work_folder(tmp_path, 5, 0).name / "cache",
        settings=SETTINGS,
    )
    engine = Inline(2, {(2, 0): lambda: os.kill(os.getpid(), signal.SIGINT)})
    with pytest.raises(
        InterruptedRunError, match=r"40 rows of this run are safe in the cache or in /.*/work/"
    ) as caught:
        run(engine, out, retry="damaged")
    num_safe = int(str(caught.value).split()[1])
    assert num_safe == sum(rows_of(number) for number in (0, 1, 2, 5))
    assert read_status(str(out)).done == [0, 1, 2]
    without = tuple(entry for entry in ROWS.entries if not Slice(number=1, num_slices=8).holds(entry.id))
    engine = Inline(2)
    with pytest.raises(HaechiError, match=r"slice 1 of 8 is finished with \d rows, and the manifest has other ones"):
        run(engine, out, data=Manifest(entries=without, notices=()))
    assert engine.num_starts == 0
    done = run(Inline(2), out, retry="damaged")
    assert (done.num_rows, done.num_used) == (40, 30)
    assert verify(str(out)).problems == []


def test_a_second_copy_on_one_machine(out: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is built in a folder of its own, and the first to finish commits; nothing of the other one is left."""
    honest, copies = MadeFlow.rows, []

    def meanwhile(self: MadeFlow, *arguments: Any, **how: Any) -> Iterator[Any]:
        monkeypatch.setattr(MadeFlow, "rows", honest)
        first = extract_rows_to_store(task.entries, out, SETTINGS, task.part, num_manifest_rows=40, producer="copy")
        copies.append(first.has_committed)
        return honest(self, *arguments, **how)

    monkeypatch.setattr(MadeFlow, "rows", meanwhile)
    task = tasks_of(ROWS, 8, without={})[0]
    shown = Shown()
    done = run(Inline(2), out, shown)
    assert copies == [True]
    assert (done.num_rows, done.num_used, shown.notices) == (40, 30, [])
    assert (work(tmp_path, out) / ".copy-1").is_dir()
    assert left(work(tmp_path, out)) == []
    assert (verify(str(out)).problems, verify(str(out)).notes) == ([], [])


def test_what_killed_processes_left_is_deleted(out: Location, tmp_path: Path) -> None:
    """Slices that others finished: work folders, shards that were to be put, and shards in the store."""
    folder, strange = work(tmp_path, out), "shard-00002-00000-0123456789ab.h5"

    def leave() -> None:
        for place in (folder, folder / ".copy-1"):
            (work_folder(place, 2, 0) / "cache").mkdir(parents=True)
            (place / strange).touch()
            record_path(place, 2).touch()
        put(f"{out.key}/{strange}", b"x")

    run(Inline(2, {(7, 0): leave}), out)
    assert left(folder) == []
    assert not list(folder.rglob("slice-*.json"))
    assert strange not in StoredCache(out).files()


def test_a_store_that_cannot_be_used_is_refused_before_a_worker_starts(
    out: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: StoredCache) -> None:
        raise CacheError("this store overwrites")

    monkeypatch.setattr(StoredCache, "refuse_overwriting", refuse)
    engine = Inline(2)
    with pytest.raises(CacheError, match="this store overwrites"):
        run(engine, out)
    assert engine.num_starts == 0


def test_workers_that_use_another_store(out: Location, tmp_path: Path) -> None:
    """What they say is finished is not there."""
    part = Slice(number=3, num_slices=8)
    elsewhere = extract_slice(ROWS, tmp_path / "elsewhere", SETTINGS, part, producer="haechi test")
    with pytest.raises(HaechiError, match=r"^s3://\S+: finished slices are not there; all machines must use the same"):
        run(Inline(2, {(3, 0): Finished(done=elsewhere)}), out)
    assert run(Inline(1), out).num_new == rows_of(3)


def test_two_processes_from_and_to_a_store(
    s3: str, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows of one process, equal to the last bit, although one of them is killed in the middle of a slice."""
    monkeypatch.setenv(CORES_VARIABLE, "1")  # threads change last bits
    shrink_slowfast(monkeypatch)
    monkeypatch.setattr(Processes, "work", staticmethod(serve_doomed))
    bucket, names = f"s3://videos/{tmp_path.name}", [*SOUND, *UNSOUND]
    for name in names:
        if name != "gone.mp4":
            put(f"{tmp_path.name}/data/{name}", (videos / name).read_bytes())
    data = tmp_path / "labels.csv"
    data.write_text("path\n" + "".join(f"{bucket}/data/{name}\n" for name in names))
    settings = settings_of(tmp_path)
    whole = extract_features(data, tmp_path / "whole", settings=settings)
    shown = Shown()
    settings, place = settings.changed(device="auto"), f"{bucket}/cache"
    done = extract_features(data, place, settings=settings, devices="cpu:2", work=tmp_path / "work", progress=shown)
    assert (done.num_rows, done.num_used, done.failures) == (10, 6, whole.failures)
    assert done.num_used + done.num_failed == len(names)
    assert any("slice 1/2 is handed out again" in notice for notice in shown.notices), shown.notices
    assert contents(place) == contents(tmp_path / "whole")
    assert (verify(place).problems, verify(place).notes) == ([], [])
    assert left(tmp_path / "work") == []
    assert not [pid for pid in json.loads((tmp_path / "decoders.json").read_text()) if psutil.pid_exists(pid)]
