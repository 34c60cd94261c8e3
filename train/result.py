"""A finished run: the head that is kept, every labelled video's score, and what the figures rest on."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from haechi.cache.schema import SPLITS
from haechi.train.data.split import Split
from haechi.train.evaluate import bootstrap
from haechi.train.evaluate.bootstrap import Interval
from haechi.train.evaluate.calibration import Calibration
from haechi.train.evaluate.metrics import Figures, metrics_at
from haechi.train.evaluate.threshold import Choice, cautions
from haechi.train.model.fit import Epoch
from haechi.train.model.head import Head
from haechi.train.plan import Plan
from haechi.train.settings import TrainSettings

# Parts of the split that were not trained on.
JUDGED = ("val", "test")


@dataclass(frozen=True, kw_only=True)
class Fold:
    """One fold of cross-validation."""

    number: int
    """From 1."""
    split: Split
    """`test` are the fold's own videos."""
    epochs: list[Epoch]
    best_epoch: int
    threshold: float
    met: bool
    """Whether the threshold keeps the policy's bound on validation."""
    figures: Figures
    """Of the fold's own videos, at its own threshold."""
    val_figures: Figures
    """Of the videos that chose epoch and threshold."""


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """What is hard to lose against, on the same rows."""

    scores: np.ndarray
    """(N,) float64 in [0, 1]"""
    thresholds: np.ndarray
    """(N,) float64: one for all, or where there are folds each fold's own."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """Where there are folds, every video is in `test`: scored by the fold that did not train on it, and decided by that
    fold's threshold."""

    plan: Plan
    split: Split
    pos_weight: float
    """Of the head that is kept."""
    precision: str
    """`fp32` or `bf16`: of the training steps. Scores are fp32."""
    head: Head
    """Of the best epoch, in evaluation mode; where there are folds, trained on all videos."""
    epochs: list[Epoch]
    """Of the split into parts; empty where there are folds."""
    best_epoch: int
    """Where there are folds, the median of theirs: as many epochs as the kept head was trained."""
    threshold: float
    """Of the head that is kept: where there are folds, the median of theirs."""
    choice: Choice | None
    """How validation chose it; None where there are folds."""
    scores: np.ndarray
    """(N,) float64 in [0, 1]: every labelled video's."""
    thresholds: np.ndarray
    """(N,) float64: what decided each video; where there are folds, its fold's own."""
    calibration: Calibration
    """Of the kept head."""
    calibrated: np.ndarray
    """(N,) float64: probabilities of harm."""
    baselines: dict[str, Baseline]
    folds: list[Fold]
    fold: np.ndarray
    """(N,) int: the number of the fold in which each video was in test; 0: none."""
    seconds: float
    """From the first epoch to the last score."""

    @property
    def settings(self) -> TrainSettings:
        """What the run was told."""
        return self.plan.settings

    @property
    def labels(self) -> np.ndarray:
        """(N,) int8: 1 harmful, 0 safe."""
        return self.plan.dataset.labels

    @property
    def headline(self) -> str:
        """The part whose figures count: test, or val where there is no test."""
        return "test" if len(self.split.rows("test")) else "val"

    @cached_property
    def metrics(self) -> dict[str, Figures]:
        """Part of the split -> its figures at a threshold that test has not seen."""
        return {name: self.figures(self.scores, self.thresholds, rows) for name, rows in self._parts(SPLITS)}

    @cached_property
    def intervals(self) -> dict[str, dict[str, Interval | None]]:
        """Part that was not trained on -> figure -> its 95 % bootstrap interval, by groups."""
        return {
            name: bootstrap.intervals(
                self.scores[rows], self.labels[rows], self.thresholds[rows], self.plan.groups[rows]
            )
            for name, rows in self._parts(JUDGED)
        }

    @cached_property
    def metrics_untouched(self) -> Figures | None:
        """Figures of the headline part without the videos that a leak touches; None where it touches none, or all."""
        touched = self.plan.leaks.touched(self.headline)
        rest = np.setdiff1d(self.split.rows(self.headline), touched)
        return self.figures(self.scores, self.thresholds, rest) if len(touched) and len(rest) else None

    @cached_property
    def threshold_notes(self) -> list[str]:
        """What a user must know before trusting the threshold."""
        policy = self.plan.policy
        if self.choice is not None:
            return cautions(len(self.split.rows("val")), policy, met=self.choice.met)
        chosen = [fold.threshold for fold in self.folds]
        return [
            f"the median of the folds, which chose {min(chosen):.4f} to {max(chosen):.4f}; "
            "each fold's videos are judged at its own",
            *cautions(
                min(len(fold.split.rows("val")) for fold in self.folds),
                policy,
                met=all(fold.met for fold in self.folds),
                where=" in a fold",
            ),
        ]

    @cached_property
    def threshold_interval(self) -> Interval | None:
        """95 % bootstrap interval of the threshold; None where there are folds: their thresholds show it."""
        rows = self.split.rows("val")
        if self.folds:
            return None
        return bootstrap.threshold_interval(
            self.scores[rows], self.labels[rows], self.plan.groups[rows], self.plan.policy
        )

    @cached_property
    def baseline_metrics(self) -> dict[str, dict[str, Figures]]:
        """Baseline -> part that was not trained on -> figures."""
        return {
            name: {part: self.figures(baseline.scores, baseline.thresholds, rows) for part, rows in self._parts(JUDGED)}
            for name, baseline in self.baselines.items()
        }

    @cached_property
    def lead(self) -> dict[str, dict[str, Interval | None]]:
        """Baseline -> figure -> 95 % interval of the head's figure less the baseline's, on the headline part."""
        rows = self.split.rows(self.headline)
        return {
            name: bootstrap.differences(
                (baseline.scores[rows], baseline.thresholds[rows]),
                (self.scores[rows], self.thresholds[rows]),
                self.labels[rows],
                self.plan.groups[rows],
            )
            for name, baseline in self.baselines.items()
        }

    def figures(self, scores: np.ndarray, thresholds: np.ndarray, rows: np.ndarray) -> Figures:
        """Figures of scores (N,) at thresholds (N,) on the videos of `rows` (n,)."""
        return metrics_at(scores[rows], self.labels[rows], thresholds[rows])

    def _parts(self, names: tuple[str, ...]) -> list[tuple[str, np.ndarray]]:
        return [(name, rows) for name in names if len(rows := self.split.rows(name))]
