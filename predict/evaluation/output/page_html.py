"""Writes the page of an evaluation: one HTML file that needs no network and no other file.

Its own templates, style and scripts are in `page_files/`; `haechi.train.output.html` puts them into one file with those
that the page of a run has too.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from haechi.predict.evaluation.evaluation import Evaluation, RunFacts
from haechi.predict.evaluation.fall import Change
from haechi.predict.evaluation.output import page
from haechi.predict.evaluation.output.headline import headline, num_flagged_unlabelled, own_place
from haechi.predict.evaluation.prevalence import PER_VIDEOS, AtPrevalence
from haechi.train.evaluate.bootstrap import Interval
from haechi.train.evaluate.calibration import Reliability
from haechi.train.evaluate.metrics import page_metrics
from haechi.train.output.html import data_uri, write_html
from haechi.train.output.page import MANY_VIDEOS
from haechi.train.output.page_numbers import figure, figure_interval, percent

TEMPLATE = "evaluation.html.j2"
STYLES = ["evaluation.css"]
SCRIPTS = ["evaluation_charts.js", "dials.js"]

PRECISION_DIGITS = 3  # where harmful videos are rare, precision is a small number


def write_page(
    path: Path, evaluation: Evaluation, *, title: str, command: str, thumbnails: Mapping[str, bytes]
) -> None:
    """Write the page as one HTML file of about 5 MB, nearly all of it Plotly.

    `thumbnails` are JPEGs of disagreements (`page.shown_disagreements`) by id; a video without one is shown without a
    picture. Raises `OSError` where `path` cannot be written.
    """
    digits = 2 if len(evaluation.here) < MANY_VIDEOS else 3
    changes = _in_page_order(evaluation.changes)
    steps = (
        page.find_steps(evaluation.causes, evaluation.own, evaluation.here)
        if evaluation.causes and evaluation.own
        else []
    )
    points = page.curve_points(evaluation)
    disagreements = page.shown_disagreements(evaluation)
    data = {
        "digits": digits,
        "own_title": own_title(evaluation.run),
        "per_videos": PER_VIDEOS,
        "changes": [_change_data(change) for change in changes],
        "causes": _causes_data(evaluation, steps),
        "reliability": _reliability_data(evaluation),
        "histogram": _histogram_data(evaluation),
        "dials": _dials(evaluation, points, digits),
        "asked": [asdict(point) for point in evaluation.prevalences],
        "share_here": evaluation.here.share_harmful if len(evaluation.here) else None,
        "budgets": [{"reviewed": budget.reviewed, "found": budget.found} for budget in evaluation.budgets],
        "num_videos": len(evaluation.here),
        "num_harmful": evaluation.here.num_harmful,
    }
    write_html(
        path,
        TEMPLATE,
        package=__package__,
        styles=STYLES,
        scripts=SCRIPTS,
        data=data,
        title=title,
        command=command,
        untrained=evaluation.run.untrained,
        evaluation=evaluation,
        run=evaluation.run,
        facts=evaluation.data,
        here=evaluation.here,
        own=evaluation.own,
        figures=evaluation.figures,
        digits=digits,
        headline=headline(evaluation),
        own_title=own_title(evaluation.run),
        own_place=own_place(evaluation.run),
        changes=changes,
        in_words=page.in_words,
        steps=steps,
        largest=page.largest(steps) if steps else None,
        points=points,
        num_flagged_unlabelled=num_flagged_unlabelled(evaluation),
        per_videos=PER_VIDEOS,
        expected=_expected,
        expected_interval=_expected_interval,
        slice_tables=page.slice_tables(evaluation.slices),
        worse=[each for each in evaluation.slices if each.is_worse],
        disagreements=disagreements,
        max_pairs=page.MAX_PAIRS,
        pictures={row.id: data_uri(thumbnails[row.id]) for row in disagreements if row.id in thumbnails},
    )


def own_title(run: RunFacts) -> str:
    """Where the run's own figures are from, as the title of a column."""
    return "Cross-validation" if run.is_folds else {"test": "Own test", "val": "Own validation"}[run.part]


def _in_page_order(changes: list[Change]) -> list[Change]:
    by_name = {change.metric.name: change for change in changes}
    return [by_name[metric.name] for metric in page_metrics() if metric.name in by_name]


def _change_data(change: Change) -> dict[str, Any]:
    return {
        "name": change.metric.heading,
        "own": change.own,
        "own_interval": change.own_interval,
        "here": change.here,
        "here_interval": change.here_interval,
        "words": page.in_words(change),
    }


def _causes_data(evaluation: Evaluation, steps: list[page.Step]) -> dict[str, Any] | None:
    causes = evaluation.causes
    if causes is None or not steps:
        return None
    return {
        "metric": causes.metric,
        "own": causes.own,
        "here": causes.here,
        "steps": [
            {
                "name": step.name,
                "start": step.start,
                "end": step.end,
                "change": step.change,
                "interval": step.interval,
            }
            for step in steps
        ],
    }


def _reliability_data(evaluation: Evaluation) -> dict[str, Any] | None:
    if evaluation.reliability is None:
        return None

    def both(own: Reliability | None, here: Reliability) -> dict[str, Any]:
        return {"own": asdict(own) if own else None, "here": asdict(here)}

    own = evaluation.own_reliability or (None, None)
    return {
        "before": both(own[0], evaluation.reliability[0]),
        "after": both(own[1], evaluation.reliability[1]),
    }


def _histogram_data(evaluation: Evaluation) -> dict[str, Any] | None:
    edges, histograms = page.score_histograms(evaluation)
    if not histograms:
        return None
    return {
        "edges": edges,
        "threshold": evaluation.run.threshold,
        "classes": [asdict(histogram) for histogram in histograms],
    }


def _dials(evaluation: Evaluation, points: list[AtPrevalence], digits: int) -> dict[str, Any]:
    """The sliders: the points of each, what the page says at each point, and the point that it starts at."""
    dials: dict[str, Any] = {}
    if points:
        dials["prevalence"] = {
            "start": page.first_point(evaluation, points),
            "points": [asdict(point) for point in points],
            "texts": [_prevalence_texts(point) for point in points],
        }
    curve = evaluation.budget_curve
    if len(curve) > 1 and evaluation.here.num_harmful:
        wanted = evaluation.budgets[0].reviewed if evaluation.budgets else len(evaluation.here) // 10
        dials["budget"] = {
            "start": min(range(len(curve)), key=lambda i: abs(curve[i][0] - wanted)),
            "points": [{"reviewed": reviewed, "found": found} for reviewed, found in curve],
            "texts": [_budget_texts(evaluation, reviewed, found, digits) for reviewed, found in curve],
        }
    return dials


def _prevalence_texts(point: AtPrevalence) -> dict[str, str]:
    harmful, alerts, misses = (_expected(n) for n in (PER_VIDEOS * point.prevalence, point.alerts, point.misses))
    precision = figure(point.precision, PRECISION_DIGITS)
    return {
        "value": percent(point.prevalence),
        "precision": precision,
        "precision-interval": figure_interval(point.precision_interval, PRECISION_DIGITS),
        "alerts": alerts,
        "alerts-interval": _expected_interval(point.alerts_interval),
        "misses": misses,
        "misses-interval": _expected_interval(point.misses_interval),
        "words": f"Of {PER_VIDEOS:,} videos, {harmful} of them harmful ({percent(point.prevalence)}), it flags "
        f"{alerts} with a precision of {precision}, and misses {misses} harmful ones.",
    }


def _budget_texts(evaluation: Evaluation, reviewed: int, found: float, digits: int) -> dict[str, str]:
    total, harmful = len(evaluation.here), evaluation.here.num_harmful
    return {
        "value": f"{reviewed:,}",
        "share": percent(found / harmful),
        "precision": figure(found / reviewed if reviewed else None, digits),
        "words": f"Reviewing the {reviewed:,} highest of {total:,} videos finds {_expected(found)} of {harmful:,} "
        "harmful ones.",
    }


def _expected(number: float) -> str:
    """An expected number of videos: with one decimal below 10."""
    return f"{number:.1f}".removesuffix(".0") if number < 9.95 else f"{number:,.0f}"


def _expected_interval(interval: Interval | None) -> str:
    return f"{_expected(interval[0])} to {_expected(interval[1])}" if interval else ""
