"""What the page of a run shows; `haechi.train.output.page_html` writes it."""

from dataclasses import dataclass

import numpy as np

from haechi.train.data.leaks import Pair
from haechi.train.data.relabel import NewLabels
from haechi.train.evaluate.bootstrap import Interval
from haechi.train.evaluate.calibration import Reliability
from haechi.train.evaluate.metrics import Figures
from haechi.train.evaluate.subsets import Subset
from haechi.train.evaluate.threshold import predict
from haechi.train.model.fit import Epoch
from haechi.train.output.titles import SPLIT_TITLES
from haechi.train.output.verdict import Finding, find
from haechi.train.result import ChosenThreshold, Fold, Result
from haechi.train.settings import TrainSettings

MAX_MISTAKES = 50

# With at least this many videos, metrics are shown with a third decimal.
MANY_VIDEOS = 1000


@dataclass(frozen=True, kw_only=True)
class ScoredVideo:
    """A labelled video, its score and the decision."""

    id: str
    label: int
    """1 harmful, 0 safe."""
    split: str
    """`train`, `val` or `test`."""
    score: float
    """0 to 1"""
    calibrated: float
    """0 to 1: the score as a probability that the video is harmful."""
    threshold: float
    """The threshold that decided this video; with folds, the threshold of its fold."""
    prediction: int
    """1 where the score is at least the threshold, else 0."""
    group: str
    """Empty: no group is known."""
    duration_seconds: float
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    fold: int | None
    """Number of the fold that tested it, from 1; None without cross-validation."""

    @property
    def is_mistake(self) -> bool:
        """Whether prediction and label differ."""
        return self.prediction != self.label

    @property
    def distance(self) -> float:
        """Distance of the score from the threshold."""
        return abs(self.score - self.threshold)


@dataclass(frozen=True, kw_only=True)
class LeakSummary:
    """Videos of the headline part that are also in another part, in some form."""

    num_videos: int
    pairs: list[Pair]
    """All pairs of the run, those of other parts too."""
    figures_without: Figures | None
    """Metrics of the headline part without these videos; None where there are none, or no others."""


@dataclass(frozen=True, kw_only=True)
class DataCard:
    """The data of a run and where they come from."""

    untrained: list[str]
    """Backbones with random weights whose features the head sees."""
    fingerprint: str
    streams: dict[str, int]
    """Arrays of the cache that the head sees -> their widths."""
    counts: dict[str, dict[str, int]]
    """Part of the split -> `harmful` and `safe` -> number of videos."""
    failures: dict[str, int]
    """Reason -> videos of the cache that could not be used."""
    num_unlabelled: int
    new_labels: NewLabels | None
    """The file whose labels were used in place of the cache's, if any."""
    group_source: str
    """As in `Grouping.source`."""
    num_groups: int
    similarity_threshold: float | None
    """Cosine from which two scenes count as near-duplicates; None: scenes were not compared."""
    split_notes: list[str]
    """How the split was made, one sentence each."""
    split_warnings: list[str]
    """Why the metrics may be too good."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """Everything that the page of a run shows."""

    title: str
    """Name of the run folder."""
    command: str
    """The exact command that made the run."""
    settings: TrainSettings
    precision: str
    """`fp32` or `bf16`"""
    pos_weight: float
    headline: str
    """The part of the split whose metrics are shown first."""
    figures: dict[str, Figures]
    """Part of the split -> its metrics."""
    intervals: dict[str, dict[str, Interval | None]]
    """Held-out part -> metric -> 95 % interval."""
    baselines: dict[str, dict[str, Figures]]
    """Baseline -> held-out part -> its metrics."""
    findings: list[Finding]
    """Comparisons with the baselines."""
    threshold: ChosenThreshold
    temperature: float
    """Temperature of the calibration."""
    reliability: tuple[Reliability, Reliability]
    """Of the headline part, before and after calibration."""
    subsets: list[Subset]
    epochs: list[Epoch]
    """Empty with folds."""
    best_epoch: int
    head: str
    """What the head is (`Head.description`)."""
    folds: list[Fold]
    """Empty without cross-validation."""
    leaks: LeakSummary
    data: DataCard
    videos: list[ScoredVideo]
    """Of the held-out parts."""
    thumbnails: dict[str, bytes]
    """Id -> JPEG; videos without one are shown without a picture."""

    @classmethod
    def of(cls, result: Result, *, title: str, command: str) -> "Page":
        """The page of a finished run, without thumbnails."""
        plan, dataset = result.plan, result.plan.dataset
        return cls(
            title=title,
            command=command,
            settings=result.settings,
            precision=result.precision,
            pos_weight=result.pos_weight,
            headline=result.headline,
            figures=result.metrics,
            intervals=result.intervals,
            baselines=result.baseline_metrics,
            findings=find(result),
            threshold=result.chosen_threshold,
            temperature=result.calibration.temperature,
            reliability=result.reliability,
            subsets=result.subsets,
            epochs=result.epochs,
            best_epoch=result.best_epoch,
            head=result.head.description,
            folds=result.folds,
            leaks=LeakSummary(
                num_videos=len(plan.leaks.touched(result.headline)),
                pairs=plan.leaks.pairs,
                figures_without=result.metrics_without_leaks,
            ),
            data=DataCard(
                untrained=dataset.untrained,
                fingerprint=dataset.cache.fingerprint,
                streams=dataset.streams,
                counts=result.split.counts(result.labels),
                failures=result.failures,
                num_unlabelled=dataset.num_unlabelled,
                new_labels=dataset.new_labels,
                group_source=plan.grouping.source,
                num_groups=plan.grouping.count,
                similarity_threshold=result.similarity_threshold,
                split_notes=plan.notes,
                split_warnings=plan.warnings,
            ),
            videos=_scored_videos(result),
            thumbnails={},
        )

    def part(self, part: str) -> list[ScoredVideo]:
        """The videos of one part of the split."""
        return [video for video in self.videos if video.split == part]

    @property
    def parts(self) -> list[str]:
        """The held-out parts that have videos, the headline part first."""
        return sorted((p for p in ("test", "val") if self.part(p)), key=lambda part: part != self.headline)

    def videos_of(self, part: str) -> str:
        """Which videos a part holds, as in "all videos" and "test videos"."""
        return "all" if self.folds and part == "test" else SPLIT_TITLES[part].lower()

    @property
    def digits(self) -> int:
        """Decimals of metrics, fewer where there are few videos."""
        return 2 if len(self.part(self.headline)) < MANY_VIDEOS else 3

    @property
    def mistakes(self) -> list[ScoredVideo]:
        """At most `MAX_MISTAKES` wrong predictions in the headline part, those farthest from the threshold first."""
        wrong = [video for video in self.part(self.headline) if video.is_mistake]
        return sorted(wrong, key=lambda video: (-video.distance, video.id))[:MAX_MISTAKES]


def _scored_videos(result: Result) -> list[ScoredVideo]:
    dataset = result.plan.dataset
    predictions = predict(result.scores, result.thresholds)
    return [
        ScoredVideo(
            id=str(dataset.ids[i]),
            label=int(result.labels[i]),
            split=str(result.split.names[i]),
            score=float(result.scores[i]),
            calibrated=float(result.calibrated[i]),
            threshold=float(result.thresholds[i]),
            prediction=int(predictions[i]),
            group=str(result.plan.groups[i]),
            duration_seconds=float(dataset.durations_seconds[i]),
            width=int(dataset.sizes[i, 0]),
            height=int(dataset.sizes[i, 1]),
            fold=int(result.fold[i]) or None,
        )
        for i in np.flatnonzero(result.split.names != "train").tolist()
    ]
