"""Synthetic sets of features in which it is known what the label depends on.

Features are correlated as real ones are: few directions vary a lot between videos, and others, less, within a video,
slowly over time. Every set comes with the score of an oracle that knows the direction and all else but the label; the
strength of each structure is such that its ROC AUC is about 0.9, for any number of videos.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from scipy.stats import norm

from haechi.cache.reader import Cache
from haechi.train.data.dataset import Dataset
from haechi.train.data.features import CLIP_FEATURES, Features

ORACLE_AUC = 0.9
SEPARATION = float(2**0.5 * norm.ppf(ORACLE_AUC))  # between the means of two normal variables of deviation 1
AGREEMENT = 0.9  # share of the videos in which a two-valued structure agrees with the label: the AUC of its sign

NUM_LOGITS = 400
NUM_FACTORS = 64  # directions in which videos differ
NUM_MOTIONS = 32  # directions in which the rows of a video differ
DECAY = 0.7  # the k-th direction has the standard deviation k ** -DECAY; 0.6 to 0.8 on the 91 clips
WITHIN = 0.5  # standard deviation within videos over that between videos
NOISE = 0.05  # of each value of each row
SMOOTHING_ROWS = 1.5  # of what varies within a video

# Of the videos that the classifiers are compared on: half are harmful, so that few rare ones do not decide.
NUM_TESTED = 1000


@dataclass(frozen=True, kw_only=True)
class Draw:
    """What a structure adds to a set of N videos with T rows."""

    place: np.ndarray | None = None
    """(N,): added along the label's direction between videos, in standard deviations."""
    motion: np.ndarray | None = None
    """(N, T): added along the label's direction within videos, in standard deviations."""
    other_motion: np.ndarray | None = None
    """(N, T): the same along a second direction."""
    loudness: np.ndarray | None = None
    """(N,): factor of what varies along the label's direction within videos."""
    action: np.ndarray | None = None
    """(N,): added along a direction of SlowFast's logits, in standard deviations."""
    oracle: np.ndarray | None = None
    """(N,): the score of the oracle; None: there is nothing to know."""


Structure = Callable[[np.ndarray, int, np.random.Generator], Draw]
"""From labels (N,) of 0 and 1, the number of rows T and a generator."""


def none_at_all(labels: np.ndarray, num_rows: int, rng: np.random.Generator) -> Draw:
    """The label depends on nothing."""
    return Draw()


def linear_in_the_mean(labels: np.ndarray, num_rows: int, rng: np.random.Generator) -> Draw:
    """One direction between videos."""
    strength = _graded(labels, rng)
    return Draw(place=strength, oracle=strength)


def only_in_the_spread(labels: np.ndarray, num_rows: int, rng: np.random.Generator) -> Draw:
    """How much the rows vary along one direction."""
    strength = _graded(labels, rng)
    return Draw(loudness=np.exp(0.6 * strength), oracle=strength)


def ramp(labels: np.ndarray, num_rows: int, rng: np.random.Generator) -> Draw:
    """Whether the rows rise or fall along one direction; mean, spread and step are the same for both classes."""
    strength = _graded(labels, rng)
    return Draw(motion=4 * strength[:, None] * np.linspace(-1, 1, num_rows), oracle=strength)


def two_events(labels: np.ndarray, num_rows: int, rng: np.random.Generator) -> Draw:
    """Which of two events comes first, at a random moment."""
    sign, length = _signs(labels, rng), max(2, num_rows // 10)
    moment = rng.integers(num_rows - 2 * length + 1, size=len(labels))
    steps = np.arange(num_rows) - moment[:, None]  # (N, T)
    first, second = (steps >= 0) & (steps < length), (steps >= length) & (steps < 2 * length)
    is_forward = (sign > 0)[:, None]
    return Draw(
        motion=6.0 * np.where(is_forward, first, second),
        other_motion=6.0 * np.where(is_forward, second, first),
        oracle=sign,
    )


def one_row(labels: np.ndarray, num_rows: int, rng: np.random.Generator) -> Draw:
    """One row in sixty: the event of safe videos is the opposite of that of harmful ones, so that mean, spread and step
    are the same for both classes."""
    return _moment(labels, num_rows, 1, 8.0, rng)


def few_rows(labels: np.ndarray, num_rows: int, rng: np.random.Generator) -> Draw:
    """Four rows in sixty, in the same way."""
    return _moment(labels, num_rows, 4, 5.0, rng)


def interaction(labels: np.ndarray, num_rows: int, rng: np.random.Generator) -> Draw:
    """Whether two signs, of a direction of CLIP and of one of SlowFast, are the same (XOR)."""
    sign, clip_sign = _signs(labels, rng), rng.choice([-1.0, 1.0], size=len(labels))
    return Draw(place=3 * clip_sign, action=3 * clip_sign * sign, oracle=sign)


def _moment(labels: np.ndarray, num_rows: int, length: int, size: float, rng: np.random.Generator) -> Draw:
    sign, moment = _signs(labels, rng), rng.integers(num_rows - length + 1, size=len(labels))
    steps = np.arange(num_rows) - moment[:, None]  # (N, T)
    during = (steps >= 0) & (steps < length)
    return Draw(motion=size * sign[:, None] * during, oracle=sign)


def _graded(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(N,): normal with deviation 1, around half of `SEPARATION` for harmful videos and minus that for safe ones."""
    strength: np.ndarray = rng.normal(size=len(labels)) + (labels - 0.5) * SEPARATION
    return strength


def _signs(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(N,): 1 for harmful videos and -1 for safe ones, or the opposite in the share 1 - `AGREEMENT`."""
    signs: np.ndarray = (2.0 * labels - 1) * np.where(rng.random(len(labels)) < AGREEMENT, 1, -1)
    return signs


STRUCTURES: dict[str, tuple[Structure, int]] = {
    "none": (none_at_all, 16),
    "mean": (linear_in_the_mean, 16),
    "spread": (only_in_the_spread, 32),
    "ramp": (ramp, 16),
    "two events": (two_events, 32),
    "one row": (one_row, 60),
    "few rows": (few_rows, 60),
    "interaction": (interaction, 16),
}
"""Name -> structure, and the number of rows of each video."""


@dataclass(frozen=True, kw_only=True)
class SyntheticSet:
    """A set of videos whose label depends on one structure."""

    structure: str
    """One of `STRUCTURES`."""
    num_videos: int
    """For training and validation."""
    ratio: float
    """Harmful videos for each safe one."""
    width: int
    """Of the CLIP features."""

    @property
    def name(self) -> str:
        ratio = f"{self.ratio:g} : 1" if self.ratio >= 1 else f"1 : {1 / self.ratio:g}"
        return f"{self.structure}, {self.num_videos:,} videos, {ratio}, width {self.width}"

    def draw(self, seed: int, *, num_tested: int = NUM_TESTED) -> tuple[Dataset, np.ndarray | None]:
        """A dataset in memory of the set's videos, and after them `num_tested` ones whose split is `test`, half of them
        harmful; and the oracle's scores (N,) of all, None if there is nothing to know."""
        rng = np.random.default_rng([seed, self.num_videos, self.width, *self.structure.encode()])
        num_harmful = int(np.clip(round(self.num_videos * self.ratio / (1 + self.ratio)), 3, self.num_videos - 3))
        labels = np.concatenate(
            [
                rng.permutation(np.arange(self.num_videos) < num_harmful),
                rng.permutation(np.arange(num_tested) < num_tested // 2),
            ]
        ).astype(np.int8)
        structure, num_rows = STRUCTURES[self.structure]
        draw = structure(labels.astype(int), num_rows, rng)
        rows = _rows(draw, len(labels), num_rows, self.width, rng)
        constant = _factors(len(labels), NUM_LOGITS, rng, draw.action) + NOISE * rng.normal(size=NUM_LOGITS)
        ids = np.array([f"{i:06d}.mp4" for i in range(len(labels))], dtype=object)
        empty = np.full(len(labels), "", dtype=object)
        dataset = Dataset(
            cache=cast(Cache, None),  # only scenes and thumbnails are read from it
            ids=ids,
            labels=labels,
            splits=np.where(np.arange(len(labels)) < self.num_videos, "", "test").astype(object),
            groups=empty,
            sha256=ids,
            durations_seconds=np.full(len(labels), float(num_rows)),
            sizes=np.tile([640, 360], (len(labels), 1)),
            videos=np.arange(len(labels)),
            features=Features(
                rows=torch.from_numpy(rows.reshape(-1, self.width)),
                lengths=np.full(len(labels), num_rows),
                constant=torch.from_numpy(constant.astype(np.float32)),
            ),
            streams={CLIP_FEATURES: self.width, "slowfast/logits": NUM_LOGITS},
            num_thinned=0,
            num_unlabelled=0,
            num_other_kind=0,
            num_not_sampled=0,
            new_labels=None,
        )
        return dataset, draw.oracle


def _rows(draw: Draw, num_videos: int, num_rows: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """(N, T, width) float16: an offset that all share, what differs between videos, what differs within, and noise."""
    offset = rng.normal(size=width)
    places = _factors(num_videos, width, rng, draw.place)  # (N, width)
    motions = _basis(NUM_MOTIONS, width, rng) * WITHIN
    directions = _random_directions(NUM_MOTIONS, 2, rng)  # (2, NUM_MOTIONS), orthogonal
    rows = np.empty((num_videos, num_rows, width), dtype=np.float16)
    for i in range(num_videos):  # one at a time: float64 for all of them would need gigabytes
        motion = gaussian_filter1d(rng.normal(size=(num_rows, NUM_MOTIONS)), SMOOTHING_ROWS, axis=0, mode="wrap")
        motion *= (2 * SMOOTHING_ROWS * np.pi**0.5) ** 0.5  # deviation 1 again
        motion += 0.5 * rng.normal(size=(num_rows, NUM_MOTIONS))
        if draw.loudness is not None:
            motion += (draw.loudness[i] - 1) * np.outer(motion @ directions[0], directions[0])
        for added, direction in zip((draw.motion, draw.other_motion), directions, strict=True):
            if added is not None:
                motion += np.outer(added[i], direction)
        motion -= motion.mean(axis=0)  # the mean of the rows is what differs between videos
        noise = NOISE * rng.standard_normal((num_rows, width), dtype=np.float32)
        rows[i] = offset + places[i] + motion @ motions + noise
    return rows


def _factors(num: int, width: int, rng: np.random.Generator, added: np.ndarray | None = None) -> np.ndarray:
    """(num, width): normal, with `NUM_FACTORS` directions of decreasing deviation; `added` (num,) replaces the value
    along a mixture of the factors, in which larger ones weigh more."""
    latent = rng.normal(size=(num, NUM_FACTORS))
    direction = rng.normal(size=NUM_FACTORS) * np.arange(1, NUM_FACTORS + 1) ** -DECAY
    direction /= np.linalg.norm(direction)
    if added is not None:
        latent += np.outer(added - latent @ direction, direction)
    result: np.ndarray = latent @ _basis(NUM_FACTORS, width, rng)
    return result


def _basis(num: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """(num, width): orthogonal directions with lengths that decrease, whose values have a deviation of about 1."""
    lengths = np.arange(1, num + 1) ** -DECAY
    scale = (width / (lengths**2).sum()) ** 0.5
    basis: np.ndarray = _random_directions(width, num, rng) * (lengths * scale)[:, None]
    return basis


def _random_directions(width: int, num: int, rng: np.random.Generator) -> np.ndarray:
    """(num, width): orthogonal unit vectors."""
    directions: np.ndarray = np.linalg.qr(rng.normal(size=(width, num)))[0].T
    return directions
