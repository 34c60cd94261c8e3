"""How a head compares with the baselines on the same videos: better, worse, or not distinguishable.

Ranking (by the scores alone) and decisions (at the chosen thresholds) are compared apart: a better threshold must not
hide scores that separate the classes worse.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from haechi.train.evaluate import metrics
from haechi.train.evaluate.bootstrap import Interval
from haechi.train.evaluate.metrics import Metric
from haechi.train.output.titles import BASELINE_NAMES
from haechi.train.result import Result

BETTER, WORSE, NOT_DISTINGUISHABLE, UNDEFINED = "better", "worse", "not distinguishable", "undefined"

RANKING, DECISIONS = "ranking", "decisions"

# The baseline that is compared first: a head must at least rank as well as it.
REGRESSION = "logistic_regression"

# Scores closer than this are equal: a head computes its logits in float32, in other batches than the regression.
EQUAL_SCORES = 1e-6

NOTE = (
    "Ranking compares the scores alone, decisions compare them at the chosen thresholds. Better and worse mean that "
    "the 95 % bootstrap interval of the difference does not contain 0."
)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A metric of the head and of a baseline on the headline part."""

    metric: Metric
    head: float
    baseline: float
    interval: Interval
    """95 % bootstrap interval of the head's value minus the baseline's."""

    @property
    def value(self) -> float:
        """The head's value minus the baseline's."""
        return self.head - self.baseline

    @property
    def outcome(self) -> str:
        """`BETTER` or `WORSE` where the interval does not contain 0."""
        low, high = self.interval
        return BETTER if low > 0 else WORSE if high < 0 else NOT_DISTINGUISHABLE

    def text(self, expected: str) -> str:
        """All its numbers, and its outcome unless that is the expected one."""
        low, high = self.interval
        differing = "" if self.outcome == expected else f", {self.outcome}"
        return (
            f"{self.metric.title} {self.head:.3f} against {self.baseline:.3f} (difference {self.value:+.3f}, "
            f"95 % interval {low:+.3f} to {high:+.3f}{differing})"
        )


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The head against one baseline, in ranking or in decisions."""

    baseline: str
    """A key of `BASELINE_NAMES`."""
    aspect: str
    """`RANKING` or `DECISIONS`"""
    differences: list[Difference]
    """Of the metrics that are defined for both."""
    is_equal: bool
    """Whether the head's scores are those of its own regression, and for decisions the thresholds too."""
    advice: str
    """What to do where `is_warning`."""

    @property
    def outcome(self) -> str:
        """`WORSE` if any metric is worse, else `BETTER` if any is better."""
        outcomes = {each.outcome for each in self.differences}
        order = (WORSE, BETTER, NOT_DISTINGUISHABLE)
        return next((outcome for outcome in order if outcome in outcomes), UNDEFINED)

    @property
    def is_warning(self) -> bool:
        """Whether it is worse in ranking than logistic regression, which must be said first."""
        return (self.baseline, self.aspect, self.outcome) == (REGRESSION, RANKING, WORSE)

    @property
    def claim(self) -> str:
        """The outcome in words."""
        baseline, aspect = BASELINE_NAMES[self.baseline], self.aspect
        if self.is_equal:
            return (
                "The head is its logistic regression"
                if aspect == RANKING
                else "Its decisions are those of logistic regression too"
            )
        return {
            BETTER: f"Better in {aspect} than {baseline}",
            WORSE: f"Worse in {aspect} than {baseline}",
            NOT_DISTINGUISHABLE: f"Not distinguishable in {aspect} from {baseline}",
            UNDEFINED: f"Cannot be compared in {aspect} with {baseline}",
        }[self.outcome]

    @property
    def details(self) -> str:
        """The numbers behind the claim, and what to do."""
        if not self.differences:
            return "a figure, or the interval of the difference, is undefined on these videos."
        if self.is_equal:
            numbers = ", ".join(f"{each.metric.title} {each.head:.3f}" for each in self.differences)
            if self.aspect == RANKING:
                return f"nothing else improved it on validation ({numbers})."
            return f"{numbers}."
        ordered = sorted(self.differences, key=lambda each: each.outcome != self.outcome)
        numbers = ", ".join(each.text(self.outcome) for each in ordered)
        return f"{numbers}. {self.advice}" if self.is_warning else f"{numbers}."

    def record(self) -> dict[str, Any]:
        """This finding as metrics.json holds it."""
        return {
            "baseline": self.baseline,
            "aspect": self.aspect,
            "outcome": self.outcome,
            "is_equal": self.is_equal,
            "metrics": {
                each.metric.name: {
                    "head": each.head,
                    "baseline": each.baseline,
                    "difference": each.value,
                    "interval": each.interval,
                    "outcome": each.outcome,
                }
                for each in self.differences
            },
        }


def find(result: Result) -> list[Finding]:
    """Ranking and decisions against logistic regression, then against the majority class, on the headline part.

    So a warning comes first.
    """
    names = sorted(result.baselines, key=lambda name: name != REGRESSION)
    return [_finding(result, name, aspect) for name in names for aspect in (RANKING, DECISIONS)]


def verdict(findings: list[Finding]) -> str:
    """The findings as text."""
    return " ".join([*(f"{finding.claim}: {finding.details}" for finding in findings), NOTE])


def _finding(result: Result, name: str, aspect: str) -> Finding:
    baseline, settings = result.baselines[name], result.settings
    is_equal = name == REGRESSION and bool(np.abs(result.scores - baseline.scores).max() < EQUAL_SCORES)
    return Finding(
        baseline=name,
        aspect=aspect,
        differences=_differences(result, name, aspect),
        is_equal=is_equal and (aspect == RANKING or np.array_equal(result.thresholds, baseline.thresholds)),
        advice=f"Try fewer epochs (--epochs, here {settings.epochs}) or another preset (--preset, here "
        f"{settings.preset})."
        if settings.network
        else f"Try another preset (--preset, here {settings.preset}).",
    )


def _differences(result: Result, name: str, aspect: str) -> list[Difference]:
    figures, baseline = result.metrics[result.headline], result.baseline_metrics[name][result.headline]
    found = []
    for metric in metrics.page_metrics():
        ours, theirs, lead = figures[metric.name], baseline[metric.name], result.lead[name][metric.name]
        is_wanted = metric.is_in_verdict and metric.uses_scores == (aspect == RANKING)
        if is_wanted and ours is not None and theirs is not None and lead is not None:
            found.append(Difference(metric=metric, head=ours, baseline=theirs, interval=lead))
    return found
