"""The scores of a head."""

import numpy as np
import torch
from torch import Tensor

from haechi.train.data.features import Features, make_batches
from haechi.train.data.stream import Stream
from haechi.train.model.head import Head

# Scoring keeps no gradients, so its batches are larger. Limits: videos, and rows of all videos with padding.
SCORE_BATCH_SIZE, SCORE_BATCH_ROWS = 256, 256 * 32


def compute_logits(head: Head, features: Features | Stream, rows: Tensor) -> Tensor:
    """The head's logits (n,) for the videos of `rows` (n,), ascending, on the head's device.

    Without dropout, and always in float32: scores do not depend on whether the device supports bfloat16.
    """
    head.eval()
    with torch.no_grad():
        batches = make_batches(rows, features.lengths, max_videos=SCORE_BATCH_SIZE, max_rows=SCORE_BATCH_ROWS)
        return torch.cat([head(*features.batch(batch)) for batch in features.buffers(batches)])


def compute_scores(logits: Tensor | np.ndarray) -> np.ndarray:
    """Scores (n,) float64 in [0, 1] of `logits` (n,). In float64, two large logits still have different scores."""
    scores: np.ndarray = torch.sigmoid(torch.as_tensor(logits).double()).cpu().numpy()
    return scores
