"""`haechi status`, and what `inspect` and `verify` say of slices; the caches here are written without videos."""

import errno
import fcntl
import json
import os
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from filelock import FileLock

from haechi.cache.atomic import create
from haechi.cache.integrity.verify import check_shards, summed_up
from haechi.cache.reader import Cache
from haechi.cache.schema import Failure, Item
from haechi.cache.shard import Shard
from haechi.cache.slices import (
    Pin,
    Record,
    SliceShard,
    content_digest,
    ids_digest,
    record_path,
    shard_name,
    slice_of,
    work_folder,
    work_lock,
)
from haechi.cache.writer import rewrite_media, write_shard
from haechi.cli import main
from tests import synthetic

N = 5
DOCUMENT = Path(__file__).parents[2] / "cache_schema.md"


def write_sliced(path: Path, *, finished: list[int], num_rows: int = 20) -> Path:
    """A cache of `N` slices, every fourth row a failure."""
    source = synthetic.provenance()
    pin = Pin(
        path=path,
        num_slices=N,
        shard_size=100,
        created="2026-01-01T00:00:00+00:00",
        settings=source.settings,
        weights=source.weights,
    ).create()
    for number in finished:
        ids = sorted(id for row in range(num_rows) if slice_of(id := f"{row}.mp4", N) == number)
        rows = [
            synthetic.failure(id) if int(id[:-4]) % 4 == 0 else synthetic.item(synthetic.media(id), seed=int(id[:-4]))
            for id in ids
        ]
        items = [row for row in rows if isinstance(row, Item)]
        failures = [row for row in rows if isinstance(row, Failure)]
        draft = path / ".work" / "draft.h5"
        write_shard(draft, items, failures, source, created=pin.created)
        index = Shard.open(draft).index
        assert index is not None
        digest = content_digest(index)
        name = shard_name(number, 0, digest)
        assert create(draft, path / name)
        draft.unlink()
        record = Record(
            number=number,
            num_slices=N,
            fingerprint=pin.fingerprint,
            num_manifest_rows=num_rows,
            num_used=len(items),
            failures={failures[0].reason: len(failures)} if failures else {},
            ids_sha256=ids_digest(ids),
            shards=(SliceShard(name=name, num_rows=len(rows), digest=digest),),
        )
        record_path(path, number).write_text(record.encode())
    return path


def _run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_some_slices_are_finished(tmp_path: Path) -> None:
    path = write_sliced(tmp_path / "c", finished=[1, 4])
    folder = work_folder(path, 3, 0)
    folder.mkdir()
    with FileLock(work_lock(folder)):
        found = json.loads(_run("status", path, "--json").stdout)
        shown = _run("status", path).stdout
    assert (found["slices"], found["done"], found["running"], found["missing"]) == (5, [1, 4], [3], [0, 2])
    assert (found["array"], found["manifest_rows"]) == ("0,2", 20)
    assert found["rows"] == found["used"] + sum(found["failures"].values()) == len(Cache.open(path).locations)
    assert re.search(r"slices +2 of 5 finished\s+running +3\s+missing +0,2\s+to do them +sbatch --array=0,2 …", shown)
    assert f"{found['rows']} = {found['used']} used + " in shown
    assert _run("status", path).exit_code == 0
    summary = json.loads(_run("inspect", path, "--json").stdout)
    assert summary["slices"]["missing"] == [0, 2, 3]  # the lock is free now
    assert "2 of 5 finished, not 0,2-3" in _run("inspect", path).stdout
    verified = _run("verify", path)
    assert verified.exit_code == 0
    assert "3 of 5 slices are not finished: 0,2-3" in verified.stdout.replace("\n", " ")


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock is a file there that exists while it is held."""

    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    path = write_sliced(tmp_path / "c", finished=[1, 4])
    work_lock(work_folder(path, 3, 0)).touch()
    monkeypatch.setattr(fcntl, "flock", refuse)
    assert json.loads(_run("status", path, "--json").stdout)["running"] == [3]


def test_all_slices_are_finished(tmp_path: Path) -> None:
    path = write_sliced(tmp_path / "c", finished=list(range(N)))
    found = json.loads(_run("status", path, "--json").stdout)
    assert (found["missing"], found["array"], found["rows"], found["used"]) == ([], "", 20, 15)
    verified = json.loads(_run("verify", path, "--json").stdout)
    assert (verified["ok"], verified["notes"]) == (True, [])


def test_none_is_finished(tmp_path: Path) -> None:
    path = write_sliced(tmp_path / "c", finished=[])
    found = json.loads(_run("status", path, "--json").stdout)
    assert (found["missing"], found["array"], found["manifest_rows"]) == ([0, 1, 2, 3, 4], "0-4", None)
    refused = _run("inspect", path)
    assert refused.exit_code == 1
    assert "none of its 5 slices is finished" in refused.output


def test_a_cache_without_slices(tmp_path: Path) -> None:
    path = synthetic.write_cache(tmp_path / "c", num_failures=2)
    assert "one slice of one; no run is writing to it" in _run("status", path).stdout
    with FileLock(path / ".lock"):
        assert json.loads(_run("status", path, "--json").stdout)["running"] == [0]
    assert "slices" not in json.loads(_run("inspect", path, "--json").stdout)


@pytest.mark.parametrize("name", ["missing", "file"])
def test_what_is_no_cache(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    found = _run("status", tmp_path / name)
    assert found.exit_code == 1
    assert len(found.output.splitlines()) == 1
    assert "haechi extract DATA --out" in found.output


def test_a_slice_that_is_committed_during_verify(tmp_path: Path) -> None:
    path = write_sliced(tmp_path / "c", finished=[1])
    checks = check_shards(path)
    write_sliced(path, finished=[4])
    assert summed_up(path, checks).problems == []


def test_new_labels_keep_the_digest(tmp_path: Path) -> None:
    path = write_sliced(tmp_path / "c", finished=list(range(N)))
    for shard in Cache.open(path).shards:
        number = shard.num_items
        rewrite_media(
            shard.path,
            {"label": [0] * number, "split": ["train"] * number, "group": ["g"] * number, "mtime_ns": [7] * number},
        )
    assert json.loads(_run("verify", path, "--json").stdout)["problems"] == []


def test_another_column_changes_the_digest(tmp_path: Path) -> None:
    path = write_sliced(tmp_path / "c", finished=list(range(N)))
    shard = next(shard for shard in Cache.open(path).shards if shard.num_items)
    rewrite_media(shard.path, {"width": [1] * shard.num_items})
    (problem,) = json.loads(_run("verify", path, "--json").stdout)["problems"]
    assert problem["what"] == f"{shard.path.name} has another content than when it was committed"


def test_a_row_twice_is_found(tmp_path: Path) -> None:
    """A record that names a shard with the rows of another slice's shard, with counts that fit."""
    path = write_sliced(tmp_path / "c", finished=[1, 4])
    (shard,) = path.glob("shard-00004-*")
    (other,) = path.glob("shard-00001-*")
    shutil.copy(other, shard)
    problems = json.loads(_run("verify", path, "--json").stdout)["problems"]
    assert any("rows of other slices" in problem["what"] for problem in problems)


def test_the_document_names_the_fields_of_a_record(tmp_path: Path) -> None:
    path = write_sliced(tmp_path / "c", finished=[1])
    record = json.loads(record_path(path, 1).read_text())
    table = re.search(r"<!-- record: .*?-->\n((?:\|.*\n)+)", DOCUMENT.read_text())
    assert table is not None
    rows = [line.split("|")[1] for line in table[1].splitlines()[2:]]
    assert [name for row in rows for name in re.findall(r"`(\w+)`", row)] == list(record)
    pinned = json.loads((path / "slices.json").read_text())
    section = DOCUMENT.read_text().partition("## Slices")[2].partition("A finished slice has")[0]
    assert set(pinned) <= set(re.findall(r"`(\w+)`", section))
