"""Large caches are checked by several processes."""

import os
import re
from pathlib import Path

import pytest

from haechi.cache.errors import CacheError
from haechi.cache.integrity import verify as module
from haechi.cache.integrity.verify import verify
from haechi.cache.schema import USER_BLOCK_BYTES
from haechi.cache.writer import shard_path, write_shard
from tests import synthetic


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Three shards, the second one damaged."""
    for i in range(3):
        items = [synthetic.item(synthetic.media(f"{i}-{j}.mp4"), seed=j) for j in range(2)]
        write_shard(shard_path(tmp_path, i), items, [synthetic.failure(f"{i}.mp4")], synthetic.provenance())
    damaged = bytearray(shard_path(tmp_path, 1).read_bytes())
    damaged[USER_BLOCK_BYTES + len(damaged) // 2] ^= 1
    shard_path(tmp_path, 1).write_bytes(damaged)
    return tmp_path


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every cache is large. How many processes each check has started."""
    counts: list[int] = []
    pool = module.ProcessPoolExecutor

    def counted(num_processes: int, *others: object) -> object:
        counts.append(num_processes)
        return pool(num_processes, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "LARGE_BYTES", 0)
    monkeypatch.setattr(module, "num_threads", lambda: 2)
    monkeypatch.setattr(module, "ProcessPoolExecutor", counted)
    return counts


def test_they_find_what_one_process_finds(cache: Path, started: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    by_several = verify(cache)
    assert started == [2]
    monkeypatch.undo()
    assert by_several == verify(cache)
    assert started == [2]
    assert {problem.shard for problem in by_several.problems} == {"shard-00001.h5"}
    assert (by_several.num_videos, by_several.num_failures) == (6, 3)


def test_one_that_dies_is_an_error_in_words(cache: Path, started: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "check_shard", _die)
    with pytest.raises(CacheError, match=rf"^{re.escape(str(cache))}: a process that checked shards was killed, or "):
        verify(cache)
    assert started == [2]


def _die(path: Path) -> None:
    os._exit(1)
