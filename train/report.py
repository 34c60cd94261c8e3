"""What a run leaves behind for programs (metrics.json, predictions.csv) and for eyes (two pictures)."""

import csv
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cache.schema import HARMFUL, LABEL_NAMES, SAFE, SPLITS
from train import run
from train.dataset import Dataset
from train.fit import Epoch
from train.head import Head
from train.metrics import metrics_at
from train.settings import TrainSettings
from train.split import Split
from train.threshold import chosen_row, predict

SIDES = [LABEL_NAMES[SAFE], LABEL_NAMES[HARMFUL]]

SPLIT_TITLES = {"train": "Training", "val": "Validation", "test": "Test"}

# Okabe and Ito's palette, told apart by colour-blind readers too.
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#C1272D"


@dataclass(frozen=True, kw_only=True)
class Result:
    """A finished run."""

    settings: TrainSettings
    dataset: Dataset
    split: Split
    pos_weight: float
    precision: str
    """`fp32` or `bf16`: of the training steps. Scores are fp32."""
    epochs: list[Epoch]
    scores: np.ndarray
    """(N,) float64 in [0, 1]: every labelled video's, by the head of the best epoch."""
    head: Head
    """Of the best epoch, in evaluation mode."""
    fingerprint: str
    """Of the cache."""
    untrained: list[str]
    """Backbones whose weights were random."""
    seconds: float
    """From the first epoch to the last score."""

    @property
    def best(self) -> Epoch:
        """The epoch whose head is kept."""
        return [epoch for epoch in self.epochs if epoch.improved][-1]

    @property
    def metrics(self) -> dict[str, dict[str, int | float | None]]:
        """Part of the split -> its figures at the best epoch's threshold, which only val has chosen."""
        parts = {name: self.split.rows(name) for name in SPLITS}
        return {
            name: metrics_at(self.scores[rows], self.dataset.labels[rows], self.best.best.threshold)
            for name, rows in parts.items()
            if len(rows)
        }


def write_report(folder: Path, result: Result) -> None:
    """Write all four files."""
    write_metrics(folder / run.METRICS_FILE, result)
    write_predictions(folder / run.PREDICTIONS_FILE, result)
    draw_confusion_matrix(folder / run.CONFUSION_FILE, result)
    draw_curves(folder / run.CURVES_FILE, result)


def write_metrics(path: Path, result: Result) -> None:
    """Everything a program wants to know. No times and no paths: the same run gives the same bytes."""
    data = {
        "format": run.FORMAT,
        "format_version": run.FORMAT_VERSION,
        "fingerprint": result.fingerprint,
        "untrained": result.untrained,
        "settings": result.settings.to_dict(),
        "streams": result.dataset.streams,
        "counts": result.split.counts(result.dataset.labels),
        "num_unlabelled": result.dataset.num_unlabelled,
        "split_notes": result.split.notes,
        "split_warnings": result.split.warnings,
        "pos_weight": result.pos_weight,
        "precision": result.precision,
        "best_epoch": result.best.number,
        "best_threshold": result.best.best.threshold,
        "metrics": result.metrics,
        "epochs": [_epoch_record(epoch) for epoch in result.epochs],
    }
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _epoch_record(epoch: Epoch) -> dict[str, Any]:
    record = asdict(epoch)
    del record["seconds"]
    return {**record, "table_choice": epoch.table[chosen_row(epoch.table)].threshold}


def write_predictions(path: Path, result: Result) -> None:
    """A row for every labelled video, in the cache's order: id, label, split, score, prediction.

    Scores have all their digits, so that prediction = score >= best_threshold holds for what is read back. An id that a
    spreadsheet would run as a formula (it starts with = + - @ or a tab or line break) gets a `'` in front.
    """
    predictions = predict(result.scores, result.best.best.threshold)
    columns = [result.dataset.ids, result.dataset.labels, result.split.names, result.scores, predictions]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "label", "split", "score", "prediction"])
        for id, *rest in zip(*(column.tolist() for column in columns), strict=True):
            writer.writerow(["'" + id if id.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else id, *rest])


def draw_confusion_matrix(path: Path, result: Result) -> None:
    """The best epoch's confusion matrix at its threshold: validation, and test where there is one."""
    parts = [name for name in ("val", "test") if name in result.metrics]
    figure = Figure(figsize=(4.8 * len(parts), 5.8), layout="compressed")
    for ax, name in zip(figure.subplots(1, len(parts), squeeze=False)[0], parts, strict=True):
        _draw_matrix(ax, result.metrics[name])
        f1 = result.metrics[name]["f1"]
        reached = "undefined" if f1 is None else f"{f1:.4f}"
        ax.set_title(
            f"{SPLIT_TITLES[name]}, best epoch ({result.best.number})\n"
            f"F1 {reached} at threshold {result.best.best.threshold:.4f}",
            fontsize=12,
            pad=10,
        )
    _save(figure, path, result)


def _draw_matrix(ax: Axes, metrics: dict[str, int | float | None]) -> None:
    tn, fp, fn, tp = (
        metrics[f"{verdict}_{side}"] or 0
        for verdict, side in [("true", "negative"), ("false", "positive"), ("false", "negative"), ("true", "positive")]
    )
    counts = np.array([[tn, fp], [fn, tp]], dtype=int)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)  # of the true class
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if share[row, column] > 0.55 else "black"
        ax.text(column, row - 0.06, f"{count:,}", ha="center", va="center", fontsize=22, color=colour)
        ax.text(
            column,
            row + 0.13,
            f"{share[row, column]:.1%} of {SIDES[row]}",
            ha="center",
            va="center",
            fontsize=11,
            color=colour,
        )
    ax.set_xticks([0, 1], SIDES)
    ax.set_yticks([0, 1], SIDES, rotation=90, va="center")
    ax.set_xlabel("predicted")
    ax.set_ylabel("labelled")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)


def draw_curves(path: Path, result: Result) -> None:
    """Losses over the epochs, and F1 on validation with the threshold that reached it."""
    numbers = [epoch.number for epoch in result.epochs]
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(numbers, [e.train_loss for e in result.epochs], "o-", color=BLUE, label="training")
    left.plot(numbers, [e.val_loss for e in result.epochs], "o-", color=ORANGE, label="validation")
    left.set_ylim(0, 1.1 * max(loss for e in result.epochs for loss in (e.train_loss, e.val_loss)))
    left.set_title("Loss (weighted binary cross-entropy)", fontsize=12)
    right.plot(numbers, [e.best.f1 for e in result.epochs], "o-", color=GREEN, label="best F1")
    right.plot(numbers, [e.best.threshold for e in result.epochs], "s--", color="0.45", label="its threshold")
    right.set_ylim(0, 1.03)
    right.set_title("Validation", fontsize=12)
    for ax in (left, right):
        best_label = f"epoch {result.best.number}, kept"
        ax.axvline(result.best.number, color="0.75", linewidth=6, alpha=0.5, zorder=0, label=best_label)
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        ax.grid(visible=True, alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False)
    _save(figure, path, result)


def _save(figure: Figure, path: Path, result: Result) -> None:
    if result.untrained:
        text = f"UNTRAINED backbones: {', '.join(result.untrained)}"
        figure.supxlabel(text, color=RED, fontsize=11, fontweight="bold")
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=150)
