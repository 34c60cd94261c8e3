"""Pictures of a run: the confusion matrix and the curves over the epochs."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from haechi.cache.schema import HARMFUL, LABEL_NAMES, SAFE
from haechi.train.evaluate.metrics import Figures
from haechi.train.model.fit import Epoch
from haechi.train.output.titles import SPLIT_TITLES
from haechi.train.result import HELD_OUT_PARTS, Result

CLASSES = [LABEL_NAMES[SAFE], LABEL_NAMES[HARMFUL]]

# Okabe and Ito's palette, which colour-blind readers can distinguish.
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#C1272D"


def part_title(result: Result, part: str) -> str:
    """Title of a part of the split in pictures."""
    return "Out of fold" if result.folds else SPLIT_TITLES[part]


def draw_confusion_matrix(path: Path, result: Result) -> None:
    """Draw the confusion matrix at the threshold: of validation and test, or of all folds together."""
    parts = [name for name in HELD_OUT_PARTS if name in result.metrics]
    figure = Figure(figsize=(4.8 * len(parts), 5.8), layout="compressed")
    which = f"{len(result.folds)} folds" if result.folds else f"best epoch ({result.best_epoch})"
    for ax, name in zip(figure.subplots(1, len(parts), squeeze=False)[0], parts, strict=True):
        _draw_matrix(ax, result.metrics[name])
        f1 = result.metrics[name]["f1"]
        f1_text = "undefined" if f1 is None else f"{f1:.4f}"
        ax.set_title(
            f"{part_title(result, name)}, {which}\nF1 {f1_text} at threshold {result.threshold:.4f}",
            fontsize=12,
            pad=10,
        )
    _save(figure, path, result)


def _draw_matrix(ax: Axes, metrics: Figures) -> None:
    tn, fp, fn, tp = (
        metrics[f"{outcome}_{predicted}"] or 0
        for outcome, predicted in [
            ("true", "negative"),
            ("false", "positive"),
            ("false", "negative"),
            ("true", "positive"),
        ]
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
            f"{share[row, column]:.1%} of {CLASSES[row]}",
            ha="center",
            va="center",
            fontsize=11,
            color=colour,
        )
    ax.set_xticks([0, 1], CLASSES)
    ax.set_yticks([0, 1], CLASSES, rotation=90, va="center")
    ax.set_xlabel("predicted")
    ax.set_ylabel("labelled")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)


def draw_curves(path: Path, result: Result) -> None:
    """Draw losses, F1 on validation and the threshold chosen there over the epochs; with folds, a line for each."""
    runs = [fold.epochs for fold in result.folds] or [result.epochs]
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    style: dict[str, Any] = {"linewidth": 1, "markersize": 3, "alpha": 0.6} if len(runs) > 1 else {}
    for number, epochs in enumerate(runs):
        _draw_run(left, right, epochs, style, labelled=number == 0)
    highest = max(loss for epochs in runs for e in epochs for loss in (e.train_loss, e.val_loss))
    left.set_ylim(0, 1.1 * highest or 1)
    left.set_title("Loss", fontsize=12)
    right.set_ylim(0, 1.03)
    right.set_title("Validation", fontsize=12)
    is_median = result.folds and result.settings.network
    kept = f"epoch {result.best_epoch}, " + ("median of the folds" if is_median else "kept")
    for ax in (left, right):
        ax.axvline(result.best_epoch, color="0.75", linewidth=6, alpha=0.5, zorder=0, label=kept)
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        ax.grid(visible=True, alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False)
    _save(figure, path, result)


def _draw_run(left: Axes, right: Axes, epochs: list[Epoch], style: dict[str, Any], *, labelled: bool) -> None:
    numbers = [epoch.number for epoch in epochs]
    for ax, marker, colour, label, values in [
        (left, "o-", BLUE, "training", [e.train_loss for e in epochs]),
        (left, "o-", ORANGE, "validation", [e.val_loss for e in epochs]),
        (right, "o-", GREEN, "F1", [e.best.f1 for e in epochs]),
        (right, "s--", "0.45", "chosen threshold", [e.best.threshold for e in epochs]),
    ]:
        ax.plot(numbers, values, marker, color=colour, label=label if labelled else None, **style)


def _save(figure: Figure, path: Path, result: Result) -> None:
    if untrained := result.plan.dataset.untrained:
        text = f"UNTRAINED backbones: {', '.join(untrained)}"
        figure.supxlabel(text, color=RED, fontsize=11, fontweight="bold")
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=150)
