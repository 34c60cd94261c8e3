"""Backbones on a GPU. Skipped without one, unless HAECHI_EXPECT_CUDA=1 says that there must be one."""

import numpy as np
import pytest
import torch

from haechi.extract.backbones.batch_queue import BatchQueue
from haechi.extract.backbones.device import Compute
from haechi.extract.backbones.pair import Backbones
from haechi.extract.settings import ExtractSettings
from tests.cuda import NEEDS_CUDA
from tests.extract.backbones.direct import video_features

pytestmark = NEEDS_CUDA


def backbones(settings: ExtractSettings, **changes: object) -> Backbones:
    changed = ExtractSettings(**{**vars(settings), **changes})
    return Backbones(changed, Compute.choose(changed))


def frames(num_videos: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    return (
        torch.from_numpy(rng.integers(0, 256, (num_videos, 8, 32, 32, 3), dtype=np.uint8)),
        torch.from_numpy(rng.integers(0, 256, (num_videos, 32, 256, 256, 3), dtype=np.uint8)),
    )


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-3), ("bf16", 5e-2), ("fp16", 1e-2)])
def test_features_are_those_of_the_cpu(tiny_settings: ExtractSettings, precision: str, tolerance: float) -> None:
    clip, windows = frames(3)
    expected = video_features(backbones(tiny_settings), clip, windows)
    settings = ExtractSettings(**{**vars(tiny_settings), "device": "cuda", "precision": precision})
    compute = Compute.choose(settings)
    with compute.applied():
        ours = video_features(Backbones(settings, compute), clip, windows)
    for a, b in zip(ours, expected, strict=True):
        for name in ("clip/features", "slowfast/features", "slowfast/logits"):
            difference = np.linalg.norm(a[name] - b[name])
            assert difference < tolerance * np.linalg.norm(b[name]), name


def test_device_memory_does_not_grow(tiny_settings: ExtractSettings) -> None:
    network = backbones(tiny_settings, device="cuda")
    clip, windows = frames(4)
    video_features(network, clip, windows)
    before = torch.cuda.memory_allocated()
    for _ in range(20):
        video_features(network, clip, windows)
    assert torch.cuda.memory_allocated() == before


def test_batches_beside_each_other_keep_their_frames(tiny_settings: ExtractSettings) -> None:
    network = backbones(tiny_settings, device="cuda", batch_windows=2, batch_frames=16)
    clip, windows = frames(9)
    queue = BatchQueue(network)
    finished = []
    for i in range(9):
        finished += queue.add((i, 0), [clip[i].numpy(), windows[i].numpy()])
    finished += queue.drain()
    assert [index for (index, _), _ in finished] == list(range(9))
    for (_, ours), theirs in zip(finished, video_features(network, clip, windows), strict=True):
        for name in ("clip/features", "slowfast/features"):
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-2, atol=1e-2)
    assert all(seconds > 0 for seconds in queue.seconds.values())
