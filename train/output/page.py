"""The page of a run: one self-contained HTML file that a person understands at a glance, from disk, without a network.

Its text is laid out here and in `page_files/`; charts (Plotly, vendored into the page) and the threshold slider
are drawn by the scripts beside it. Ids, groups, paths and messages come from strangers: every text goes through
`haechi.cache.text.visible` and Jinja's escaping, none of them into a script, and the page's own
Content-Security-Policy lets
no other script run and nothing be fetched.
"""

import base64
import hashlib
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
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

TEMPLATE = "report.html.j2"
SCRIPTS = ("figures.js", "training.js", "charts.js", "explorer.js", "sorting.js")

MAX_MISTAKES = 50
# More rows of a table than this are no page any more; metrics.json holds all.
MAX_GROUPS, MAX_PAIRS = 30, 50

NUM_BINS = 25  # of the histogram of scores
MIN_STEPS = 100  # of the slider, over all scores: fewer, and a step would pass over too many videos
TINY = 1e-12  # keeps the logits of scores and thresholds of 0 and 1 finite
CURVE_DIGITS = 5  # finer than a pixel

PART_TITLES = {"train": "Training", "val": "Validation", "test": "Test"}
BACKBONE_TITLES = {"clip": "CLIP", "slowfast": "SlowFast"}
BASELINE_TITLES = {"majority": "Always the larger class", "logistic_regression": "Logistic regression"}

# Figure -> its name and what it says, in the order of the page.
FIGURES = {
    "recall": ("Recall", "of the harmful videos, the share that is found"),
    "precision": ("Precision", "of the flagged videos, the share that is harmful"),
    "f1": ("F1", "harmonic mean of recall and precision: high only where both are"),
    "roc_auc": ("ROC AUC", "chance that a harmful video scores above a safe one; 0.5 is guessing"),
    "average_precision": ("Average precision", "precision averaged over all recalls"),
    "balanced_accuracy": (
        "Balanced accuracy",
        "mean share judged rightly of harmful and of safe; 0.5 is guessing",
    ),
    "accuracy": ("Accuracy", "share judged rightly; easily high where one class is rare"),
}
LEADING = ("recall", "precision", "f1", "roc_auc")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A labelled video."""

    id: str
    label: int
    """1 harmful, 0 safe."""
    split: str
    """`train`, `val` or `test`."""
    score: float
    """0 to 1"""
    calibrated: float
    """0 to 1: the score as a probability."""
    threshold: float
    """What decided this video; where there are folds, its fold's own."""
    prediction: int
    """1 where the score reaches it."""
    group: str
    """Empty: not known."""
    duration_seconds: float
    width: int
    height: int
    """Pixels."""
    fold: int | None
    """Number of the fold that scored it, from 1; None without folds."""

    @property
    def is_mistake(self) -> bool:
        """Whether prediction and label differ."""
        return self.prediction != self.label


@dataclass(frozen=True, kw_only=True)
class Page:
    """What the page of a run shows."""

    title: str
    """Name of the run's folder."""
    command: str
    """The exact command that made the run."""
    metrics: dict[str, Any]
    """What metrics.json holds."""
    rows: list[Row]
    thumbnails: dict[str, bytes]
    """Id -> JPEG; videos without one are shown without."""

    @property
    def headline(self) -> str:
        """The part of the split whose figures lead."""
        return str(self.metrics["headline"])

    @property
    def threshold(self) -> float:
        """The chosen one."""
        return float(self.metrics["threshold"]["value"])

    def of_part(self, part: str) -> list[Row]:
        """The rows of one part of the split."""
        return [row for row in self.rows if row.split == part]

    @property
    def parts(self) -> list[str]:
        """The parts that figures can be believed on, the headline's first."""
        return sorted((p for p in ("test", "val") if self.of_part(p)), key=lambda part: part != self.headline)

    @property
    def digits(self) -> int:
        """Decimals of figures: no more than the number of videos bears."""
        return 2 if len(self.of_part(self.headline)) < 1000 else 3

    @property
    def mistakes(self) -> list[Row]:
        """Of the headline's part, at most `MAX_MISTAKES`, the farthest from the threshold first."""
        wrong = [row for row in self.of_part(self.headline) if row.is_mistake]
        return sorted(wrong, key=lambda row: (-abs(row.score - row.threshold), row.id))[:MAX_MISTAKES]


def write_page(path: Path, page: Page) -> None:
    """Write `page` as one HTML file, some 5 MB, of which Plotly is all but a few hundred kilobytes.

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
    environment.filters |= {"figure": _figure, "interval": _interval, "part": _part_title, "count": _count}
    scripts = [get_plotlyjs(), "\n".join(_asset(environment, name) for name in SCRIPTS)]
    text = environment.get_template(TEMPLATE).render(
        page=page,
        metrics=page.metrics,
        data=htmlsafe_json_dumps(_data(page), allow_nan=False, separators=(",", ":")),
        style=Markup(_asset(environment, "style.css")),  # noqa: S704 (ours)
        scripts=[Markup(script) for script in scripts],  # noqa: S704 (ours and Plotly's)
        content_policy=_content_policy(scripts),
        figures=FIGURES,
        leading=LEADING,
        backbones=[BACKBONE_TITLES.get(name, name) for name in page.metrics["untrained"]],
        baseline_titles=BASELINE_TITLES,
        policy=policy_in_words(page.metrics["threshold"]),
        pictures={row.id: _data_uri(page.thumbnails[row.id]) for row in page.mistakes if row.id in page.thumbnails},
        slices=_slices(page.metrics["slices"]),
        spreads=_fold_spreads(page.metrics.get("folds") or []),
        max_pairs=MAX_PAIRS,
        scale=_scale(page),
    )
    path.write_text(text, encoding="utf-8")


def policy_in_words(threshold: dict[str, Any]) -> str:
    """What the threshold was chosen for, from `policy` and `bound` of metrics.json's `threshold`."""
    name, _, numbers = str(threshold["policy"]).partition(":")
    if bound := threshold["bound"]:
        return {
            "precision": f"to find as many harmful videos as a precision of at least {bound['value']:g} allows",
            "recall": f"for the highest precision with a recall of at least {bound['value']:g}",
            "false_positive_rate": f"to find as many harmful videos as flagging at most {bound['value']:.4g} of the "
            "safe ones allows",
        }[bound["figure"]]
    if name == "fbeta":
        return f"for the best F-beta with beta {numbers}; above 1, recall counts more than precision"
    if name == "cost":
        false_positive, _, false_negative = numbers.partition(",")
        return f"for the lowest cost: {false_positive} a safe video flagged, {false_negative} a harmful video missed"
    return "for the best F1"


def _data(page: Page) -> dict[str, Any]:
    """What the scripts draw from: numbers and names of our own, no text of a stranger's."""
    metrics, scale = page.metrics, _scale(page)
    heads = [{"name": f"fold {fold['number']}", **fold} for fold in metrics.get("folds") or []]
    heads.append({"name": "final head" if heads else "", **metrics})
    return {
        "headline": page.headline,
        "in_folds": metrics["mode"] == "folds",
        "threshold": page.threshold,
        "bound": metrics["threshold"]["bound"],
        "digits": page.digits,
        "scale": scale,
        "parts": {part: _part_data(page, part, metrics["metrics"][part], scale) for part in page.parts},
        "calibration": metrics["calibration"],
        "heads": [
            {
                "name": head["name"],
                "best_epoch": head["best_epoch"],
                "epochs": [
                    {
                        "number": epoch["number"],
                        "train_loss": epoch["train_loss"],
                        "val_loss": epoch.get("val_loss"),
                        "f1": (epoch.get("best") or {}).get("f1"),
                        "threshold": (epoch.get("best") or {}).get("threshold"),
                    }
                    for epoch in head["epochs"]
                ],
            }
            for head in heads
        ],
    }


def _part_data(page: Page, part: str, figures: dict[str, Any], scale: dict[str, int]) -> dict[str, Any]:
    rows = page.of_part(part)
    scores = np.array([_common_score(row, page.threshold) for row in rows])  # (N,)
    labels = np.array([row.label for row in rows])  # (N,)
    folds = sorted({row.fold for row in rows if row.fold is not None})
    edges = np.linspace(scale["low"], scale["high"], NUM_BINS + 1) / 10 ** scale["digits"]
    return {
        "score": scores.tolist(),
        "label": labels.tolist(),
        "average_precision": figures["average_precision"],
        "roc_auc": figures["roc_auc"],
        "curves": _curves(scores, labels),
        "folds": [
            {"name": f"fold {fold}", "curves": _curves(scores[mine], labels[mine])}
            for fold in folds
            if len(mine := np.flatnonzero([row.fold == fold for row in rows]))
        ],
        "histogram": {
            "edges": edges.tolist(),
            "harmful": np.histogram(scores[labels == 1], edges)[0].tolist(),
            "safe": np.histogram(scores[labels == 0], edges)[0].tolist(),
        },
    }


def _common_score(row: Row, threshold: float) -> float:
    """The score, its logit shifted so that the row's own threshold falls on `threshold`: one slider serves all folds.

    Whatever rounding does, it reaches `threshold` exactly where the row's prediction is 1.
    """
    if row.threshold == threshold:
        return row.score
    logits = [logit(min(max(p, TINY), 1 - TINY)) for p in (row.score, row.threshold, threshold)]
    score = float(expit(logits[0] - logits[1] + logits[2]))
    return max(score, threshold) if row.prediction else min(score, math.nextafter(threshold, -1))


def _curves(scores: np.ndarray, labels: np.ndarray) -> dict[str, list[float]] | None:
    """scikit-learn's precision-recall and ROC curves of `scores` (N,) and `labels` (N,); None with one class only."""
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


def _scale(page: Page) -> dict[str, int]:
    """The slider's: from `low` to `high` in steps of 1, in units of 10 ** -`digits`. Its ends flag all and nothing."""
    rows = [row for part in page.parts for row in page.of_part(part)]
    scores = [page.threshold, *(_common_score(row, page.threshold) for row in rows)]
    spread = max(scores) - min(scores)
    digits = next(d for d in range(3, 9) if spread * 10**d >= MIN_STEPS or d == 8)
    unit = 10**digits
    low, high = math.floor(min(scores) * unit), min(math.floor(max(scores) * unit) + 1, unit)
    return {"low": low, "high": high, "digits": digits}


def _slices(slices: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A table each of groups (most mistakes first, at most `MAX_GROUPS`), durations and resolutions (as given)."""
    tables = []
    for by in dict.fromkeys(piece["by"] for piece in slices):
        rows = [piece for piece in slices if piece["by"] == by]
        if by == "group":
            rows.sort(key=lambda r: (-r["figures"]["false_positive"] - r["figures"]["false_negative"], -r["count"]))
            tables.append({"by": by, "rows": rows[:MAX_GROUPS], "num_left_out": len(rows[MAX_GROUPS:])})
        else:
            tables.append({"by": by, "rows": rows, "num_left_out": 0})
    return tables


def _fold_spreads(folds: list[dict[str, Any]]) -> dict[str, tuple[float, float] | None]:
    """Figure -> its mean and standard deviation over the folds where it is defined; None for fewer than two."""
    values = {name: [f["metrics"][name] for f in folds if f["metrics"][name] is not None] for name in FIGURES}
    return {
        name: (statistics.mean(found), statistics.stdev(found)) if len(found) > 1 else None
        for name, found in values.items()
    }


def _figure(value: float | None, digits: int) -> str:
    """Rounded as JavaScript's `toFixed` does, halves up, so that the page says one thing in both."""
    if value is None:
        return "–"
    return str(Decimal(value).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP))


def _interval(interval: Sequence[float] | None, digits: int) -> str:
    return f"{_figure(interval[0], digits)} to {_figure(interval[1], digits)}" if interval else ""


def _part_title(part: str) -> str:
    return PART_TITLES[part]


def _count(number: int, noun: str = "") -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}" if noun else f"{number:,}"


def _finalize(value: Any) -> Any:
    """What every expression of the template goes through before it is escaped."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _asset(environment: jinja2.Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _content_policy(scripts: list[str]) -> str:
    """Only these scripts run, by hash; nothing is fetched, framed or sent. Plotly styles its elements inline."""
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts]
    return (
        f"default-src 'none'; script-src {' '.join(hashes)}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _data_uri(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
