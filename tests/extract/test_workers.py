"""Worker processes that die or hang: the run goes on, no neighbour is lost or blamed."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from extract import workers
from extract.reasons import Reason
from extract.transforms import FrameTransform
from extract.workers import Decoded, DecodePool, Output, Rejected
from tests.extract import poison

OUTPUT = Output(transform=FrameTransform(size=32, interpolation="bilinear"), positions=[0, 1, 2, 3])


def pool(*, num_workers: int = 2, timeout_seconds: float = 60) -> DecodePool:
    return DecodePool(
        num_workers=num_workers,
        num_samples=4,
        max_pixels=1 << 25,
        timeout_seconds=timeout_seconds,
    )


def test_every_path_comes_back_once_with_its_own_frames(videos: Path) -> None:
    names = ["sound.mp4", "empty.mp4", "portrait.mp4", "damaged.mp4", "sound.mp4", "mpeg4.avi"] * 2
    frames: dict[int, np.ndarray] = {}
    reasons: dict[int, Reason] = {}
    with pool() as decoders:
        for index, result in decoders.run([videos / name for name in names], [OUTPUT]):
            assert index not in frames.keys() | reasons.keys()
            if isinstance(result, Decoded):
                frames[index] = result.frames[0].copy()
            else:
                reasons[index] = result.reason
    assert set(frames) == {0, 2, 4, 5, 6, 8, 10, 11}
    assert reasons == {1: "empty_file", 3: "damaged", 7: "empty_file", 9: "damaged"}
    assert (frames[0] == frames[4]).all()
    assert (frames[0] == frames[6]).all()
    assert (frames[0] != frames[2]).any()


def test_crashes_and_hangs_are_rows(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_sample_into_slot", poison.sample_into_slot)
    names = ["sound.mp4", "abort.mp4", "sound.mp4", "hang.mp4", "segfault.mp4", "sound.mp4", "sound.mp4"]
    paths = [(videos if name == "sound.mp4" else tmp_path) / name for name in names]
    with pool(timeout_seconds=8) as decoders:
        results = dict(decoders.run(paths, [OUTPUT]))
    rejected = {i: (r.reason, r.message) for i, r in results.items() if isinstance(r, Rejected)}
    assert sorted(results) == list(range(len(names)))
    assert {i: reason for i, (reason, _) in rejected.items()} == {1: "crashed", 3: "timeout", 4: "crashed"}
    assert "SIGABRT" in rejected[1][1]
    assert "SIGSEGV" in rejected[4][1]
    assert "8 s" in rejected[3][1]


def test_workers_killed_while_they_wait_are_replaced(videos: Path) -> None:
    """As an out-of-memory killer does, between two videos."""
    results: dict[int, Decoded | Rejected] = {}
    with pool(num_workers=2) as decoders:
        for index, result in decoders.run([videos / "sound.mp4"] * 12, [OUTPUT]):
            assert index not in results
            results[index] = result
            if index in (2, 7):
                time.sleep(1)  # the workers finish what they have and wait
                for child in multiprocessing.active_children():
                    os.kill(child.pid or 0, signal.SIGKILL)
                time.sleep(0.5)
    assert sorted(results) == list(range(12))
    assert all(isinstance(result, Decoded) or result.reason == Reason.CRASHED for result in results.values())
    assert sum(isinstance(result, Decoded) for result in results.values()) >= 8


def test_a_defect_of_ours_is_raised_not_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_sample_into_slot", poison.sample_into_slot)
    with pytest.raises(ZeroDivisionError), pool(num_workers=1) as decoders:
        list(decoders.run([tmp_path / "bug.mp4"], [OUTPUT]))


def test_nothing_to_do() -> None:
    with pool(num_workers=1) as decoders:
        assert list(decoders.run([], [OUTPUT])) == []


def test_only_so_many_videos_are_finished_ahead_of_one_that_hangs(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their features wait in memory for it."""
    monkeypatch.setattr(workers, "_sample_into_slot", poison.sample_into_slot)
    monkeypatch.setattr(workers, "MAX_AHEAD", 5)
    paths = [videos / "sound.mp4"] * 2 + [tmp_path / "hang.mp4"] + [videos / "sound.mp4"] * 12
    with pool(timeout_seconds=6) as decoders:
        order = [index for index, _ in decoders.run(paths, [OUTPUT])]
    assert sorted(order) == list(range(15))
    assert sorted(order[: order.index(2)]) == [0, 1, 3, 4, 5, 6]
