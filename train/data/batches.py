"""Batches of videos for computation without gradients: pooling and scoring."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from haechi.train.data.features import Features, make_batches
from haechi.train.data.stream import Stream

# Limits of what is read at once: videos, and rows of all videos with padding.
MAX_VIDEOS, MAX_ROWS = 256, 256 * 32

# Values of a small batch, 1 MB: what a processor's cache holds. Computation that goes over all values of a batch
# several times takes a seventh of the time then (32 x 512 values a video, AMD EPYC).
SMALL_VALUES = 1 << 18


def batches(
    features: Features | Stream, index: Tensor, *, small: bool = False
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The videos of `index` (n,) int64, ascending, in batches as of `Features.batch`; none for no videos.

    `small`: in batches of `SMALL_VALUES` values, if they are on the CPU. torch computes in one thread until the last of
    them: with several, each operation would wait for the slowest. Raises the errors of `Stream.buffers`.
    """
    if not len(index):
        return
    parts = make_batches(index, features.lengths, max_videos=MAX_VIDEOS, max_rows=MAX_ROWS)
    if not small or features.device.type != "cpu":
        yield from map(features.batch, features.buffers(parts))
        return
    with _one_thread():
        for part in features.buffers(parts):
            longest = int(features.lengths[part.numpy()].max())
            size = max(1, SMALL_VALUES // (longest * max(features.widths)))
            for start in range(0, len(part), size):
                yield features.batch(part[start : start + size])


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
