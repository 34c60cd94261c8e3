"""The scores of a head."""

import numpy as np
import torch
from torch import Tensor

from haechi.train.data.batches import batches
from haechi.train.data.features import Features
from haechi.train.data.stream import Stream
from haechi.train.model.head import Head


def compute_logits(head: Head, features: Features | Stream, rows: Tensor) -> Tensor:
    """The head's logits (n,) for the videos of `rows` (n,), ascending, on the head's device.

    Without dropout, and always in float32: scores do not depend on whether the device supports bfloat16.
    """
    head.eval()
    with torch.no_grad():
        return torch.cat([head(*batch) for batch in batches(features, rows, small=head.mlp is None)])


def compute_scores(logits: Tensor | np.ndarray) -> np.ndarray:
    """Scores (n,) float64 in [0, 1] of `logits` (n,). In float64, two large logits still have different scores."""
    scores: np.ndarray = torch.sigmoid(torch.as_tensor(logits).double()).cpu().numpy()
    return scores
