"""What the page of an evaluation shows, computed from an `Evaluation`; `page_html` writes it."""

from dataclasses import dataclass

import numpy as np

from haechi.cache.schema import HARMFUL, SAFE
from haechi.predict.evaluation.causes import Causes, Loss
from haechi.predict.evaluation.disagreements import Disagreement
from haechi.predict.evaluation.evaluation import Evaluation
from haechi.predict.evaluation.fall import Change
from haechi.predict.evaluation.prevalence import AtPrevalence
from haechi.predict.evaluation.scored import Scored
from haechi.predict.evaluation.slices import Slice
from haechi.train.evaluate.bootstrap import Interval
from haechi.train.output.one_scale import on_one_scale
from haechi.train.output.page_numbers import percent

MAX_DISAGREEMENTS = 50
MAX_PAIRS = 50
MAX_SLICES_OF_A_KIND = 30
NUM_BINS = 25  # of the histogram of scores
ROUNDING = 1e-9  # a narrower range of scores is widened for the histogram

# Where nothing else says which prevalence is of interest.
USUAL_PREVALENCE = 0.01


@dataclass(frozen=True, kw_only=True)
class Step:
    """A part of the change of F1, as a bar that starts where the one before it ends."""

    name: str
    start: float
    end: float
    interval: Interval | None
    """95 % interval of `change`."""
    sentence: str
    advice: str
    """What to do next if this part is the largest."""

    @property
    def change(self) -> float:
        """`end` minus `start`: negative where F1 fell."""
        return self.end - self.start


@dataclass(frozen=True, kw_only=True)
class SliceTable:
    """Slices of one kind, as the page lists them: those that fail more often than elsewhere first."""

    by: str
    rows: list[Slice]
    num_left_out: int
    """Slices that the page does not list."""


@dataclass(frozen=True, kw_only=True)
class DisagreementRow:
    """A disagreement with its video."""

    id: str
    label: int
    score: float
    is_flagged: bool
    calibrated: float
    """0 to 1: the probability that the video is harmful."""
    disagreement: Disagreement

    @property
    def kind(self) -> str:
        """`missed`, `false alarm`, or `same` where decision and label agree."""
        if self.is_flagged == (self.label == HARMFUL):
            return "same"
        return "missed" if self.label == HARMFUL else "false alarm"


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Scores of one class, as shares of its videos."""

    name: str
    """`harmful`, `safe` or `unlabelled`."""
    here: list[float]
    """(NUM_BINS,) sum 1"""
    own: list[float] | None
    """(NUM_BINS,) in the run's own part; None: it has no such videos."""


def in_words(change: Change) -> str:
    """Whether a figure changed by more than chance."""
    if change.difference_interval is None:
        return ""
    low, high = change.difference_interval
    if high < 0:
        return "lower"
    return "higher" if low > 0 else "within chance"


def find_steps(causes: Causes, own: Scored, here: Scored) -> list[Step]:
    """The parts of the fall, from the run's own figure down to the one of this set."""
    name = causes.metric
    at_separation = causes.own - causes.class_mix.value

    def cost(loss: Loss) -> str:
        return f"this {'lowers' if loss.value >= 0 else 'raises'} {name}"

    worse = "worse" if causes.separation.value >= 0 else "better"
    return [
        Step(
            name="class mix",
            start=causes.own,
            end=at_separation,
            interval=_negated(causes.class_mix.interval),
            sentence=f"{percent(own.share_harmful)} of its own videos are harmful and {percent(here.share_harmful)} of "
            f"these; with scores that separate the classes as before, {cost(causes.class_mix)}.",
            advice="The head is not at fault. Look at precision at the real prevalence, in the next section.",
        ),
        Step(
            name="separation",
            start=at_separation,
            end=causes.best,
            interval=_negated(causes.separation.interval),
            sentence=f"The scores separate harmful from safe videos {worse} than on its own videos; "
            f"{cost(causes.separation)} at the best threshold.",
            advice="Label more videos of this kind and train on them too; no other threshold can mend it.",
        ),
        Step(
            name="threshold",
            start=causes.best,
            end=causes.here,
            interval=_negated(causes.threshold.interval),
            sentence=f"The best threshold for this set is {causes.best_threshold:.3f}; with the frozen one, "
            f"{name} is lower."
            if causes.threshold.value > 0
            else "No other threshold is better for this set.",
            advice="Choose the threshold again on labelled videos of this kind; the head can stay as it is.",
        ),
    ]


def largest(steps: list[Step]) -> Step | None:
    """The step that lowers F1 most; None: no step lowers it."""
    step = min(steps, key=lambda step: step.change)
    return step if step.change < 0 else None


def curve_points(evaluation: Evaluation) -> list[AtPrevalence]:
    """The points of the prevalence curve, with those that were asked for, by ascending prevalence."""
    points = {point.prevalence: point for point in [*evaluation.prevalence_curve, *evaluation.prevalences]}
    return [points[prevalence] for prevalence in sorted(points)]


def first_point(evaluation: Evaluation, points: list[AtPrevalence]) -> int:
    """Index of the point that the slider starts at: one that was asked for, else the closest to the estimate."""
    estimate = evaluation.estimate.value if evaluation.estimate else None
    asked = evaluation.prevalences[0].prevalence if evaluation.prevalences else None
    wanted = next(value for value in (asked, estimate, USUAL_PREVALENCE) if value is not None)
    return int(np.argmin([abs(point.prevalence - wanted) for point in points]))


def slice_tables(slices: list[Slice]) -> list[SliceTable]:
    """A table for each kind. Bands of duration and resolution keep their order, others go by share of mistakes."""
    tables = []
    for by in dict.fromkeys(each.subset.by for each in slices):
        rows = [each for each in slices if each.subset.by == by]
        is_band = by in {"duration", "resolution"}
        rows.sort(key=lambda each: (not each.is_worse, 0 if is_band else -each.mistakes))
        tables.append(
            SliceTable(by=by, rows=rows[:MAX_SLICES_OF_A_KIND], num_left_out=len(rows[MAX_SLICES_OF_A_KIND:]))
        )
    return tables


def shown_disagreements(evaluation: Evaluation) -> list[DisagreementRow]:
    """The disagreements that the page lists, the most confident first: those that it needs thumbnails of."""
    here = evaluation.here
    return [
        DisagreementRow(
            id=str(evaluation.ids[each.row]),
            label=int(here.labels[each.row]),
            score=float(here.scores[each.row]),
            is_flagged=bool(here.scores[each.row] >= here.thresholds[each.row]),
            calibrated=float(here.calibrated[each.row]),
            disagreement=each,
        )
        for each in evaluation.disagreements[:MAX_DISAGREEMENTS]
    ]


def score_histograms(evaluation: Evaluation) -> tuple[list[float], list[Histogram]]:
    """(NUM_BINS + 1,) edges, and a histogram for each class that has videos in this set."""
    here, own, threshold = evaluation.here, evaluation.own, evaluation.run.threshold
    own_scores = on_one_scale(own.scores, own.thresholds, threshold) if own is not None else np.zeros(0)
    own_labels = own.labels if own is not None else np.zeros(0)
    here_scores = on_one_scale(here.scores, here.thresholds, threshold)
    scores = np.concatenate([own_scores, here_scores, evaluation.unlabelled.scores, [threshold]])
    low, high = float(scores.min()), float(scores.max())
    if high - low < ROUNDING:
        low, high = max(low - 0.01, 0), min(high + 0.01, 1)
    edges = np.linspace(low, high, NUM_BINS + 1)

    def shares(values: np.ndarray) -> list[float] | None:
        return (np.histogram(values, edges)[0] / len(values)).round(5).tolist() if len(values) else None

    found = [
        Histogram(name=name, here=bins, own=shares(own_scores[own_labels == label]))
        for name, label in [("harmful", HARMFUL), ("safe", SAFE)]
        if (bins := shares(here_scores[here.labels == label])) is not None
    ]
    unlabelled = shares(evaluation.unlabelled.scores)
    if unlabelled is not None:
        found.append(Histogram(name="unlabelled", here=unlabelled, own=None))
    return edges.tolist(), found


def _negated(interval: Interval | None) -> Interval | None:
    return None if interval is None else (-interval[1], -interval[0])
