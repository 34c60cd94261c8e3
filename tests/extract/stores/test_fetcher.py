"""The supply of fetched files, with a store in memory."""

import errno
import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path

import pytest

from haechi.cache.errors import HaechiError
from haechi.cache.file_state import FileState
from haechi.cache.stores import retry
from haechi.cache.stores.errors import StoreError, Trouble, of_status
from haechi.cache.stores.location import Location
from haechi.extract.decoding.reasons import Reason
from haechi.extract.decoding.supply import LocalFiles, Rejected, Supplied
from haechi.extract.settings import ExtractSettings
from haechi.extract.stores import fetcher
from haechi.extract.stores.fetcher import Fetcher, supply
from haechi.extract.stores.spool import PREFIX, Spool, open_spool


class Memory:
    """A store whose file `N.mp4` is of N bytes; `gates` hold reading back until they are set."""

    def __init__(self) -> None:
        self.gates: dict[str, threading.Event] = {}
        self.begun: list[str] = []

    def head(self, location: Location) -> FileState:
        return FileState(size_bytes=int(location.key.partition(".")[0]), mtime_ns=1, etag=location.key)

    def read(self, location: Location, state: FileState, *, start: int) -> Iterator[memoryview]:
        self.begun.append(location.key)
        if location.key in self.gates:
            assert self.gates[location.key].wait(30)
        yield memoryview(bytes(state.size_bytes - start))

    def pages(self, prefix: str) -> Iterator[list[tuple[str, FileState]]]:
        yield []


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    held = Memory()
    monkeypatch.setattr(fetcher, "open_store", lambda location: held)
    monkeypatch.setattr(retry, "PAUSES_SECONDS", (0.01,))
    return held


def at(name: str) -> Location:
    return Location.parse(f"s3://memory/{name}")


def opened(files: list[Path | Location], folder: Path, *, max_bytes: int = 1000) -> Fetcher:
    return Fetcher(files, Spool(folder=folder, max_bytes=max_bytes), timeout_seconds=10)


def next_of(files: Fetcher) -> tuple[int, Supplied | Rejected]:
    while True:
        taken = files.take(below=1000)
        if taken is not None:
            return taken
        assert wait(files.arrivals, timeout=30).done


def test_copies_are_whole_hashed_and_deleted_when_done(memory: Memory, tmp_path: Path) -> None:
    local = tmp_path / "local.mp4"
    local.write_bytes(b"local")
    found = {}
    with opened([at("100.mp4"), local, at("0.mp4"), at("200.webm")], tmp_path) as files:
        while files.oldest is not None:
            index, file = next_of(files)
            found[index] = file
            if isinstance(file, Supplied):
                assert file.path.exists()
                if index == 0:
                    files.put_back(index)  # its decoder was killed: the same copy is handed out again
                    assert next_of(files) == (0, file)
                files.done(index)
                assert file.path.exists() == (index == 1)
    first = found[0]
    assert isinstance(first, Supplied)
    assert first.sha256 == hashlib.sha256(bytes(100)).hexdigest()
    assert first.state == FileState(size_bytes=100, mtime_ns=1, etag="100.mp4")
    assert found[1] == Supplied(path=local, state=FileState.of(local))
    assert isinstance(found[2], Rejected)
    assert found[2].reason is Reason.EMPTY_FILE
    assert isinstance(found[3], Supplied)
    assert found[3].path.suffix == ".webm"
    assert files.most_bytes <= 300
    assert [path.name for path in tmp_path.iterdir()] == ["local.mp4"]


def test_a_slow_file_holds_back_no_other(memory: Memory, tmp_path: Path) -> None:
    gate = memory.gates["1.mp4"] = threading.Event()
    with opened([at(f"{i}.mp4") for i in range(1, 6)], tmp_path) as files:
        assert sorted(next_of(files)[0] for _ in range(4)) == [1, 2, 3, 4]
        assert files.oldest == 0
        assert files.take(below=10) is None
        gate.set()
        assert next_of(files)[0] == 0
        assert files.oldest is None


def test_nothing_is_fetched_too_far_ahead(memory: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher, "MAX_AHEAD", 3)
    gate = memory.gates["1.mp4"] = threading.Event()
    with opened([at(f"{i}.mp4") for i in range(1, 10)], tmp_path) as files:
        assert sorted(next_of(files)[0] for _ in range(2)) == [1, 2]
        assert files.take(below=10) is None
        assert not wait(files.arrivals, timeout=0.1).done
        assert set(memory.begun) == {"1.mp4", "2.mp4", "3.mp4"}
        gate.set()
        assert {next_of(files)[0] for _ in range(7)} == {0, *range(3, 9)}


def test_files_wait_for_space_in_their_order(memory: Memory, tmp_path: Path) -> None:
    with opened([at(f"{size}.mp4") for size in (600, 700, 100, 1001, 300)], tmp_path) as files:
        taken = {}
        while files.oldest is not None:
            index, file = next_of(files)
            taken[index] = file
            if isinstance(file, Supplied):
                assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 1000
                files.done(index)
        assert files.most_bytes <= 1000
    assert [isinstance(taken[i], Supplied) for i in range(5)] == [True, True, True, False, True]
    assert taken[3].reason is Reason.TOO_LARGE  # type: ignore[union-attr]


@pytest.mark.parametrize(("status", "num_tries", "reason"), [(404, 1, "not_found"), (429, 2, "throttled")])
def test_only_temporary_errors_are_tried_again(
    memory: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, num_tries: int, reason: str
) -> None:
    tries: list[Location] = []

    def fail(location: Location) -> FileState:
        tries.append(location)
        raise of_status(status)

    monkeypatch.setattr(memory, "head", fail)
    with opened([at("1.mp4")], tmp_path) as files:
        _, rejected = next_of(files)
    assert isinstance(rejected, Rejected)
    assert (rejected.reason, len(tries)) == (reason, num_tries)


def test_a_full_disk_ends_the_run(memory: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(location: Location, state: FileState, *, start: int) -> Iterator[memoryview]:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(memory, "read", full)
    with opened([at("1.mp4")], tmp_path) as files, pytest.raises(HaechiError, match=r"No space left.* --spool-gb"):
        next_of(files)


def test_a_disk_that_is_too_full_ends_the_run(memory: Memory, tmp_path: Path) -> None:
    """No file is `too_large` that would fit into --spool-gb: the next run would not try it again."""
    spool = Spool(folder=tmp_path, max_bytes=100, asked_bytes=1000)
    with Fetcher([at("1001.mp4")], spool, timeout_seconds=10) as files:
        assert next_of(files)[1].reason is Reason.TOO_LARGE  # type: ignore[union-attr]
    with (
        Fetcher([at("1000.mp4")], spool, timeout_seconds=10) as files,
        pytest.raises(HaechiError, match=r"No space left.* --spool-gb"),
    ):
        next_of(files)


def test_a_defect_is_raised_in_the_main_thread(memory: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(location: Location) -> FileState:
        raise ZeroDivisionError

    monkeypatch.setattr(memory, "head", wrong)
    with opened([at("1.mp4")], tmp_path) as files, pytest.raises(ZeroDivisionError):
        next_of(files)


def test_leaving_ends_the_threads(memory: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "PAUSES_SECONDS", (3600,))

    def fail(location: Location) -> FileState:
        raise StoreError(Trouble.THROTTLED, "slow down", is_temporary=True)

    with opened([at("900.mp4"), at("901.mp4"), at("902.mp4")], tmp_path) as files:
        next_of(files)  # the others wait for space
    monkeypatch.setattr(memory, "head", fail)
    with opened([at("1.mp4")], tmp_path):  # waits before its next try
        pass
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fetch-")]


def test_files_on_this_machine_need_no_thread_and_no_spool(tmp_path: Path) -> None:
    with supply([tmp_path / "a.mp4"], ExtractSettings(spool=str(tmp_path / "nowhere"))) as files:
        assert isinstance(files, LocalFiles)
        assert files.arrivals == []
        assert files.take(below=0) is None
        taken = files.take(below=1)
        assert taken is not None
        assert files.oldest is None
        files.put_back(0)
        assert files.oldest == 0


def test_spools_of_killed_runs_are_deleted(tmp_path: Path) -> None:
    with open_spool(str(tmp_path), spool_gb=1) as alive:
        (alive.folder / "copy").touch()
        dead = tmp_path / f"{PREFIX}dead"
        dead.mkdir()
        (dead / "copy").touch()
        Path(f"{dead}.lock").touch()
        with open_spool(str(tmp_path), spool_gb=1):
            assert not dead.exists()
            assert (alive.folder / "copy").exists()
    assert list(tmp_path.iterdir()) == []


def test_a_spool_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "nowhere", tmp_path / "file"):
        with (
            pytest.raises(HaechiError, match="copies of fetched files cannot be written there"),
            open_spool(str(folder), spool_gb=1),
        ):
            pass


def test_the_spool_leaves_free_space(tmp_path: Path) -> None:
    with open_spool(str(tmp_path), spool_gb=1e6) as spool:
        assert 0 < spool.max_bytes < 1e15
