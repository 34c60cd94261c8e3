"""Slices: the rows of a whole run, each committed once, whoever does it and how often."""

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from filelock import FileLock

import haechi.cli
from bench import networks
from haechi.cache import atomic
from haechi.cache.errors import CacheError, HaechiError, SettingsConflictError, SettingsError
from haechi.cache.integrity.repair import repair
from haechi.cache.integrity.verify import verify
from haechi.cache.progress import Progress
from haechi.cache.reader import Cache, shard_paths
from haechi.cache.schema import DATASETS
from haechi.cache.shard import Shard
from haechi.cache.slices import PIN_NAME, Pin, Record, Slice, record_path, slice_of, work_folder, work_lock
from haechi.cache.status import read_status
from haechi.extract import commit, pipeline
from haechi.extract.api import extract_features
from haechi.extract.manifest import Manifest, read_manifest
from haechi.extract.pipeline import Extraction
from haechi.extract.settings import ExtractSettings
from haechi.extract.shard_queue import WriteError
from haechi.train.api import _open
from haechi.train.progress import TrainProgress
from tests.extract import slice_race
from tests.extract.conftest import SOUND, UNSOUND, manifest_of
from tests.miniature import shrink_slowfast

N = 3
NAMES = [*SOUND, *UNSOUND]

RunSlice = Callable[..., Extraction]


def settings_of(folder: Path) -> ExtractSettings:
    """Settings of tiny backbones, whose configuration is written into a folder."""
    return ExtractSettings(
        clip_model=networks.write_clip_config(folder / "tiny-clip"),
        clip_weights="random:0",
        slowfast_weights="random:0",
        frames=8,
        shard_size=2,
        device="cpu",
        precision="fp32",
        workers=1,
        batch_windows=1,  # a batch is of one video: last bits depend on how many share one
    )


@pytest.fixture(scope="module")
def finished(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data`, and the caches `whole` of one run and `sliced` of three slices. Tests do not change it."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "data").mkdir()
    for name in [*SOUND, *(name for name in UNSOUND if name != "gone.mp4")]:
        shutil.copy2(videos / name, folder / "data" / name)
    manifest = manifest_of(folder / "data", NAMES)
    with pytest.MonkeyPatch.context() as patch:
        shrink_slowfast(patch)
        settings = settings_of(folder)
        extract_features(manifest, folder / "whole", settings=settings)
        for number in (2, 0, 1):
            done = extract_features(manifest, folder / "sliced", slice=f"{number}/{N}", settings=settings)
            assert done.has_committed
            assert str(done.slice) == f"{number}/{N}"
    return folder


@pytest.fixture
def manifest(finished: Path) -> Manifest:
    return read_manifest(finished / "data" / "labels.csv")


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    """A copy of the cache of three slices."""
    return Path(shutil.copytree(finished / "sliced", tmp_path / "sliced"))


@pytest.fixture
def run_slice(finished: Path, manifest: Manifest, out: Path, monkeypatch: pytest.MonkeyPatch) -> RunSlice:
    """Extract a slice, by default of the whole manifest into `out`."""
    shrink_slowfast(monkeypatch)

    def run_slice(
        request: str, *, data: Manifest = manifest, to: Path = out, progress: Progress | None = None, **changes: Any
    ) -> Extraction:
        settings = settings_of(finished).changed(**changes)
        return extract_features(data, to, slice=request, settings=settings, progress=progress or Progress())

    return run_slice


@pytest.fixture
def run_whole(finished: Path, manifest: Manifest, out: Path, monkeypatch: pytest.MonkeyPatch) -> RunSlice:
    """`haechi extract` without slices into `out`."""
    shrink_slowfast(monkeypatch)

    def run_whole(data: Manifest = manifest, **options: Any) -> Extraction:
        return extract_features(data, out, settings=settings_of(finished), **options)

    return run_whole


def undo(out: Path, number: int) -> None:
    """Make a slice unfinished."""
    for shard in out.glob(f"shard-{number:05d}-*"):
        shard.unlink()
    record_path(out, number).unlink()


def record_of(out: Path, number: int) -> Record:
    pin = Pin.read(out)
    assert pin is not None
    record = Record.read(pin, number)
    assert record is not None
    return record


def contents(path: Path) -> dict[str, dict[str, object]]:
    """Id -> everything that the cache has of it, features as bytes."""
    cache = Cache.open(path)
    found: dict[str, dict[str, object]] = {row.id: dict(vars(row)) for row in cache.failures}
    rows = {name: cache.rows(*name.split("/")) for name in DATASETS}
    offsets = {stream: cache.offset(stream) for stream in ("clip", "slowfast")}
    for i, id in enumerate(cache.media["id"]):
        assert id not in found
        found[id] = {name: column[i] for name, column in cache.media.items()}
        for name, array in rows.items():
            start, stop = offsets[name.split("/")[0]][i : i + 2]
            found[id][name] = array[start:stop].tobytes()
    return found


def all_files(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir() if file.is_file() and file.name != ".lock"}


def test_slices_have_the_rows_of_one_run(finished: Path) -> None:
    out = finished / "sliced"
    assert contents(out) == contents(finished / "whole")
    assert (verify(out).problems, verify(out).notes) == ([], [])
    assert Cache.open(out).fingerprint == Cache.open(finished / "whole").fingerprint
    for shard in Cache.open(out).shards:
        ids = [*shard.read("media/id")[0], *shard.read("failure/id")[0]]
        assert 1 <= len(ids) <= 2
        assert {slice_of(id, N) for id in ids} == {int(shard.path.name.split("-")[1])}
    for number in range(N):
        record = record_of(out, number)
        ids = [id for each in record.shards for id in _ids(out / each.name)]
        assert sorted(ids) == sorted(name for name in NAMES if slice_of(name, N) == number)
        assert record.num_used + record.num_failed == record.num_rows == len(ids)
        assert record.num_manifest_rows == 10
    assert not list((out / ".work").iterdir())


def _ids(shard: Path) -> list[str]:
    return [id for column in Shard.open(shard).read("media/id", "failure/id") for id in column]


def test_no_clock_and_no_order_changes_a_byte(finished: Path, manifest: Manifest, run_slice: RunSlice) -> None:
    """The order of the manifest and the number of workers do not either."""
    again = finished.parent / "again"
    again.mkdir()
    shutil.copy(finished / "sliced" / PIN_NAME, again)
    backwards = Manifest(entries=manifest.entries[::-1], notices=())
    run_slice(f"1/{N}", data=backwards, to=again, workers=2, shard_minutes=0.01)
    before = all_files(finished / "sliced")
    names = {PIN_NAME, "slice-00001.json", *(name for name in before if name.startswith("shard-00001-"))}
    assert len(names) > 2
    assert all_files(again) == {name: before[name] for name in names}


def test_a_slice_is_committed_once(out: Path, run_slice: RunSlice, no_models: Callable[[], None]) -> None:
    before = all_files(out)
    no_models()
    again = run_slice("1/3")
    record = record_of(out, 1)
    assert (again.num_new, again.has_committed, again.cache) == (0, False, out)
    assert (again.num_rows, again.num_used, again.failures) == (record.num_rows, record.num_used, record.failures)
    assert again.fingerprint == record.fingerprint
    assert all_files(out) == before


def test_failures_of_a_committed_slice_are_not_tried_again(
    finished: Path, manifest: Manifest, out: Path, no_models: Callable[[], None]
) -> None:
    no_models()
    quiet = Manifest(entries=manifest.entries, notices=())
    number = slice_of("gone.mp4", N)
    for retry, expected in {"missing": [f"slice {number}/{N} is committed"], "timeout": []}.items():
        notices = Notices()
        extract_features(
            quiet, out, slice=f"{number}/{N}", retry=retry, settings=settings_of(finished), progress=notices
        )
        assert [text.partition(";")[0] for text in notices.texts] == expected


def test_the_first_to_finish_commits(out: Path, run_slice: RunSlice, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process finishes the same slice, with other features, after this one has written its shards."""
    undo(out, 0)
    honest, finished = commit.create_text, []

    def late(path: Path, text: str, *, folder: Path) -> bool:
        monkeypatch.setattr(commit, "create_text", honest)
        # it began before this one had finished a row
        monkeypatch.setattr("haechi.extract.slices._take_over", lambda folder, others: folder.mkdir())
        finished.append(run_slice("0/3", precision="bf16"))
        return honest(path, text, folder=folder)

    monkeypatch.setattr(commit, "create_text", late)
    done = run_slice("0/3", precision="fp32")
    assert (done.has_committed, finished[0].has_committed) == (False, True)
    record = record_of(out, 0)
    assert sorted(path.name for path in out.glob("shard-00000-*")) == [each.name for each in record.shards]
    precisions = {shard.path.name[:11]: shard.provenance.precision for shard in Cache.open(out).shards}
    assert precisions == {"shard-00000": "bf16", "shard-00001": "fp32", "shard-00002": "fp32"}
    assert (done.num_used, done.num_failed) == (record.num_used, record.num_failed)
    assert not list((out / ".work").iterdir())
    assert verify(out).problems == []


def test_two_processes_on_one_slice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They begin at the same time, and make the pin at the same time too. The last time, one of them is killed."""
    context = multiprocessing.get_context("spawn")
    outs = [tmp_path / f"{attempt}" for attempt in range(5)]
    barrier = context.Barrier(2)
    processes = [
        context.Process(target=slice_race.extract_all, args=(outs, barrier, is_doomed)) for is_doomed in (False, True)
    ]
    for process in processes:
        process.start()
    monkeypatch.setattr(pipeline, "open_flow", slice_race.MadeFlow.opened)
    extract_features(slice_race.MANIFEST, tmp_path / "whole", settings=slice_race.SETTINGS)
    for process in processes:
        process.join(100)
    assert [process.exitcode for process in processes] == [0, -signal.SIGKILL]
    results = [json.loads(file.read_text()) for file in tmp_path.glob("*.json")]
    assert {result["num_used"] for result in results} == {7}
    assert sorted((result["out"], result["has_committed"]) for result in results) == [
        *((name, committed) for name in "0123" for committed in (False, True)),
        ("4", True),
    ]
    for out in outs:
        assert verify(out).problems == []
        assert contents(out) == contents(tmp_path / "whole")
        assert list((out / ".work").iterdir()) == [] or out == outs[-1]


def stop_before_the_record(run_slice: RunSlice, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do slice 0 of 3 up to its record: Ctrl-C comes when that would be written."""

    def stop(*_: object, **__: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(commit, "create_text", stop)
        with pytest.raises(KeyboardInterrupt):
            run_slice("0/3")


def test_a_stopped_slice_is_continued(
    finished: Path, out: Path, run_slice: RunSlice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shards without a record are no part of the cache; the rows that were finished are not done again."""
    undo(out, 0)
    stop_before_the_record(run_slice, monkeypatch)
    orphans = set(out.glob("shard-00000-*"))
    assert orphans
    assert not orphans & set(shard_paths(out))
    assert not any(slice_of(id, N) == 0 for id in contents(out))
    status = read_status(out)
    assert (status.done, status.running, status.missing, status.array) == ([1, 2], [], [0], "0")
    done = run_slice("0/3")
    assert (done.num_new, done.has_committed) == (0, True)
    assert orphans == set(out.glob("shard-00000-*"))  # the same bytes have the same names
    assert contents(out) == contents(finished / "whole")
    assert all_files(out) == all_files(finished / "sliced")


def test_labels_that_changed_after_a_stop_are_committed(
    manifest: Manifest, out: Path, run_slice: RunSlice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shards that the stopped run left have the old labels, and are not named by the record."""
    undo(out, 0)
    stop_before_the_record(run_slice, monkeypatch)
    relabelled = Manifest(entries=tuple(replace(entry, label=1, split="val") for entry in manifest.entries), notices=())
    assert run_slice("0/3", data=relabelled).has_committed
    media = Cache.open(out).media
    labels = {id: label for id, label in zip(media["id"], media["split"], strict=True) if slice_of(id, N) == 0}
    assert set(labels.values()) == {"val"}
    assert (verify(out).problems, verify(out).notes) == ([], [])


@pytest.mark.parametrize("is_alive", [True, False])
def test_the_work_of_another_machine_is_taken_over(
    finished: Path, out: Path, run_slice: RunSlice, monkeypatch: pytest.MonkeyPatch, *, is_alive: bool
) -> None:
    """Its folder is not used: where locks do not hold between machines, a process may be at work there."""
    undo(out, 0)
    stop_before_the_record(run_slice, monkeypatch)
    theirs = work_folder(out, 0, 0)
    before = all_files(theirs / "cache")
    monkeypatch.setattr("haechi.cache.slices.HOST", "other")
    with FileLock(work_lock(theirs)) if is_alive else contextlib.nullcontext():
        done = run_slice("0/3")
    assert (done.num_new, done.has_committed) == (0, True)
    assert contents(out) == contents(finished / "whole")
    assert theirs.exists() == is_alive
    assert not is_alive or all_files(theirs / "cache") == before


def test_a_used_work_folder_is_not_shared(out: Path, run_slice: RunSlice, run_whole: RunSlice) -> None:
    undo(out, 0)
    folder = work_folder(out, 0, 0)
    folder.mkdir()
    with FileLock(work_lock(folder)):
        assert read_status(out).running == [0]
        assert run_slice("0/3").has_committed
        assert folder.exists()
        assert read_status(out).done == [0, 1, 2]
    assert f"{folder.name} is the work folder of a finished slice" in " ".join(verify(out).notes)
    run_whole()
    assert not list((out / ".work").iterdir())


def test_readers_use_only_what_records_name(out: Path) -> None:
    shards = shard_paths(out)
    orphan = out / "shard-00001-00000-0123456789ab.h5"
    shutil.copy(shards[0], orphan)
    assert shard_paths(out) == shards
    assert f"{orphan.name} is named by no record" in " ".join(verify(out).notes)
    for number in range(N):
        record_path(out, number).unlink()
    with pytest.raises(CacheError, match="none of its 3 slices is finished"):
        Cache.open(out)


def test_a_finished_cache_is_continued_as_any_other(
    finished: Path, out: Path, run_whole: RunSlice, tmp_path: Path
) -> None:
    """New rows, changed files, new labels, and failures that are tried again; records stay true."""
    data = tmp_path / "data"
    shutil.copytree(finished / "data", data)
    shutil.copy2(data / "sound.mp4", data / "new.mp4")
    shutil.copy2(data / "odd.mp4", data / "vfr.mp4")
    shutil.copy2(data / "sound.mp4", data / "text.mp4")
    names = [*NAMES, "new.mp4"]
    done = run_whole(manifest_of(data, names, labels=[1] * 11, split="train"))
    assert (done.num_new, done.num_changed, done.num_rows, done.num_used, done.slice) == (3, 2, 11, 8, None)
    assert done.num_relabelled == 6
    cache = Cache.open(out)
    assert [shard.path.name for shard in cache.shards][-2:] == ["shard-00003.h5", "shard-00004.h5"]
    assert set(cache.media["label"]) == {1}
    assert cache.media["width"][cache.media["id"].tolist().index("vfr.mp4")] == 321  # the width of odd.mp4
    assert (verify(out).problems, verify(out).notes) == ([], [])
    again = run_whole(read_manifest(data / "labels.csv"), retry="missing")
    assert (again.num_new, again.num_used) == (1, 8)


def test_an_unfinished_cache_is_not_continued_without_slices(out: Path, run_whole: RunSlice) -> None:
    for number in (0, 2):
        undo(out, number)
    before = all_files(out)
    with pytest.raises(HaechiError, match="2 of 3 slices are not finished: 0,2; run"):
        run_whole()
    assert all_files(out) == before


class Notices(Progress):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def notice(self, text: str) -> None:
        self.texts.append(text)


def test_a_slice_of_a_changed_manifest(manifest: Manifest, out: Path, run_slice: RunSlice, run_whole: RunSlice) -> None:
    """What was committed stays; a run without slices adds the rest."""
    undo(out, 1)
    new = [replace(manifest.entries[0], id=f"{number}.mp4") for number in range(6)]
    longer = Manifest(entries=(*manifest.entries, *new), notices=())
    notices = Notices()
    run_slice("0/3", data=longer, progress=notices)
    run_slice("1/3", data=longer, progress=notices)
    assert [text.split(" with ")[0] for text in notices.texts] == ["slice 0/3 was committed"]
    assert "manifests of different lengths (10, 16 rows)" in " ".join(verify(out).notes)
    done = run_whole(longer)
    assert (done.num_rows, done.num_used) == (16, 12)
    assert len(contents(out)) == 16


def test_a_slice_may_be_empty(finished: Path, manifest: Manifest, tmp_path: Path, run_slice: RunSlice) -> None:
    few = Manifest(entries=manifest.entries[1:2], notices=())
    done = {number: run_slice(f"{number}/2", data=few, to=tmp_path / "few") for number in (1, 0)}
    assert (done[0].num_rows, done[1].num_rows) == (1, 0)
    assert all(each.has_committed for each in done.values())
    assert verify(tmp_path / "few").problems == []
    assert (tmp_path / "few" / PIN_NAME).exists()
    more = Manifest(entries=manifest.entries[:2], notices=())
    extract_features(more, tmp_path / "few", settings=settings_of(finished))
    assert [path.name[:11] for path in shard_paths(tmp_path / "few")] == ["shard-00000", "shard-00002"]  # after slice 1


@pytest.mark.parametrize(
    ("request_", "changes", "message"),
    [
        ("0/4", {}, "slices: 3 in slices.json, 4 here"),
        ("0/3", {"shard_size": 4}, "shard_size: 2 in slices.json, 4 here"),
        ("0/3", {"frames": 9, "store": "float32"}, "sampling.frames: 8 .*\n.*store: 'float16' in slices.json"),
        ("0/3", {"clip_weights": "random:1"}, "clip.weights_sha256: .* here"),
        ("2/5", {"slowfast_model": "none", "slowfast_weights": "kinetics400"}, "slices: 3 .*\n.*slowfast.model: "),
    ],
)
def test_other_settings_are_refused(
    out: Path, run_slice: RunSlice, no_models: Callable[[], None], request_: str, changes: dict[str, Any], message: str
) -> None:
    undo(out, 0)
    before = all_files(out)
    no_models()
    with pytest.raises(SettingsConflictError, match=f"(?s)begun with other settings.*{message}"):
        run_slice(request_, **changes)
    assert all_files(out) == before


def test_other_weights_of_the_same_name_are_refused(
    out: Path, run_slice: RunSlice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are known when the models are loaded, before a video is decoded."""
    undo(out, 0)
    pin = json.loads((out / PIN_NAME).read_text())
    pin["settings"]["clip"]["weights_sha256"] = "0" * 64
    (out / PIN_NAME).write_text(json.dumps(pin))
    for number in (1, 2):
        record_path(out, number).unlink()
    monkeypatch.setattr("haechi.extract.flow.Flow.rows", None)
    with pytest.raises(SettingsConflictError, match=r"clip.weights_sha256: '0000.*' in slices.json, '"):
        run_slice("0/3")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3/3", "there is no such slice; slices are numbered from 0 to 2"),
        ("0/0", "the number of slices must be from 1 to 10000"),
        ("0/10001", "must be from 1 to 10000"),
        ("1", "expected i/N"),
        ("-1/3", "expected i/N"),
        ("١/٣", "expected i/N"),
    ],
)
def test_what_is_no_slice(text: str, message: str, run_slice: RunSlice, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=message):
        run_slice(text, to=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_cache_without_slices_gets_none(finished: Path, run_slice: RunSlice) -> None:
    before = all_files(finished / "whole")
    with pytest.raises(HaechiError, match="made without slices, so it is one slice of one"):
        run_slice("0/3", to=finished / "whole")
    assert all_files(finished / "whole") == before
    status = read_status(finished / "whole")
    assert (status.num_slices, status.done, status.missing, status.array) == (1, [0], [], "")


def test_a_run_without_slices_is_not_joined(
    tmp_path: Path, run_slice: RunSlice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds the lock, and has written no shard yet."""
    monkeypatch.setattr("haechi.extract.slices.PIN_SECONDS", 1)
    (tmp_path / "new").mkdir()
    with FileLock(tmp_path / "new" / ".lock"), pytest.raises(CacheError, match="another run is writing"):
        run_slice("0/3", to=tmp_path / "new")
    assert not (tmp_path / "new" / PIN_NAME).exists()


def _with(**changes: object) -> Callable[[dict[str, Any]], str]:
    return lambda fields: json.dumps(fields | changes)


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        (PIN_NAME, lambda _: "{", r"slices.json: not a JSON object of the format haechi-slices"),
        (PIN_NAME, lambda _: "[1]", r"slices.json: not a JSON object"),
        (PIN_NAME, lambda _: "[" * 100_000, r"slices.json: not a JSON object"),
        (PIN_NAME, _with(format_version=2), "format version '2', this Haechi reads 1"),
        (PIN_NAME, _with(slices=0), "slices.json: lacks fields"),
        (PIN_NAME, _with(slices=10**9), "slices.json: lacks fields"),
        (PIN_NAME, _with(settings=[]), "slices.json: lacks fields"),
        (PIN_NAME, _with(weights={"clip": 1}), "slices.json: lacks fields"),
        ("slice-00001.json", lambda _: "", r"slice-00001.json: not a JSON object of the format haechi-slice;"),
        ("slice-00001.json", _with(used="4"), "slice-00001.json: lacks fields .*; remove it, and run .* --slice 1/3"),
        ("slice-00001.json", _with(shards=[{}]), "slice-00001.json: lacks fields"),
        ("slice-00001.json", _with(slices=4), "is of slice 1/4, expected 1/3"),
        ("slice-00001.json", _with(fingerprint="0"), "made with other settings than slices.json has"),
        ("slice-00001.json", _with(used=7), r"says 7 used \+ . failed = . rows"),
        (
            "slice-00001.json",
            _with(shards=[{"name": "../whole/shard-00000.h5", "rows": 1, "digest": ""}]),
            "names '../whole/shard-00000.h5', which is no shard of this slice",
        ),
    ],
)
def test_files_that_cannot_be_used(
    out: Path, run_whole: RunSlice, name: str, edit: Callable[[dict[str, Any]], str], message: str
) -> None:
    fields = json.loads((out / name).read_text())
    (out / name).write_text(edit(fields))
    for use in (Cache.open, read_status, verify, lambda _: run_whole()):
        with pytest.raises(CacheError, match=message) as caught:
            use(out)  # type: ignore[operator]
        assert len(str(caught.value).splitlines()) <= 2


def test_a_record_without_its_shards(out: Path, finished: Path, run_whole: RunSlice) -> None:
    """The cache is refused; a repair takes the shard out of the record, and the next run does its rows again."""
    (lost, *_) = sorted(out.glob("shard-00001-*"))
    lost.unlink()
    with pytest.raises(CacheError, match=rf"{lost.name}: cannot be read \(No such file"):
        Cache.open(out)
    assert [(problem.shard, problem.what) for problem in verify(out).problems] == [
        (lost.name, "cannot be read (No such file or directory)")
    ]
    repaired = repair(out)
    assert repaired.is_sound
    assert "their manifest had 10" in " ".join(repaired.left.notes)
    run_whole()
    assert contents(out) == contents(finished / "whole")


def test_a_damaged_shard_is_repaired(out: Path, finished: Path, run_whole: RunSlice) -> None:
    shard = sorted(out.glob("shard-00002-*"))[0]
    shard.write_bytes(shard.read_bytes()[:1000])
    assert not repair(out).left.problems
    assert run_whole().num_new > 0
    assert contents(out) == contents(finished / "whole")
    assert verify(out).problems == []


def test_shards_that_are_not_those_of_the_record(finished: Path, out: Path) -> None:
    """Sound shards of other content: verify compares them with the record."""
    first, second = sorted(out.glob("shard-0000[12]-00000-*"))
    first.write_bytes(second.read_bytes())
    whats = [problem.what for problem in verify(out).problems if problem.shard == "slice-00001.json"]
    assert f"{first.name} has another content than when it was committed" in whats
    assert any("of other slices" in what for what in whats)


def test_a_full_disk_commits_nothing(out: Path, run_slice: RunSlice, monkeypatch: pytest.MonkeyPatch) -> None:
    undo(out, 0)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(commit, "write_shard", full)
        with pytest.raises(WriteError, match=r"slice 0/3 cannot be written \(No space left on device\); it is not"):
            run_slice("0/3")
    assert read_status(out).missing == [0]
    assert run_slice("0/3").num_new == 0


def test_a_file_system_without_hard_links_is_refused(
    tmp_path: Path, run_slice: RunSlice, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(CacheError, match="its file system has no hard links"):
        run_slice("0/3", to=tmp_path / "new")
    assert not list((tmp_path / "new").glob("*.h5"))
    assert not (tmp_path / "new" / PIN_NAME).exists()


def test_one_of_many_creates_a_name(tmp_path: Path) -> None:
    for number in range(3):
        assert atomic.create_text(tmp_path / "a", f"{number}", folder=tmp_path) == (number == 0)
    assert (tmp_path / "a").read_text() == "0"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_lost_answer_of_a_network_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The link was made, and the repeated request says that the name exists: open(2), O_EXCL."""
    honest = os.link

    def repeated(source: Path, target: Path) -> None:
        honest(source, target)
        honest(source, target)

    monkeypatch.setattr(os, "link", repeated)
    assert atomic.create_text(tmp_path / "a", "ours", folder=tmp_path)


def test_ids_are_shared_out_evenly() -> None:
    counts = [0] * 7
    for number in range(70_000):
        counts[slice_of(f"{number}.mp4", 7)] += 1
    assert max(counts) < 1.05 * min(counts)
    assert slice_of("a.mp4", 1) == 0
    assert slice_of("한국어.mp4", 1000) == 359  # of the first version: another value would move rows
    assert Slice.parse("2/7").holds("a.mp4") == (slice_of("a.mp4", 7) == 2)


def haechi_cli(*arguments: object) -> Result:
    result = CliRunner().invoke(haechi.cli.main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_the_command_line(finished: Path, out: Path, run_slice: RunSlice) -> None:
    """Summary, JSON and exit status; a slice without a usable video is no error."""
    undo(out, 1)
    settings = settings_of(finished)
    flags = [f"--{name.replace('_', '-')}={getattr(settings, name)}" for name in ("clip_model", "clip_weights")]
    flags += ["--slowfast-weights=random:0", "--frames=8", "--shard-size=2", "--device=cpu", "--precision=fp32"]
    call = ["extract", finished / "data" / "labels.csv", "--out", out, *flags]
    done = json.loads(haechi_cli(*call, "--slice", "1/3", "--json").stdout)
    assert (done["slice"], done["has_committed"], done["cache"]) == ("1/3", True, str(out))
    assert done["num_used"] + done["num_failed"] == done["num_rows"] == record_of(out, 1).num_rows
    again = haechi_cli(*call, "--slice", "1/3")
    assert again.exit_code == 0
    assert "1/3, committed before, or by another run meanwhile" in again.stdout
    assert not set(json.loads(haechi_cli(*call, "--json").stdout)) & {"slice", "has_committed"}
    only_failures = finished / "data" / "failures.csv"
    only_failures.write_text("path\nempty.mp4\n")
    alone = ["extract", only_failures, "--out", out.parent / "alone", *flags]
    assert haechi_cli(*alone, "--slice", "0/1").exit_code == 0
    assert haechi_cli(*alone, "--slice", "0/1", "--strict").exit_code == 1
    for request in ("3/3", "x", "auto"):
        wrong = haechi_cli(*call, "--slice", request)
        assert wrong.exit_code == 2
        assert f"slice {request}:" in wrong.output or f"slice '{request}':" in wrong.output


def test_training_says_what_is_not_finished(out: Path) -> None:
    undo(out, 2)
    notices: list[str] = []
    progress = TrainProgress()
    progress.notice = notices.append  # type: ignore[method-assign]
    _open(out, None, (), progress, keep_unlisted=False)
    assert notices == [f"{out}: 1 of 3 slices is not finished: 2; their videos are left out"]
