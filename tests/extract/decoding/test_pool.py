"""Worker processes that crash or hang: the run continues, and no other video is lost or rejected."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import psutil
import pytest

from haechi.cli import main
from haechi.extract.decoding import pool
from haechi.extract.decoding.decode import DecodedFile
from haechi.extract.decoding.limits import Limits
from haechi.extract.decoding.pool import DecodedFrames, DecodePool
from haechi.extract.decoding.reasons import DEFECT, Reason
from haechi.extract.decoding.shared_frames import Output, remove_slots_of_dead_processes
from haechi.extract.decoding.supply import LocalFiles, Rejected
from haechi.extract.decoding.transforms import FrameTransform
from haechi.extract.decoding.windows import WINDOW_FRAMES
from haechi.extract.sampling import Sampling, Uniform, Windows
from haechi.extract.settings import ExtractSettings
from tests.extract import poison

OUTPUT = Output(transform=FrameTransform(size=32, interpolation="bilinear"), num_frames=4)


def start_pool(*, num_workers: int = 2, **changes: float) -> DecodePool:
    limits = Limits.of(ExtractSettings(**{"timeout_seconds": 60, **changes}))  # type: ignore[arg-type]
    return DecodePool(num_workers=num_workers, sampling=Uniform(frames=4), limits=limits)


def test_every_path_comes_back_once_with_its_own_frames(videos: Path) -> None:
    names = ["sound.mp4", "empty.mp4", "portrait.mp4", "damaged.mp4", "sound.mp4", "mpeg4.avi"] * 2
    frames: dict[int, np.ndarray] = {}
    reasons: dict[int, Reason] = {}
    used: set[int] = set()
    with start_pool() as decoders:
        for index, result in decoders.run([videos / name for name in names], [OUTPUT]):
            assert index not in used | reasons.keys()
            if isinstance(result, DecodedFrames):
                frames[index] = result.frames[0].copy()
            elif isinstance(result, Rejected):
                reasons[index] = result.reason
            else:
                used.add(index)
    assert set(frames) == used == {0, 2, 4, 5, 6, 8, 10, 11}
    assert reasons == {1: "empty_file", 3: "damaged", 7: "empty_file", 9: "damaged"}
    assert (frames[0] == frames[4]).all()
    assert (frames[0] == frames[6]).all()
    assert (frames[0] != frames[2]).any()


@pytest.mark.parametrize("sampling", [Uniform(frames=4), Windows(window_seconds=0.5, stride_seconds=0.5, clip_fps=8.0)])
def test_frames_come_through_a_file_without_anonymous_memory(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampling: Sampling
) -> None:
    """As on systems other than Linux."""
    output = Output(transform=OUTPUT.transform, num_frames=WINDOW_FRAMES)
    outputs = [OUTPUT, OUTPUT] if isinstance(sampling, Uniform) else [output, output]
    paths = [videos / "sound.mp4", videos / "damaged.mp4", videos / "portrait.mp4"]

    def frames_of_all() -> list[np.ndarray]:
        found: dict[int, list[np.ndarray]] = {}
        with DecodePool(num_workers=2, sampling=sampling, limits=Limits.of(ExtractSettings())) as decoders:
            for index, result in decoders.run(paths, outputs):
                if isinstance(result, DecodedFrames):
                    found.setdefault(index, []).append(np.concatenate(result.frames))
                    files.append(len(list(tmp_path.glob("haechi-frames-*"))))
        return [np.concatenate(found[index]) for index in (0, 2)]

    files: list[int] = []
    expected = frames_of_all()
    assert set(files) == {0}
    files.clear()
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / f"haechi-frames-{dead.pid}-abc").write_bytes(b"of a killed run")
    for ours, theirs in zip(frames_of_all(), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert set(files) == {5}  # slots: two for each worker, and one more
    assert list(tmp_path.iterdir()) == []


def test_slots_of_running_processes_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    kept = [tmp_path / f"haechi-frames-{name}" for name in (f"{os.getpid()}-abc", "1-abc", "abc")]
    for path in kept:
        path.write_bytes(b"in use")
    remove_slots_of_dead_processes()
    assert sorted(tmp_path.iterdir()) == sorted(kept)


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_sample_into_slot", poison.sample_into_slot)


@pytest.mark.usefixtures("poisoned")
def test_every_failure_of_a_decoder_is_a_row(videos: Path, tmp_path: Path) -> None:
    names = ["sound.mp4", "abort.mp4", "sound.mp4", "hang.mp4", "segfault.mp4", "sound.mp4", "bloat.mp4", "sound.mp4"]
    names += ["stop.mp4", "killed.mp4", "sound.mp4", "sound.mp4"]
    paths = [(videos if name == "sound.mp4" else tmp_path) / name for name in names]
    with start_pool(timeout_seconds=8, worker_memory_gb=1) as decoders:
        results = dict(decoders.run(paths, [OUTPUT]))
    assert sorted(results) == list(range(len(names)))
    rejected = {names[i]: r for i, r in results.items() if isinstance(r, Rejected)}
    assert {name: (r.reason.value, r.message) for name, r in rejected.items()} == {
        "abort.mp4": ("crashed", "the decoder crashed on this file (SIGABRT)"),
        "hang.mp4": ("timeout", "not decoded within the time limit: 8 s plus 8 s for each minute of video (--timeout)"),
        "segfault.mp4": ("crashed", "the decoder crashed on this file (SIGSEGV)"),
        "bloat.mp4": ("out_of_memory", "needs more memory than the limit of 1 GB (--worker-memory-gb)"),
        "stop.mp4": ("timeout", "not decoded within the time limit: 8 s plus 8 s for each minute of video (--timeout)"),
        "killed.mp4": ("crashed", "the decoder crashed on this file (SIGKILL)"),
    }


@pytest.mark.usefixtures("poisoned")
def test_a_video_whose_worker_is_ended_from_outside_gets_another(videos: Path, tmp_path: Path) -> None:
    path = tmp_path / "terminated_once.mp4"
    shutil.copy(videos / "sound.mp4", path)
    with start_pool(num_workers=1) as decoders:
        (_, frames), (_, result) = decoders.run([path], [OUTPUT])
    assert isinstance(frames, DecodedFrames)
    assert isinstance(result, DecodedFile)
    assert path.with_suffix(".tried").exists()


@pytest.mark.usefixtures("poisoned")
def test_when_asked_to_stop_it_begins_nothing_and_waits_a_little(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "GRACE_SECONDS", 2)
    paths = [videos / "sound.mp4", tmp_path / "hang.mp4"] + [videos / "sound.mp4"] * 30
    seen: list[int] = []
    idle: list[float] = []
    with start_pool() as decoders:
        stopping, on_idle = lambda: len(seen) >= 4, lambda: idle.append(time.monotonic())
        for index, result in decoders.run(paths, [OUTPUT], stopping=stopping, on_idle=on_idle):
            assert not isinstance(result, Rejected)
            if isinstance(result, DecodedFile):
                seen.append(index)
    assert 4 <= len(seen) <= 4 + 5
    assert 1 not in seen
    assert len(idle) > 2


def test_a_worker_never_writes_into_a_file_of_the_run(videos: Path, tmp_path: Path) -> None:
    """After a run ends early, the next opened file, such as a shard, gets the descriptor of a closed slot."""
    with start_pool() as decoders:
        results = decoders.run([videos / "sound.mp4"] * 12, [OUTPUT])
        next(results)
        results.close()
        files = [(tmp_path / str(i)).open("w+b") for i in range(20)]
        for file in files:
            file.truncate(1 << 20)
        time.sleep(2)
        for file in files:
            assert os.fstat(file.fileno()).st_blocks == 0  # nothing was written to it
            file.close()


def test_a_stopped_pool_ends_even_where_nothing_waited_any_more(videos: Path) -> None:
    """The pool has all videos already when it is asked to stop; those that no worker started are cancelled."""
    seen: list[int] = []
    with start_pool(num_workers=1) as decoders:
        for index, result in decoders.run([videos / "sound.mp4"] * 3, [OUTPUT], stopping=lambda: bool(seen)):
            if isinstance(result, DecodedFile):
                seen.append(index)
        assert 1 <= len(seen) <= 2
        assert not decoders._pool.active


def test_decoding_processes_die_with_the_one_that_started_them(tmp_path: Path) -> None:
    """Even if it is killed and cannot stop them."""
    program = f"""
from pathlib import Path
from haechi.cli import main
from haechi.extract.decoding import pool
from haechi.extract.decoding.decode import DecodedFile
from tests.extract import poison
from tests.extract.decoding import test_pool
if __name__ == "__main__":
    pool._sample_into_slot = poison.sample_into_slot
    with test_pool.start_pool() as decoders:
        list(decoders.run([Path({str(tmp_path / "hang-1.mp4")!r}), Path({str(tmp_path / "hang-2.mp4")!r})], []))
"""
    (tmp_path / "main.py").write_text(program)
    environment = {**os.environ, "PYTHONPATH": f"{Path.cwd()}:{Path.cwd() / 'src'}"}
    with subprocess.Popen([sys.executable, tmp_path / "main.py"], env=environment) as process:
        parent = psutil.Process(process.pid)
        wait_until(lambda: sum("spawn_main" in " ".join(c.cmdline()) for c in parent.children()) >= 2)
        children = parent.children(recursive=True)
        process.kill()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []


def wait_until(holds: Callable[[], bool], *, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.1)


def test_workers_killed_while_they_wait_are_replaced(videos: Path) -> None:
    """As by an out-of-memory killer, between two videos."""
    results: dict[int, DecodedFile | Rejected] = {}
    with start_pool(num_workers=2) as decoders:
        for index, result in decoders.run([videos / "sound.mp4"] * 12, [OUTPUT]):
            assert index not in results
            if isinstance(result, DecodedFrames):
                continue
            results[index] = result
            if index in (2, 7):
                time.sleep(1)  # the workers finish their videos and wait
                for child in multiprocessing.active_children():
                    os.kill(child.pid or 0, signal.SIGKILL)
                time.sleep(0.5)
    assert sorted(results) == list(range(12))
    assert all(isinstance(result, DecodedFile) or result.reason == Reason.CRASHED for result in results.values())
    assert sum(isinstance(result, DecodedFile) for result in results.values()) >= 8


@pytest.mark.usefixtures("poisoned")
def test_no_exception_in_a_worker_ends_the_run(videos: Path, tmp_path: Path) -> None:
    """Each becomes the row of its file, which names the exception and its place; the worker goes on."""
    assert len(poison.ERRORS) >= 20
    paths = [tmp_path / f"{name}.mp4" for name in poison.ERRORS] + [videos / "sound.mp4"]
    with start_pool(num_workers=1) as decoders:
        results = dict(decoders.run(paths, [OUTPUT]))
    assert isinstance(results.pop(len(poison.ERRORS)), DecodedFile)
    for (name, error), result in zip(poison.ERRORS.items(), (results[i] for i in sorted(results)), strict=True):
        assert isinstance(result, Rejected)
        assert result.reason == Reason.CRASHED
        text = "" if name == "SilentError" or not str(error) else f": {error}"
        assert result.message.startswith(f"{DEFECT}, please report it: {name}{text} (poison.py:")


@pytest.mark.usefixtures("poisoned")
def test_a_defect_is_counted_in_the_summary(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(f"path\n{videos / 'sound.mp4'}\nKeyError.mp4\n")
    main(["validate", str(manifest), "--out", str(tmp_path / "checks.csv")], standalone_mode=False)
    out = capsys.readouterr().out
    assert "2 in the manifest = 1 used + 1 failed" in out
    assert "1 of the failures; please report their messages" in out
    assert "KeyError: 'tag' (poison.py:" in (tmp_path / "checks.csv").read_text()


def test_the_main_process_sleeps_while_the_last_video_is_decoded(videos: Path) -> None:
    """Files that are fetched have all arrived then."""

    class Arrived(LocalFiles):
        @property
        def arrivals(self) -> list[Future[None]]:
            found = Future[None]()
            found.set_result(None)
            return [found]

    turns: list[None] = []
    with start_pool(num_workers=1) as decoders:
        files = Arrived([videos / "sound.mp4"])
        *_, (_, last) = decoders.run(files, [], on_idle=lambda: turns.append(None))
    assert isinstance(last, DecodedFile)
    assert len(turns) < 100


def test_nothing_to_do() -> None:
    with start_pool(num_workers=1) as decoders:
        assert list(decoders.run([], [OUTPUT])) == []


@pytest.mark.usefixtures("poisoned")
def test_only_so_many_videos_are_finished_ahead_of_one_that_hangs(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their features wait in memory until it is finished."""
    monkeypatch.setattr(pool, "MAX_AHEAD", 5)
    paths = [videos / "sound.mp4"] * 2 + [tmp_path / "hang.mp4"] + [videos / "sound.mp4"] * 12
    with start_pool(timeout_seconds=6) as decoders:
        order = [index for index, result in decoders.run(paths, [OUTPUT]) if not isinstance(result, DecodedFrames)]
    assert sorted(order) == list(range(15))
    assert sorted(order[: order.index(2)]) == [0, 1, 3, 4, 5, 6]
