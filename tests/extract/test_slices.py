"""Slices: the rows of a whole run, each committed once, whoever does it and how often."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from filelock import FileLock

import haechi.cli
from bench import networks
from haechi.cache.errors import CacheError, HaechiError, SettingsConflictError, SettingsError
from haechi.cache.integrity.repair import repair
from haechi.cache.integrity.verify import verify
from haechi.cache.reader import Cache, shard_paths
from haechi.cache.schema import DATASETS
from haechi.cache.slices import PIN_NAME, Pin, Record, Slice, record_path, slice_of, work_folder, work_lock
from haechi.cache.status import read_status
from haechi.extract import commit
from haechi.extract.api import extract_features
from haechi.extract.manifest import Manifest, read_manifest
from haechi.extract.pipeline import Extraction
from haechi.extract.settings import ExtractSettings
from tests.extract.conftest import SOUND, UNSOUND, manifest_of
from tests.miniature import shrink_slowfast

N = 3
NAMES = [*SOUND, *UNSOUND]


@pytest.fixture
def run_slice(tmp_path: Path, tiny_settings: ExtractSettings) -> Callable[..., Extraction]:
    def run_slice(manifest: Manifest, number: int, out: str = "sliced", n: int = N, **changes: object) -> Extraction:
        settings = tiny_settings.changed(**({"shard_size": 2} | changes))
        return extract_features(manifest, tmp_path / out, slice=f"{number}/{n}", settings=settings)

    return run_slice


def contents(path: Path) -> dict[str, dict[str, object]]:
    """Id -> everything that the cache has of it."""
    cache = Cache.open(path)
    found: dict[str, dict[str, object]] = {row.id: vars(row) for row in cache.failures}
    rows = {name: cache.rows(*name.split("/")) for name in DATASETS}
    offsets = {stream: cache.offset(stream) for stream in ("clip", "slowfast")}
    for i, id in enumerate(cache.media["id"]):
        found[id] = {name: column[i] for name, column in cache.media.items()}
        for name, array in rows.items():
            start, stop = offsets[name.split("/")[0]][i : i + 2]
            found[id][name] = array[start:stop].tobytes()
    return found


def all_files(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(path.iterdir()) if file.is_file()}


def test_slices_have_the_rows_of_one_run(
    data: Path, tmp_path: Path, run: Callable[..., Extraction], run_slice: Callable[..., Extraction]
) -> None:
    manifest = manifest_of(data, NAMES)
    whole = run(manifest, workers=1)
    done = [run_slice(manifest, number, workers=1) for number in (2, 0, 1)]
    assert contents(tmp_path / "sliced") == contents(tmp_path / "cache")
    assert sum(each.num_rows for each in done) == 10
    assert sum(each.num_used for each in done) == whole.num_used == 6
    assert all(each.has_committed and each.fingerprint == whole.fingerprint for each in done)
    assert verify(tmp_path / "sliced").problems == []
    assert verify(tmp_path / "sliced").notes == []
    for shard in Cache.open(tmp_path / "sliced").shards:
        ids = [*shard.read("media/id")[0], *shard.read("failure/id")[0]]
        number = int(shard.path.name.split("-")[1])
        assert 1 <= len(ids) <= 2
        assert {slice_of(id, N) for id in ids} == {number}
    for number in range(N):
        expected = sorted(name for name in NAMES if slice_of(name, N) == number)
        record = json.loads(record_path(tmp_path / "sliced", number).read_text())
        assert record["rows"] == len(expected) == record["used"] + sum(record["failures"].values())
        assert record["manifest_rows"] == 10


def test_no_clock_and_no_order_changes_a_byte(data: Path, tmp_path: Path, run_slice: Callable[..., Extraction]) -> None:
    """The order of the manifest, the number of workers, and a stop do not either."""
    manifest = manifest_of(data, NAMES)
    for number in range(N):
        run_slice(manifest, number, workers=1)
    (tmp_path / "again").mkdir()
    shutil.copy(tmp_path / "sliced" / PIN_NAME, tmp_path / "again")
    backwards = Manifest(entries=manifest.entries[::-1], notices=())
    for number in range(N):
        run_slice(backwards, number, "again", workers=3, shard_minutes=0.01)
    assert all_files(tmp_path / "sliced") == all_files(tmp_path / "again")


def test_a_slice_is_committed_once(
    data: Path, tmp_path: Path, run_slice: Callable[..., Extraction], no_models: Callable[[], None]
) -> None:
    manifest = manifest_of(data, NAMES)
    first = run_slice(manifest, 1)
    before = all_files(tmp_path / "sliced")
    no_models()
    again = run_slice(manifest, 1)
    assert (again.num_new, again.has_committed) == (0, False)
    for field in ("num_rows", "num_used", "failures", "fingerprint", "untrained", "cache"):
        assert getattr(again, field) == getattr(first, field)
    assert all_files(tmp_path / "sliced") == before
    assert not list((tmp_path / "sliced" / ".work").iterdir())


def test_the_first_to_finish_commits(
    data: Path, tmp_path: Path, run_slice: Callable[..., Extraction], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process finishes the same slice, with other features, while this one writes its shards."""
    manifest = manifest_of(data, NAMES)
    run_slice(manifest, 0, "other", precision="fp32")
    honest = commit.create_text
    finished: list[Extraction] = []

    def late(path: Path, text: str, *, folder: Path) -> bool:
        if not finished:
            monkeypatch.setattr(commit, "create_text", honest)
            finished.append(run_slice(manifest, 0, precision="bf16"))
        return honest(path, text, folder=folder)

    monkeypatch.setattr(commit, "create_text", late)
    done = run_slice(manifest, 0, precision="fp32")
    assert (done.has_committed, finished[0].has_committed) == (False, True)
    pin = Pin.read(tmp_path / "sliced")
    assert pin is not None
    record = Record.read(pin, 0)
    assert record is not None
    assert [path.name for path in (tmp_path / "sliced").glob("shard-*")] == [each.name for each in record.shards]
    assert {shard.provenance.precision for shard in Cache.open(tmp_path / "sliced").shards} == {"bf16"}
    assert (done.num_used, done.num_failed) == (record.num_used, record.num_failed)
    assert not list((tmp_path / "sliced" / ".work").iterdir())
    assert verify(tmp_path / "sliced").problems == []


def _extract(
    manifest: Path, out: Path, request: str, settings: ExtractSettings, queue: "multiprocessing.Queue"
) -> None:
    """Extract a slice in a process of its own."""
    with pytest.MonkeyPatch.context() as patch:
        shrink_slowfast(patch)
        done = extract_features(manifest, out, slice=request, settings=settings)
    queue.put((done.has_committed, done.num_rows, done.num_used))


@pytest.mark.parametrize("_", range(2))
def test_two_processes_on_one_slice(data: Path, tmp_path: Path, tiny_settings: ExtractSettings, _: int) -> None:
    manifest_of(data, NAMES)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    arguments = (data / "labels.csv", tmp_path / "sliced", "0/1", tiny_settings.changed(workers=1), queue)
    processes = [context.Process(target=_extract, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    results = [queue.get(timeout=100) for _ in processes]
    for process in processes:
        process.join(100)
    assert sorted(results) == [(False, 10, 6), (True, 10, 6)]
    assert verify(tmp_path / "sliced").problems == []
    assert len(contents(tmp_path / "sliced")) == 10
    assert not list((tmp_path / "sliced" / ".work").iterdir())


def test_a_stopped_slice_is_continued(
    data: Path, tmp_path: Path, run_slice: Callable[..., Extraction], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shards without a record are no part of the cache; the rows that were finished are not done again."""
    manifest = manifest_of(data, NAMES)
    for number in (1, 2):
        run_slice(manifest, number)

    def stop(*_: object, **__: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(commit, "create_text", stop)
        with pytest.raises(KeyboardInterrupt):
            run_slice(manifest, 0)
    out = tmp_path / "sliced"
    orphans = set(out.glob("shard-00000-*"))
    assert orphans
    assert not orphans & set(shard_paths(out))
    assert not any(slice_of(id, N) == 0 for id in contents(out))
    status = read_status(out)
    assert (status.done, status.running, status.missing, status.array) == ([1, 2], [], [0], "0")
    done = run_slice(manifest, 0)
    assert (done.num_new, done.has_committed) == (0, True)
    assert orphans <= set(shard_paths(out))  # the same bytes under the same names
    assert len(contents(out)) == 10


def test_a_used_work_folder_is_not_shared(
    data: Path, tmp_path: Path, run_slice: Callable[..., Extraction], tiny_settings: ExtractSettings
) -> None:
    manifest = manifest_of(data, NAMES)
    run_slice(manifest, 1)
    folder = work_folder(tmp_path / "sliced", 0, 0)
    folder.mkdir()
    (folder / "kept").touch()
    with FileLock(work_lock(folder)):
        assert read_status(tmp_path / "sliced").running == [0]
        assert run_slice(manifest, 0).has_committed
        assert (folder / "kept").exists()
    run_slice(manifest, 2)
    assert "slice-00000-0 is the work folder of a finished slice" in " ".join(verify(tmp_path / "sliced").notes)
    extract_features(manifest, tmp_path / "sliced", settings=tiny_settings)
    assert not list((tmp_path / "sliced" / ".work").iterdir())
