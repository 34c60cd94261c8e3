"""Finished rows are kept however a run ends, and the next run continues."""

import contextlib
import csv
import itertools
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import pytest
from click.testing import CliRunner
from filelock import FileLock

import haechi.cli
from haechi.cache.errors import CacheError, HaechiError
from haechi.cache.integrity.verify import verify
from haechi.cache.progress import Progress
from haechi.cache.reader import Cache, shard_paths
from haechi.extract.backbones.pair import Backbones, RunningBatch
from haechi.extract.decoding.pool import DecodedFrames, DecodePool
from haechi.extract.interrupt import InterruptedRunError
from haechi.extract.pipeline import Extraction
from haechi.extract.shard_queue import WriteError
from tests.extract.conftest import SOUND, UNSOUND, manifest_of


class Killer(Progress):
    """Sends the process a signal when two videos are finished."""

    def __init__(self, number: signal.Signals) -> None:
        self._number = number
        self.num_done = self.num_stopping = 0
        self.handlers: list[object] = []

    def advance(self, count: int = 1, *, failed: bool = False) -> None:
        self.num_done += count
        if self.num_done == 2:
            os.kill(os.getpid(), self._number)

    def stopping(self) -> None:
        self.num_stopping += 1
        self.handlers.append(signal.getsignal(self._number))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_finishes_what_is_begun(data: Path, run: Callable[..., Extraction], number: signal.Signals) -> None:
    names = [*SOUND, *UNSOUND]
    killer = Killer(number)
    manifest = manifest_of(data, names)
    before = signal.getsignal(number)
    with pytest.raises(InterruptedRunError, match="run the same command again") as caught:
        run(manifest, progress=killer, workers=1, batch_windows=1)
    assert signal.getsignal(number) == before
    assert killer.num_stopping == 1
    assert killer.handlers == [signal.SIG_DFL]  # a second one ends the process at once
    num_kept = int(str(caught.value).split()[1])
    assert 2 <= num_kept == killer.num_done < 10
    done = run(manifest)
    assert done.num_new == 10 - num_kept
    assert Cache.open(done.cache).media["id"].tolist() == SOUND
    whole = run(manifest, "uninterrupted")
    assert (Cache.open(whole.cache).rows("clip", "features") == Cache.open(done.cache).rows("clip", "features")).all()
    assert not list(done.cache.glob(".partial-*"))


def test_ctrl_c_keeps_what_was_validated(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(20):
        shutil.copy2(data / "one_frame.mp4", data / f"{i:02d}.mp4")
    manifest = manifest_of(data, [*UNSOUND, *(f"{i:02d}.mp4" for i in range(20))])
    killer = Killer(signal.SIGINT)
    monkeypatch.setattr("haechi.cache.progress_bar.shown_progress", lambda console: contextlib.nullcontext(killer))
    flags = ["--workers", "1", "--out", str(tmp_path / "v.csv")]
    done = CliRunner().invoke(haechi.cli.main, ["validate", str(data / "labels.csv"), *flags])
    assert done.exit_code == 1
    assert killer.num_stopping == 1
    assert killer.handlers == [signal.SIG_DFL]
    with (tmp_path / "v.csv").open(encoding="utf-8") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert 2 <= len(rows) == killer.num_done < 24
    assert list(rows) == [entry.id for entry in manifest.entries if entry.id in rows]
    num_failed = sum(row["ok"] == "0" for row in rows.values())
    assert (
        f"24 in the manifest = {len(rows) - num_failed} used + {num_failed} failed + {24 - len(rows)} not checked"
        in done.output
    )
    assert f"interrupted: {len(rows)} of 24 videos checked" in done.output
    assert not list(tmp_path.glob(".partial-*"))


def test_a_broken_pool_keeps_what_was_validated(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = DecodePool.run

    def broken(self: DecodePool, *arguments: Any, **options: Any) -> Iterator[Any]:
        results = (result for result in whole(self, *arguments, **options) if not isinstance(result[1], DecodedFrames))
        yield from itertools.islice(results, 2)
        raise HaechiError("decoding processes were killed from outside")

    monkeypatch.setattr(DecodePool, "run", broken)
    manifest = manifest_of(data, SOUND)
    done = CliRunner().invoke(haechi.cli.main, ["validate", str(data / "labels.csv"), "--out", str(tmp_path / "v.csv")])
    assert done.exit_code == 1
    assert f"killed from outside; {tmp_path}/v.csv holds 2 of {len(manifest.entries)} videos" in done.output
    assert len((tmp_path / "v.csv").read_text().splitlines()) == 3


def test_a_disk_that_vanishes_ends_the_run(
    data: Path, run: Callable[..., Extraction], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An unmounted network folder does not become a thousand missing videos."""
    names = [f"{i:02d}.mp4" for i in range(20)]
    for name in names:
        shutil.copy2(data / "one_frame.mp4", data / name)
    manifest = manifest_of(data, [*names, "gone.mp4"])
    honest = DecodePool.run

    def unmount(self: DecodePool, *arguments: Any, **options: Any) -> Iterator:
        for result in honest(self, *arguments, **options):
            for name in names:
                (data / name).unlink(missing_ok=True)
            yield result

    with monkeypatch.context() as patch:
        patch.setattr(DecodePool, "run", unmount)
        with pytest.raises(
            HaechiError, match=r"cannot be read any more \(no such file\), and neither can the 9 files before it"
        ):
            run(manifest, workers=1, batch_windows=1)
    for name in names:
        shutil.copy2(data / "one_frame.mp4", data / name)
    done = run(manifest)
    assert (done.num_used, done.failures) == (20, {"missing": 1})


def test_a_full_disk_leaves_no_half_shard(
    data: Path, run: Callable[..., Extraction], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    manifest = manifest_of(data, SOUND)
    real, calls = h5py.Group.create_dataset, 0

    def full(self: h5py.Group, *args: object, **kwargs: object) -> object:
        nonlocal calls
        calls += 1
        if calls >= 40:  # from the second shard on
            raise OSError(28, "No space left on device")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(h5py.Group, "create_dataset", full)
    with pytest.raises(
        WriteError, match=r"shard-00001\.h5: cannot be written \(No space left on device\); 4 of 6 rows"
    ):
        run(manifest)
    monkeypatch.undo()
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.suffix == ".h5"] == ["shard-00000.h5"]
    assert verify(tmp_path / "cache").problems == []


def test_any_end_of_a_run_keeps_what_is_finished(
    data: Path, run: Callable[..., Extraction], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """After an error in our own code, finished rows are written even if their shard is not full."""
    honest, calls = Backbones.start, 0

    def fail(self: Backbones, *frames: object, **progress: object) -> RunningBatch:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise ZeroDivisionError
        return honest(self, *frames, **progress)  # type: ignore[arg-type]

    monkeypatch.setattr(Backbones, "start", fail)
    monkeypatch.setattr(Backbones, "computes_repeats_once", False)  # each video is a batch, and none waits for another
    with pytest.raises(ZeroDivisionError):
        run(manifest_of(data, SOUND), workers=1, batch_windows=1)
    assert len(Cache.open(tmp_path / "cache").media["id"]) == 5
    assert verify(tmp_path / "cache").problems == []


def test_a_failure_is_known_by_the_file_that_failed(
    data: Path, run: Callable[..., Extraction], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A video that was still being copied when it was decoded is tried again after it is complete."""
    shutil.copy2(data / "damaged.mp4", data / "copied.mp4")
    honest = DecodePool.run

    def finish_copying(self: DecodePool, *arguments: Any, **options: Any) -> Iterator:
        for result in honest(self, *arguments, **options):
            shutil.copy2(data / "sound.mp4", data / "copied.mp4")
            yield result

    monkeypatch.setattr(DecodePool, "run", finish_copying)
    manifest = manifest_of(data, ["copied.mp4"])
    assert run(manifest).failures == {"damaged": 1}
    again = run(manifest)
    assert (again.num_new, again.num_used, again.failures) == (1, 1, {})


def test_two_runs_on_one_cache(data: Path, run: Callable[..., Extraction], tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    with (
        FileLock(tmp_path / "cache" / ".lock"),
        pytest.raises(HaechiError, match="another run is writing"),
    ):
        run(manifest_of(data, ["sound.mp4"]))


def test_a_damaged_cache_is_refused_before_work(
    data: Path, run: Callable[..., Extraction], no_models: Callable[[], None]
) -> None:
    done = run(manifest_of(data, ["sound.mp4"]))
    (shard,) = shard_paths(done.cache)
    shard.write_bytes(shard.read_bytes()[:-10])
    no_models()
    with pytest.raises(CacheError, match="cut off"):
        run(manifest_of(data, ["sound.mp4", "vfr.mp4"]))


def test_leftovers_of_a_killed_run_are_removed(data: Path, run: Callable[..., Extraction], tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / ".partial-shard-00000.h5").write_bytes(b"half")
    done = run(manifest_of(data, ["sound.mp4"]))
    assert sorted(path.name for path in done.cache.iterdir() if path.name != ".lock") == ["shard-00000.h5"]
