"""Better, worse, or not distinguishable: in ranking and in decisions apart."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from haechi.train.grid import plan_trials
from haechi.train.output.console import outcome_line, show_findings
from haechi.train.output.experiments import Outcome
from haechi.train.output.page_html import write_page
from haechi.train.output.verdict import NOTE, Finding, find, verdict
from haechi.train.result import Baseline, Result
from tests.train import runs
from tests.train.output.pages import example


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A run on 80 videos, all in the test part."""
    path = tmp_path_factory.mktemp("verdict") / "cache"
    result = runs.finish(path, num_harmful=40, num_safe=40, shift=0.0, splits={})
    names = np.full(len(result.labels), "test", dtype=object)
    return dataclasses.replace(result, split=dataclasses.replace(result.split, names=names))


def scores_of(labels: np.ndarray, *, gap: float) -> np.ndarray:
    """Scores of which harmful videos have `gap` more."""
    noise = np.random.default_rng(0).random(len(labels))
    return (labels * gap + noise) / (1 + gap)


def compared(
    result: Result, ours: np.ndarray, theirs: np.ndarray, *, at: float = 0.5, their_threshold: float = 0.5
) -> Result:
    """The run with other scores and thresholds of the head and of logistic regression."""
    num = len(result.labels)
    rival = Baseline(scores=theirs, thresholds=np.full(num, their_threshold))
    baselines = {"majority": result.baselines["majority"], "logistic_regression": rival}
    return dataclasses.replace(result, scores=ours, thresholds=np.full(num, at), baselines=baselines)


def outcomes(findings: list[Finding]) -> list[tuple[str, str, str]]:
    return [(finding.baseline, finding.aspect, finding.outcome) for finding in findings]


def test_each_outcome_with_its_numbers(finished: Result) -> None:
    good, bad = scores_of(finished.labels, gap=1.0), scores_of(1 - finished.labels, gap=0.1)
    better, worse = find(compared(finished, good, bad)), find(compared(finished, bad, good))
    assert outcomes(better) == [
        ("logistic_regression", "ranking", "better"),
        ("logistic_regression", "decisions", "better"),
        ("majority", "ranking", "better"),
        ("majority", "decisions", "better"),
    ]
    assert outcomes(worse)[:2] == [
        ("logistic_regression", "ranking", "worse"),
        ("logistic_regression", "decisions", "worse"),
    ]
    text, auc = verdict(better), better[0].differences[0]
    assert text.startswith(
        f"Better in ranking than logistic regression: ROC AUC {auc.head:.3f} against {auc.baseline:.3f} (difference "
        f"{auc.head - auc.baseline:+.3f}, 95 % interval {auc.interval[0]:+.3f} to {auc.interval[1]:+.3f}), average prec"
    )
    assert "Better in decisions than the majority class: F1 " in text
    assert text.endswith(NOTE)
    assert "Try" not in text
    assert [finding.is_warning for finding in worse] == [True, False, False, False]


def test_a_gain_in_decisions_does_not_hide_a_loss_in_ranking(finished: Result, tmp_path: Path) -> None:
    good = scores_of(finished.labels, gap=1.0)
    poor = np.where(np.arange(len(good)) % 3 == 0, 1 - good, good)
    result = compared(finished, poor, good, at=0.5, their_threshold=0.99)  # a threshold that finds nearly nothing
    ranking, decisions = find(result)[:2]
    assert (ranking.outcome, decisions.outcome) == ("worse", "better")
    assert ranking.details.endswith("Try fewer epochs (--epochs, here 3) or another preset (--preset, here model4).")
    console = Console(record=True, width=500)
    show_findings(console, find(result))
    first, second, *_ = console.export_text().splitlines()
    assert first.startswith("Worse in ranking than logistic regression: ROC AUC ")
    assert second.startswith("Better in decisions than logistic regression: F1 ")
    write_page(tmp_path / "report.html", dataclasses.replace(example(), findings=find(result)))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.index("Worse in ranking than logistic regression") < page.index("<h1")
    assert page.count("Worse in ranking than logistic regression") == 1
    outcome = Outcome.of(plan_trials("model4", {}, grid=(), num_seeds=1)[0], result)
    outcome = dataclasses.replace(outcome, figures={"val": outcome.figures["test"]})
    assert "Worse in ranking than logistic regression" in outcome_line(outcome)


def test_one_worse_metric_is_enough(finished: Result) -> None:
    ranking, *_ = find(compared(finished, *(scores_of(finished.labels, gap=gap) for gap in (0.1, 1.0))))
    auc, precision = ranking.differences
    mixed = dataclasses.replace(
        ranking,
        differences=[
            dataclasses.replace(auc, interval=(0.01, 0.02)),
            dataclasses.replace(precision, interval=(-0.02, -0.01)),
        ],
    )
    assert mixed.claim == "Worse in ranking than logistic regression"
    assert mixed.details.startswith("average precision ")
    assert "+0.020, better)" in mixed.details


def test_equal_scores_are_the_regression_itself(finished: Result) -> None:
    scores = scores_of(finished.labels, gap=0.3)
    rounded = scores.astype(np.float32).astype(np.float64)
    ranking, decisions, *_ = find(compared(finished, rounded, scores))
    auc, precision = (f"{each.metric.title} {each.head:.3f}" for each in ranking.differences)
    assert verdict([ranking]).startswith(
        f"The head is its logistic regression: nothing else improved it on validation ({auc}, {precision}). "
    )
    assert decisions.claim == "Its decisions are those of logistic regression too"
    other = find(compared(finished, rounded, scores, their_threshold=0.7))[1]
    assert not other.is_equal
    assert "against" in other.details


def test_chance_is_not_distinguishable(finished: Result) -> None:
    rng = np.random.default_rng(1)
    ranking, *_ = find(compared(finished, rng.random(80), rng.random(80)))
    assert ranking.claim == "Not distinguishable in ranking from logistic regression"
    assert not ranking.is_warning


def test_without_both_classes_nothing_can_be_compared(finished: Result) -> None:
    result = compared(finished, scores_of(finished.labels, gap=0.5), scores_of(finished.labels, gap=0.1))
    names = np.where(result.labels == 1, "test", "train").astype(object)
    result = dataclasses.replace(result, split=dataclasses.replace(result.split, names=names))
    ranking, *_ = find(result)
    assert ranking.outcome == "undefined"
    assert f"{ranking.claim}: {ranking.details}" == (
        "Cannot be compared in ranking with logistic regression: a figure, or the interval of the difference, is "
        "undefined on these videos."
    )
