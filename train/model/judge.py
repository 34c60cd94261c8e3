"""Decides whether logits are better than others, on videos that neither was trained on."""

import math

import numpy as np

from haechi.train.model.regression import class_weights

# A more complicated head is used only if its loss is lower by more than this many standard errors of the difference.
NUM_ERRORS = 2.0


class Judge:
    """Compares logits of n held-out videos by their weighted log loss.

    Log loss is a proper score of the probabilities, and takes every video into account: with a few dozen videos, F1 at
    a threshold chosen on the same videos is mostly chance.
    """

    def __init__(self, labels: np.ndarray, *, pos_weight: float) -> None:
        """`labels` (n,) of 0 and 1; a harmful video has `pos_weight` times the weight of a safe one."""
        self._sign = np.where(labels == 1, -1.0, 1.0)
        self._weights = class_weights(labels, pos_weight)

    def losses(self, logits: np.ndarray) -> np.ndarray:
        """(n,) of `logits` (n,); the mean weight is 1."""
        return np.asarray(self._weights * np.logaddexp(0, self._sign * logits))

    def loss(self, logits: np.ndarray) -> float:
        """The mean loss of `logits` (n,)."""
        return float(self.losses(logits).mean())

    def prefers(self, logits: np.ndarray, others: np.ndarray) -> bool:
        """Whether the loss of `logits` (n,) is significantly lower than that of `others` (n,)."""
        gains = self.losses(others) - self.losses(logits)
        return bool(gains.mean() > NUM_ERRORS * gains.std() / math.sqrt(len(gains)))
