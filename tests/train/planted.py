"""Features in which the mean over a video hides the label."""

import numpy as np
import torch

from haechi.train.data.features import Features

WIDTH = 16

# Two orthogonal directions whose components all have the same size: what happens in one looks in every single column
# like what happens in the other.
HARMFUL = np.resize([1.0, -1.0], WIDTH) / WIDTH**0.5
SAFE = np.resize([1.0, 1.0, -1.0, -1.0], WIDTH) / WIDTH**0.5


def plant(what: str, labels: np.ndarray, *, seed: int = 0, lengths: tuple[int, ...] = (8, 10, 16)) -> Features:
    """Videos of noise with `lengths` rows in turn, and `nothing` else; or `rare rows` or `spread` in one of two
    directions by their label, or a `ramp` up or down."""
    rng = np.random.default_rng(seed)
    rows = []
    num_rows = np.resize(lengths, len(labels))
    for label, count in zip(labels, num_rows.tolist(), strict=True):
        video = rng.normal(size=(count, WIDTH))
        direction = HARMFUL if label else SAFE
        if what == "rare rows":
            video[rng.integers(count)] += 7 * rng.choice([-1, 1]) * direction
        elif what == "spread":
            video += 2.5 * rng.normal(size=(count, 1)) * direction
        elif what == "ramp":
            video += np.linspace(-2, 2, count)[:, None] * HARMFUL * (1 if label else -1)
        rows.append(video)
    return Features(
        rows=torch.from_numpy(np.concatenate(rows)).float(),
        lengths=num_rows.astype(np.int64),
        constant=torch.zeros(len(labels), 0),
    )
