"""Writes the page of a run: one HTML file that needs no network and no other file.

The templates, the style and the scripts are in `page_files/`; `haechi.train.output.html` puts them into one file.
"""

import math
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import precision_recall_curve, roc_curve

from haechi.train.evaluate.metrics import Figures, page_metrics
from haechi.train.evaluate.subsets import Subset
from haechi.train.output.html import data_uri, write_html
from haechi.train.output.one_scale import on_one_scale
from haechi.train.output.page import Page, ScoredVideo
from haechi.train.output.titles import BASELINE_TITLES
from haechi.train.output.verdict import NOTE
from haechi.train.result import Fold

TEMPLATE = "report.html.j2"
SCRIPTS = ["figures.js", "training.js", "charts.js", "explorer.js"]

# Longer tables are cut; metrics.json holds all rows.
MAX_GROUPS_SHOWN, MAX_PAIRS = 30, 50

NUM_BINS = 25  # of the histogram of scores
MIN_STEPS = 100  # of the slider, over all scores: with fewer, one step would pass too many videos
CURVE_DIGITS = 5  # finer than a pixel
MAX_CURVE_POINTS = 4000  # more than the pixels of a chart


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Range of the threshold slider, from `low` to `high` in steps of 1, in units of 10 ** -`digits`."""

    low: int
    """At this end all videos are flagged."""
    high: int
    """At this end no video is flagged."""
    digits: int


@dataclass(frozen=True, kw_only=True)
class SubsetTable:
    """Subsets of one kind, as the page lists them."""

    by: str
    """`group`, `duration` or `resolution`."""
    rows: list[Subset]
    num_left_out: int
    """Subsets that the page does not list."""


def write_page(path: Path, page: Page) -> None:
    """Write `page` as one HTML file of about 5 MB, nearly all of it Plotly.

    Raises `OSError` where `path` cannot be written.
    """
    metrics, scale = page_metrics(), _scale(page)
    write_html(
        path,
        TEMPLATE,
        scripts=SCRIPTS,
        data=_data(page, scale),
        title=page.title,
        command=page.command,
        untrained=page.data.untrained,
        page=page,
        metrics=metrics,
        tiles=[metric for metric in metrics if metric.is_page_tile],
        baseline_titles=BASELINE_TITLES,
        warnings=[finding for finding in page.findings if finding.is_warning],
        findings_note=NOTE,
        policy=page.threshold.policy.goal,
        pictures={
            video.id: data_uri(page.thumbnails[video.id]) for video in page.mistakes if video.id in page.thumbnails
        },
        subset_tables=_subset_tables(page.subsets),
        spreads={metric.name: _fold_spread(metric.name, page.folds) for metric in metrics},
        max_pairs=MAX_PAIRS,
        scale=scale,
    )


def _data(page: Page, scale: Scale) -> dict[str, Any]:
    """What the scripts draw: numbers, and names that come from Haechi itself, no text from outside."""
    heads = [(f"fold {fold.number}", fold.best_epoch, fold.epochs) for fold in page.folds]
    return {
        "headline": page.headline,
        "threshold": page.threshold.value,
        "bound": asdict(page.threshold.policy.bound) if page.threshold.policy.bound else None,
        "digits": page.digits,
        "scale": asdict(scale),
        "part_names": {part: page.videos_of(part) for part in page.parts},
        "parts": {part: _part_data(page, part, page.figures[part], scale) for part in page.parts},
        "calibration": {"before": asdict(page.reliability[0]), "after": asdict(page.reliability[1])},
        "heads": [
            {
                "name": name,
                "best_epoch": best_epoch,
                "epochs": [
                    {
                        "number": epoch.number,
                        "train_loss": epoch.train_loss,
                        "val_loss": epoch.val_loss,
                        "f1": epoch.best.f1,
                        "threshold": epoch.best.threshold,
                    }
                    for epoch in epochs
                ],
            }
            for name, best_epoch, epochs in heads or [("", page.best_epoch, page.epochs)]
        ],
    }


def _part_data(page: Page, part: str, figures: Figures, scale: Scale) -> dict[str, Any]:
    videos = page.part(part)
    scores = _scores(videos, page.threshold.value)
    labels = np.array([video.label for video in videos])  # (N,)
    folds = sorted({video.fold for video in videos if video.fold is not None})
    edges = np.linspace(scale.low, scale.high, NUM_BINS + 1) / 10**scale.digits
    return {
        "count": {"harmful": int((labels == 1).sum()), "safe": int((labels == 0).sum())},
        "flagged": _flagged(scores, labels, page.threshold.value, scale),
        "average_precision": figures["average_precision"],
        "roc_auc": figures["roc_auc"],
        "curves": _curves(scores, labels),
        "folds": [
            {"name": f"fold {fold}", "curves": _curves(scores[rows], labels[rows])}
            for fold in folds
            if len(rows := np.flatnonzero([video.fold == fold for video in videos]))
        ],
        "histogram": {
            "edges": edges.tolist(),
            "harmful": np.histogram(scores[labels == 1], edges)[0].tolist(),
            "safe": np.histogram(scores[labels == 0], edges)[0].tolist(),
        },
    }


def _flagged(scores: np.ndarray, labels: np.ndarray, threshold: float, scale: Scale) -> dict[str, Any]:
    """Of each class the number of videos that are flagged: `chosen` at the threshold, `steps` at those of the slider.

    They are exact however many videos there are, and the page holds no score.
    """
    steps = np.arange(scale.low, scale.high + 1) / 10**scale.digits
    found = {}
    for name, label in (("harmful", 1), ("safe", 0)):
        ordered = np.sort(scores[labels == label])
        found[name] = {
            "chosen": int(len(ordered) - np.searchsorted(ordered, threshold)),
            "steps": (len(ordered) - np.searchsorted(ordered, steps)).tolist(),
        }
    return found


def _scores(videos: list[ScoredVideo], threshold: float) -> np.ndarray:
    """(N,) the scores, on a scale that all folds share."""
    return on_one_scale(
        np.array([video.score for video in videos]), np.array([video.threshold for video in videos]), threshold
    )


def _curves(scores: np.ndarray, labels: np.ndarray) -> dict[str, list[float]] | None:
    """Precision-recall and ROC curves of `scores` (N,) and `labels` (N,); None where all labels are equal."""
    if len(set(labels.tolist())) < 2:
        return None
    precision, recall, _ = precision_recall_curve(labels, scores, drop_intermediate=True)
    false_positive_rate, true_positive_rate, _ = roc_curve(labels, scores)
    curves = {
        "precision": precision,
        "recall": recall,
        "false_positive_rate": false_positive_rate,
        "true_positive_rate": true_positive_rate,
    }
    return {name: _thinned(np.round(values, CURVE_DIGITS)) for name, values in curves.items()}


def _thinned(values: np.ndarray) -> list[float]:
    """At most `MAX_CURVE_POINTS` of the points of a curve, evenly spaced, from first to last."""
    chosen = np.linspace(0, len(values) - 1, min(len(values), MAX_CURVE_POINTS)).astype(int)
    thinned: list[float] = values[chosen].tolist()
    return thinned


def _scale(page: Page) -> Scale:
    videos = [video for part in page.parts for video in page.part(part)]
    scores = [page.threshold.value, *_scores(videos, page.threshold.value).tolist()]
    spread = max(scores) - min(scores)
    digits = next(d for d in range(3, 9) if spread * 10**d >= MIN_STEPS or d == 8)
    unit = 10**digits
    low, high = math.floor(min(scores) * unit), min(math.floor(max(scores) * unit) + 1, unit)
    return Scale(low=low, high=high, digits=digits)


def _subset_tables(subsets: list[Subset]) -> list[SubsetTable]:
    """Tables of at most `MAX_GROUPS_SHOWN` groups, most mistakes first, of durations and of resolutions."""

    def key(subset: Subset) -> tuple[int, int]:
        mistakes = (subset.figures["false_positive"] or 0) + (subset.figures["false_negative"] or 0)
        return -int(mistakes), -subset.count

    tables = []
    for by in dict.fromkeys(subset.by for subset in subsets):
        rows = [subset for subset in subsets if subset.by == by]
        shown = sorted(rows, key=key)[:MAX_GROUPS_SHOWN] if by == "group" else rows
        tables.append(SubsetTable(by=by, rows=shown, num_left_out=len(rows) - len(shown)))
    return tables


def _fold_spread(name: str, folds: list[Fold]) -> tuple[float, float] | None:
    """Mean and standard deviation of a metric over the folds where it is defined; None with fewer than two of them."""
    values = [value for fold in folds if (value := fold.figures[name]) is not None]
    return (statistics.mean(values), statistics.stdev(values)) if len(values) > 1 else None
