"""A finished run: the head that is kept, the score of every labelled video, and everything computed from these."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from haechi.cache.kinds import IMAGE
from haechi.cache.schema import SPLITS
from haechi.train.data.split import Split
from haechi.train.evaluate import bootstrap
from haechi.train.evaluate.bootstrap import Interval
from haechi.train.evaluate.calibration import Calibration, Reliability, measure_reliability
from haechi.train.evaluate.metrics import Figures, metrics_at
from haechi.train.evaluate.subsets import Subset, find_subsets
from haechi.train.evaluate.threshold import Choice, cautions
from haechi.train.model.fit import Epoch
from haechi.train.model.head import Head
from haechi.train.model.rehearsal import Rehearsal
from haechi.train.model.scores import compute_scores
from haechi.train.plan import Plan
from haechi.train.policy import Policy
from haechi.train.settings import TrainSettings

# Parts of the split that the head is not trained on.
HELD_OUT_PARTS = ("val", "test")


@dataclass(frozen=True, kw_only=True)
class Fold:
    """One fold of cross-validation."""

    number: int
    """From 1."""
    split: Split
    """Its `test` part is the videos of this fold."""
    epochs: list[Epoch]
    best_epoch: int
    threshold: float
    num_chosen_on: int
    """Videos on which epoch and threshold were chosen."""
    met: bool
    """Whether the threshold keeps the policy's bound on validation."""
    figures: Figures
    """Metrics of the fold's test videos at the fold's threshold."""
    val_figures: Figures
    """Metrics of the videos on which epoch and threshold were chosen, by heads that were not fitted on them."""


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A simple classifier on the same videos, for comparison."""

    scores: np.ndarray
    """(N,) float64 in [0, 1]"""
    thresholds: np.ndarray
    """(N,) float64: the same for all videos, or with folds the threshold of each video's fold."""


@dataclass(frozen=True, kw_only=True)
class ChosenThreshold:
    """The threshold of the head that is kept, and how it was chosen."""

    value: float
    """0 to 1; with folds, the median of the folds' thresholds."""
    policy: Policy
    met: bool
    """Whether the policy's bound is kept on validation; with folds, in every fold."""
    plateau: tuple[float, float] | None
    """Thresholds in this range give the same predictions on validation; None with folds."""
    interval: Interval | None
    """95 % bootstrap interval; None with folds, whose thresholds show the spread."""
    notes: list[str]
    """Warnings that a user should read before relying on the threshold."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """A finished run on N labelled videos.

    With folds, every video is in `test`: it is scored by the head of the fold that did not train on it, and decided by
    the threshold of that fold.
    """

    plan: Plan
    split: Split
    pos_weight: float
    """Weight of harmful videos in the loss of the head that is kept."""
    precision: str
    """Number format of the training steps: `fp32` or `bf16`. Scores are always computed in fp32."""
    head: Head
    """The head that is kept, in evaluation mode: of the best epoch, or with folds trained on all videos."""
    epochs: list[Epoch]
    """Epochs of the head that is kept; empty with folds."""
    best_epoch: int
    """With folds, the median of their best epochs: the head that is kept was trained for this many epochs."""
    threshold: float
    """Threshold of the head that is kept: with folds, the median of the folds', or without a network chosen in the same
    way on all videos."""
    choice: Choice | None
    """How the threshold was chosen on validation; None with folds."""
    rehearsal: Rehearsal | None
    """What it was chosen on; None with folds."""
    scores: np.ndarray
    """(N,) float64 in [0, 1]"""
    thresholds: np.ndarray
    """(N,) float64: the threshold that decided each video; with folds, the threshold of its fold."""
    calibration: Calibration
    """Calibration of the head that is kept."""
    calibrated: np.ndarray
    """(N,) float64: the scores as probabilities that a video is harmful."""
    baselines: dict[str, Baseline]
    """Name -> baseline: `majority`, `logistic_regression`."""
    folds: list[Fold]
    """Empty without cross-validation."""
    fold: np.ndarray
    """(N,) int: the number of the fold that tested each video, from 1; 0 without cross-validation."""
    seconds: float
    """Duration from the first epoch to the last score."""

    @property
    def settings(self) -> TrainSettings:
        """Settings of the run."""
        return self.plan.settings

    @property
    def labels(self) -> np.ndarray:
        """(N,) int8: 1 harmful, 0 safe."""
        return self.plan.dataset.labels

    @property
    def headline(self) -> str:
        """The part whose metrics are reported first: `test`, or `val` where there is no test part."""
        return "test" if len(self.split.rows("test")) else "val"

    @property
    def failures(self) -> dict[str, int]:
        """Reason -> videos of the cache that could not be used."""
        return self.plan.dataset.cache.failure_counts

    @property
    def similarity_threshold(self) -> float | None:
        """Cosine from which two scenes count as near-duplicates; None: scenes were not compared."""
        return self.plan.grouping.scenes.similarity_threshold if self.settings.scenes else None

    @cached_property
    def metrics(self) -> dict[str, Figures]:
        """Part of the split -> its metrics at the threshold, which was chosen without the test part."""
        return {name: self._figures(self.scores, self.thresholds, rows) for name, rows in self._parts(SPLITS)}

    @cached_property
    def intervals(self) -> dict[str, dict[str, Interval | None]]:
        """Held-out part -> metric -> its 95 % bootstrap interval, over groups."""
        return {
            name: bootstrap.intervals(
                self.scores[rows], self.labels[rows], self.thresholds[rows], self.plan.groups[rows]
            )
            for name, rows in self._parts(HELD_OUT_PARTS)
        }

    @cached_property
    def metrics_without_leaks(self) -> Figures | None:
        """Metrics of the headline part without its leaked videos; None where none of its videos is leaked, or all."""
        leaked = self.plan.leaks.touched(self.headline)
        rest = np.setdiff1d(self.split.rows(self.headline), leaked)
        return self._figures(self.scores, self.thresholds, rest) if len(leaked) and len(rest) else None

    @cached_property
    def chosen_threshold(self) -> ChosenThreshold:
        """The threshold of the head that is kept, and how it was chosen."""
        return self._threshold_of_parts(self.choice) if self.choice else self._threshold_of_folds()

    def _threshold_of_parts(self, choice: Choice) -> ChosenThreshold:
        policy = self.plan.policy
        assert self.rehearsal is not None
        rows = self.rehearsal.rows
        return ChosenThreshold(
            value=self.threshold,
            policy=policy,
            met=choice.met,
            plateau=(choice.low, choice.high),
            interval=bootstrap.threshold_interval(
                compute_scores(self.rehearsal.logits),
                self.labels[rows],
                self.plan.groups[rows],
                policy,
                pos_weight=self.pos_weight if self.settings.regression else None,
            ),
            notes=cautions(len(rows), policy, met=choice.met),
        )

    def _threshold_of_folds(self) -> ChosenThreshold:
        policy, met = self.plan.policy, all(fold.met for fold in self.folds)
        chosen = [fold.threshold for fold in self.folds]
        fewest = min(fold.num_chosen_on for fold in self.folds)
        source = "the median of the folds' thresholds" if self.settings.network else "chosen as those of the folds"
        return ChosenThreshold(
            value=self.threshold,
            policy=policy,
            met=met,
            plateau=None,
            interval=None,
            notes=[
                f"{source}, {min(chosen):.4f} to {max(chosen):.4f}; the videos of each fold "
                "are decided by the threshold of that fold",
                *cautions(fewest, policy, met=met, where=" in a fold"),
            ],
        )

    @cached_property
    def reliability(self) -> tuple[Reliability, Reliability]:
        """Of the scores in the headline part, before and after calibration."""
        rows = self.split.rows(self.headline)
        before, after = (measure_reliability(each[rows], self.labels[rows]) for each in (self.scores, self.calibrated))
        return before, after

    @cached_property
    def subsets(self) -> list[Subset]:
        """Metrics of subsets of the headline part: by group, duration (of videos only) and resolution."""
        rows, dataset = self.split.rows(self.headline), self.plan.dataset
        durations = dataset.durations_seconds[rows]
        return find_subsets(
            self.scores[rows],
            self.labels[rows],
            self.thresholds[rows],
            groups=self.plan.groups[rows],
            durations_seconds=np.full(len(rows), np.nan) if self.settings.media == IMAGE else durations,
            short_sides=dataset.sizes[rows].min(axis=1),
        )

    @cached_property
    def baseline_metrics(self) -> dict[str, dict[str, Figures]]:
        """Baseline -> held-out part -> its metrics."""
        return {
            name: {
                part: self._figures(baseline.scores, baseline.thresholds, rows)
                for part, rows in self._parts(HELD_OUT_PARTS)
            }
            for name, baseline in self.baselines.items()
        }

    @cached_property
    def lead(self) -> dict[str, dict[str, Interval | None]]:
        """Baseline -> metric -> 95 % interval of the head's value minus the baseline's, on the headline part."""
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

    def _figures(self, scores: np.ndarray, thresholds: np.ndarray, rows: np.ndarray) -> Figures:
        """Metrics of scores (N,) at thresholds (N,), on the videos of `rows` (n,)."""
        return metrics_at(scores[rows], self.labels[rows], thresholds[rows])

    def _parts(self, names: tuple[str, ...]) -> list[tuple[str, np.ndarray]]:
        return [(name, rows) for name in names if len(rows := self.split.rows(name))]
