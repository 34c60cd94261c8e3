"""Writes the page of a run: one HTML file that needs no network and no other file.

The templates, the style and the scripts are in `page_files/`. The scripts draw the charts with Plotly, which is copied
into the page. Ids, groups, paths and messages come from outside: each goes through `haechi.cache.text.visible` and
Jinja's escaping, none goes into a script, and the page's Content-Security-Policy blocks all other scripts and all
requests.
"""

import base64
import hashlib
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup
from plotly.offline import get_plotlyjs
from scipy.special import expit, logit
from sklearn.metrics import precision_recall_curve, roc_curve

from haechi.cache.text import visible
from haechi.train.evaluate.metrics import Figures, page_metrics
from haechi.train.evaluate.subsets import Subset
from haechi.train.output.page import Page, ScoredVideo
from haechi.train.output.titles import BASELINE_TITLES, SPLIT_TITLES
from haechi.train.output.verdict import NOTE
from haechi.train.result import Fold

TEMPLATE = "report.html.j2"
SCRIPTS = ("figures.js", "training.js", "charts.js", "explorer.js", "sorting.js")

# Longer tables are cut; metrics.json holds all rows.
MAX_GROUPS_SHOWN, MAX_PAIRS = 30, 50

NUM_BINS = 25  # of the histogram of scores
MIN_STEPS = 100  # of the slider, over all scores: with fewer, one step would pass too many videos
TINY = 1e-12  # scores and thresholds are clipped to this distance from 0 and 1, so that their logits are finite
CURVE_DIGITS = 5  # finer than a pixel

BACKBONE_TITLES = {"clip": "CLIP", "slowfast": "SlowFast"}


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
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("haechi.train.output", "page_files"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.filters |= {"figure": _figure, "interval": _interval, "part": _split_title, "count": _count}
    scripts = [get_plotlyjs(), "\n".join(_asset(environment, name) for name in SCRIPTS)]
    metrics, scale = page_metrics(), _scale(page)
    text = environment.get_template(TEMPLATE).render(
        page=page,
        data=htmlsafe_json_dumps(_data(page, scale), allow_nan=False, separators=(",", ":")),
        style=Markup(_asset(environment, "style.css")),  # noqa: S704 (ours)
        scripts=[Markup(script) for script in scripts],  # noqa: S704 (ours and Plotly's)
        content_policy=_content_policy(scripts),
        metrics=metrics,
        tiles=[metric for metric in metrics if metric.is_page_tile],
        backbones=[BACKBONE_TITLES.get(name, name) for name in page.data.untrained],
        baseline_titles=BASELINE_TITLES,
        warnings=[finding for finding in page.findings if finding.is_warning],
        findings_note=NOTE,
        policy=page.threshold.policy.goal,
        pictures={
            video.id: _data_uri(page.thumbnails[video.id]) for video in page.mistakes if video.id in page.thumbnails
        },
        subset_tables=_subset_tables(page.subsets),
        spreads={metric.name: _fold_spread(metric.name, page.folds) for metric in metrics},
        max_pairs=MAX_PAIRS,
        scale=scale,
    )
    path.write_text(text, encoding="utf-8")


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
    scores = np.array([_common_score(video, page.threshold.value) for video in videos])  # (N,)
    labels = np.array([video.label for video in videos])  # (N,)
    folds = sorted({video.fold for video in videos if video.fold is not None})
    edges = np.linspace(scale.low, scale.high, NUM_BINS + 1) / 10**scale.digits
    return {
        "score": scores.tolist(),
        "label": labels.tolist(),
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


def _common_score(video: ScoredVideo, threshold: float) -> float:
    """The score on a scale that all folds share: its logit is shifted so that the video's threshold is at `threshold`.

    Rounding cannot change a decision: the result is at least `threshold` exactly where the prediction is 1.
    """
    if video.threshold == threshold:
        return video.score
    logits = [logit(min(max(p, TINY), 1 - TINY)) for p in (video.score, video.threshold, threshold)]
    score = float(expit(logits[0] - logits[1] + logits[2]))
    return max(score, threshold) if video.prediction else min(score, math.nextafter(threshold, -1))


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
    return {name: np.round(values, CURVE_DIGITS).tolist() for name, values in curves.items()}


def _scale(page: Page) -> Scale:
    videos = [video for part in page.parts for video in page.part(part)]
    scores = [page.threshold.value, *(_common_score(video, page.threshold.value) for video in videos)]
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


def _figure(value: float | None, digits: int) -> str:
    """Rounded as JavaScript's `toFixed` rounds, halves up, so that template and scripts show the same text."""
    if value is None:
        return "–"
    return str(Decimal(value).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP))


def _interval(interval: Sequence[float] | None, digits: int) -> str:
    return f"{_figure(interval[0], digits)} to {_figure(interval[1], digits)}" if interval else ""


def _split_title(part: str) -> str:
    return SPLIT_TITLES[part]


def _count(number: int, noun: str = "") -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}" if noun else f"{number:,}"


def _finalize(value: Any) -> Any:
    """Applied to every expression of the templates before it is escaped."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _asset(environment: jinja2.Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _content_policy(scripts: list[str]) -> str:
    """A policy that allows only these scripts, by hash, and no requests. Plotly needs inline styles."""
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts]
    return (
        f"default-src 'none'; script-src {' '.join(hashes)}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _data_uri(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
