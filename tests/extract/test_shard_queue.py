"""Rows that come in any order are written as shards in the manifest's order, while work goes on."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from haechi.cache.errors import HaechiError
from haechi.cache.reader import Cache, shard_paths
from haechi.extract import shard_queue as module
from haechi.extract.settings import ExtractSettings
from haechi.extract.shard_queue import ShardQueue, WriteError, next_number
from tests import synthetic


@pytest.fixture
def collect(tmp_path: Path) -> Callable[..., ShardQueue]:
    def collect(*, num_rows: int, **changes: float) -> ShardQueue:
        settings = ExtractSettings(**{"shard_size": 4, **changes})  # type: ignore[arg-type]
        return ShardQueue(tmp_path, 0, num_rows, settings, synthetic.provenance())

    return collect


def add(shards: ShardQueue, i: int, *, fails: bool = False) -> None:
    name = f"{i:02d}.mp4"
    row = synthetic.failure(name) if fails else synthetic.item(synthetic.media(name), seed=i)
    shards.add(i, row)


def held_if_any(folder: Path) -> list[list[str]]:
    return held(folder) if shard_paths(folder) else []


def held(folder: Path) -> list[list[str]]:
    return [[*shard.read("media/id")[0], *shard.read("failure/id")[0]] for shard in Cache.open(folder).shards]


def test_shards_keep_the_manifests_order(collect: Callable[..., ShardQueue], tmp_path: Path) -> None:
    with collect(num_rows=10) as shards:
        for i in (3, 0, 9, 1, 2, 8, 5, 4, 7, 6):
            add(shards, i, fails=i == 5)
        shards.finish()
    names = [f"{i:02d}.mp4" for i in range(10)]
    assert held(tmp_path) == [names[:4], ["04.mp4", "06.mp4", "07.mp4", "05.mp4"], names[8:]]
    assert shards.num_written == 10
    assert shards.seconds["write"] > 0


def test_at_the_end_all_that_is_finished_is_written(collect: Callable[..., ShardQueue], tmp_path: Path) -> None:
    with collect(num_rows=10) as shards:
        for i in (0, 1, 2, 3, 4, 7, 6):
            add(shards, i)
        shards.finish()
    assert held(tmp_path) == [[f"{i:02d}.mp4" for i in range(4)], ["04.mp4", "06.mp4", "07.mp4"]]
    assert shards.num_written == 7


def test_what_waited_long_is_written_and_overtakes_what_it_waits_for(
    collect: Callable[..., ShardQueue], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    with collect(num_rows=12, shard_size=4, shard_minutes=5) as shards:
        for i in (0, 1, 3, 4):  # the third one hangs
            add(shards, i)
        now += 299
        shards.write_if_due()
        shards._wait()
        assert held_if_any(tmp_path) == []
        now += 2
        shards.write_if_due()
        add(shards, 6)
        now += 400
        add(shards, 5)
        for i in (2, 7, 8, 9, 11, 10):
            add(shards, i)
        shards.finish()
    assert held(tmp_path) == [
        ["00.mp4", "01.mp4", "03.mp4", "04.mp4"],
        ["05.mp4", "06.mp4"],
        ["02.mp4", "07.mp4", "08.mp4", "09.mp4"],
        ["10.mp4", "11.mp4"],
    ]
    assert shards.num_written == 12


def test_rows_are_taken_while_a_shard_is_written(
    collect: Callable[..., ShardQueue], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, may_write = module.write_shard, threading.Event()

    def slow(*arguments: object, **options: object) -> None:
        assert may_write.wait(30)
        honest(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "write_shard", slow)
    with collect(num_rows=8) as shards:
        for i in range(7):
            add(shards, i)
        assert shard_paths(tmp_path) == []
        may_write.set()
        add(shards, 7)
        shards.finish()
    assert len(held(tmp_path)) == 2


def test_after_a_shard_that_could_not_be_written_comes_no_other(
    collect: Callable[..., ShardQueue], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, calls = module.write_shard, 0

    def full_once(*arguments: object, **options: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise OSError(28, "No space left on device")
        honest(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "write_shard", full_once)
    with collect(num_rows=12) as shards:
        for i in range(7):
            add(shards, i)
        with pytest.raises(WriteError, match=r"cannot be written \(No space left on device\); 0 of 12 rows"):
            add(shards, 7)
        with pytest.raises(WriteError, match=r"cannot be written \(No space left on device\); 0 of 12 rows"):
            shards.finish()
    assert shard_paths(tmp_path) == []
    assert shards.num_written == 0


def test_numbers_go_on_after_the_last_shard(tmp_path: Path) -> None:
    assert next_number(None) == 0
    synthetic.write_cache(tmp_path / "cache", shard_size=8)
    assert next_number(Cache.open(tmp_path / "cache")) == 3
    (tmp_path / "cache" / "shard-00002.h5").rename(tmp_path / "cache" / "shard-zz.h5")
    with pytest.raises(HaechiError, match="into a new folder"):
        next_number(Cache.open(tmp_path / "cache"))
