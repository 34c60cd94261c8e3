"""The queue returns each video its own features, and notices go to the run that is in progress."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.networks import SIDE
from haechi.cache.progress import Progress
from haechi.extract.backbones.batch_queue import BatchQueue
from haechi.extract.backbones.device import Compute
from haechi.extract.backbones.openclip import OpenClip
from haechi.extract.backbones.pair import Backbones
from haechi.extract.flow import open_flow
from haechi.extract.settings import ExtractSettings
from haechi.extract.timing import Stopwatch
from tests.extract.backbones.direct import video_features
from tests.extract.conftest import manifest_of


class Notices(Progress):
    """Keeps the notices of a run."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def notice(self, text: str) -> None:
        self.texts.append(text)


def random_frames(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


@pytest.mark.parametrize("num_running", [0, 2])
def test_every_video_gets_its_own_features_in_all_batches(
    tiny_settings: ExtractSettings, num_running: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches that run in parallel, as on a GPU, are filled again only when their features are there."""
    settings = ExtractSettings(**{**vars(tiny_settings), "batch_windows": 2})
    backbones = Backbones(settings, Compute.choose(settings))
    clip, windows = random_frames(7, 8, SIDE, SIDE, 3), random_frames(7, 32, SIDE, SIDE, 3)
    queue = BatchQueue(backbones, num_running=num_running)
    finished = []
    for i in range(7):
        new = queue.add((i, 0), [clip[i].numpy(), windows[i].numpy()])
        assert not new or len(finished) + len(new) == i + 1 - 2 * num_running
        finished += new
    finished += queue.drain()
    assert [key for key, _ in finished] == [(i, 0) for i in range(7)]
    for (_, ours), theirs in zip(finished, video_features(backbones, clip, windows), strict=True):
        np.testing.assert_allclose(ours["clip/features"], theirs["clip/features"], atol=1e-6)
        np.testing.assert_allclose(ours["slowfast/logits"], theirs["slowfast/logits"], atol=1e-6)
    assert all(seconds > 0 for seconds in queue.seconds.values())
    assert queue.drain() == []


@pytest.fixture
def fitting(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """A function that sets how many frames at once fit into the device's memory from now on."""
    honest, most = OpenClip.forward, 1000

    def forward(self: OpenClip, frames: torch.Tensor) -> dict[str, torch.Tensor]:
        if len(frames) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return honest(self, frames)

    def set_most(number: int) -> None:
        nonlocal most
        most = number

    monkeypatch.setattr(OpenClip, "forward", forward)
    return set_most


def test_notices_go_to_the_queue_that_made_batches_smaller(
    tiny_settings: ExtractSettings, fitting: Callable[[int], None]
) -> None:
    backbones = Backbones(tiny_settings, Compute.choose(tiny_settings))
    first, second, third = Notices(), Notices(), Notices()
    for progress, most in ((first, 4), (second, 2), (third, 2)):
        fitting(most)
        queue = BatchQueue(backbones, progress=progress)
        queue.add((0, 0), [random_frames(8, SIDE, SIDE, 3).numpy(), random_frames(32, SIDE, SIDE, 3).numpy()])
        assert len(queue.drain()) == 1
    assert first.texts == ["the memory of cpu is too small: continuing with --batch-frames 4"]
    assert second.texts == ["the memory of cpu is too small: continuing with --batch-frames 2"]
    assert third.texts == []


def test_notices_go_to_the_run_that_is_in_progress(
    data: Path, tiny_settings: ExtractSettings, fitting: Callable[[int], None]
) -> None:
    """Also if the backbones were loaded by an earlier run."""
    entries = manifest_of(data, ["sound.mp4"]).entries
    first, second = Notices(), Notices()
    backbones = None
    for progress, most in ((first, 4), (second, 2)):
        fitting(most)
        with open_flow(tiny_settings, 1, backbones=backbones) as flow:
            assert len(list(flow.rows(entries, Stopwatch(), progress=progress))) == 1
            backbones = flow.backbones
    assert first.texts == ["the memory of cpu is too small: continuing with --batch-frames 4"]
    assert second.texts == ["the memory of cpu is too small: continuing with --batch-frames 2"]
