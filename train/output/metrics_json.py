"""What a run leaves behind for programs: metrics.json, predictions.csv, TensorBoard events."""

import csv
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from haechi.cache.kinds import IMAGE
from haechi.cache.text import harmless
from haechi.train import run_folder
from haechi.train.evaluate.calibration import reliability
from haechi.train.evaluate.slices import Slice, slices
from haechi.train.evaluate.threshold import chosen_row, predict
from haechi.train.model.fit import Epoch
from haechi.train.result import Fold, Result

PREDICTION_COLUMNS = ("id", "label", "split", "group", "fold", "score", "calibrated", "threshold", "prediction")

BASELINE_TITLES = {"majority": "the majority class", "logistic_regression": "logistic regression"}

# Figures by which a head is held against the baselines: of decisions, and of ranking.
VERDICT_FIGURES = {"f1": "F1", "roc_auc": "ROC AUC"}


def metrics_record(result: Result) -> dict[str, Any]:
    """All of a run that a program wants to know. No times and no paths: the same run gives the same record."""
    plan, dataset = result.plan, result.plan.dataset
    return {
        "format": run_folder.FORMAT,
        "format_version": run_folder.FORMAT_VERSION,
        "fingerprint": dataset.cache.fingerprint,
        "untrained": dataset.cache.untrained,
        "settings": result.settings.to_dict(),
        "streams": dataset.streams,
        "new_labels": dataset.new_labels.record() if dataset.new_labels else None,
        "mode": "folds" if plan.is_folds else "holdout",
        "counts": result.split.counts(result.labels),
        "num_unlabelled": dataset.num_unlabelled,
        "failures": _failures(result),
        "split_notes": plan.notes,
        "split_warnings": plan.warnings,
        "groups": {
            "source": plan.grouping.source,
            "count": plan.grouping.count,
            "similarity_threshold": plan.grouping.scenes.similarity_threshold if result.settings.scenes else None,
        },
        "leaks": _leaks(result),
        "headline": result.headline,
        "metrics": result.metrics,
        "intervals": result.intervals,
        "threshold": _threshold(result),
        "pos_weight": result.pos_weight,
        "precision": result.precision,
        "best_epoch": result.best_epoch,
        "best_threshold": result.threshold,
        "calibration": _calibration(result),
        "baselines": result.baseline_metrics,
        "verdict": verdict(result),
        "slices": [asdict(of_slice) for of_slice in _slices(result)],
        "epochs": [_epoch_record(epoch) for epoch in result.epochs],
        "folds": [_fold_record(fold, result.labels) for fold in result.folds],
    }


def verdict(result: Result) -> str:
    """A sentence a baseline: whether the head beats it."""
    return " ".join(_verdict(result, name) for name in result.baselines)


def _verdict(result: Result, name: str) -> str:
    ours, theirs = result.metrics[result.headline], result.baseline_metrics[name][result.headline]
    told, better, worse = [], False, False
    for figure, title in VERDICT_FIGURES.items():
        a, b, lead = ours[figure], theirs[figure], result.lead[name][figure]
        if a is None or b is None or lead is None:
            continue
        told.append(f"{title} {a:.3f} against {b:.3f} (difference {lead[0]:+.3f} to {lead[1]:+.3f})")
        better, worse = better or lead[0] > 0, worse or lead[1] < 0
    if better and not worse:
        words = "beats"
    elif worse and not better:
        words = "is worse than"
    else:
        words = "cannot be told to beat"
    return f"The head {words} {BASELINE_TITLES[name]}: {', '.join(told) or 'nothing is defined to compare'}."


def write_metrics(path: Path, record: dict[str, Any]) -> None:
    """Write the record of `metrics_record`."""
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def write_predictions(path: Path, result: Result) -> None:
    """A row for every labelled video: `PREDICTION_COLUMNS`; fold is empty where there are none.

    Scores have all their digits, so that prediction = score >= threshold holds for what is read back. A text that
    a spreadsheet would run as a formula (it starts with = + - @ or a tab or line break) gets a `'` in front.
    """
    columns = [
        result.plan.dataset.ids,
        result.labels,
        result.split.names,
        result.plan.groups,
        np.where(result.fold > 0, result.fold.astype(object), ""),
        result.scores,
        result.calibrated,
        result.thresholds,
        predict(result.scores, result.thresholds),
    ]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(PREDICTION_COLUMNS)
        for row in zip(*(column.tolist() for column in columns), strict=True):
            writer.writerow([harmless(value) if isinstance(value, str) else value for value in row])


def _failures(result: Result) -> dict[str, int]:
    """Reason -> videos of the cache that could not be used."""
    reasons = [failure.reason for failure in result.plan.dataset.cache.failures]
    return {reason: reasons.count(reason) for reason in sorted(set(reasons))}


def _leaks(result: Result) -> dict[str, Any]:
    """What the split puts on two sides, and the headline figures without the videos that this touches."""
    leaks = result.plan.leaks
    return {
        "touched": len(leaks.touched(result.headline)),
        "pairs": [asdict(pair) for pair in leaks.pairs],
        "metrics_without": result.metrics_untouched,
    }


def _threshold(result: Result) -> dict[str, Any]:
    policy, choice = result.plan.policy, result.choice
    return {
        "value": result.threshold,
        "policy": policy.text,
        "bound": asdict(policy.bound) if policy.bound else None,
        "met": choice.met if choice else all(fold.met for fold in result.folds),
        "plateau": [choice.low, choice.high] if choice else None,
        "interval": result.threshold_interval,
        "notes": result.threshold_notes,
    }


def _calibration(result: Result) -> dict[str, Any]:
    rows = result.split.rows(result.headline)
    return {
        "shift": result.calibration.shift,
        "temperature": result.calibration.temperature,
        "part": result.headline,
        "before": reliability(result.scores[rows], result.labels[rows]),
        "after": reliability(result.calibrated[rows], result.labels[rows]),
    }


def _slices(result: Result) -> list[Slice]:
    rows, dataset = result.split.rows(result.headline), result.plan.dataset
    durations = dataset.durations_seconds[rows]
    return slices(
        result.scores[rows],
        result.labels[rows],
        result.thresholds[rows],
        groups=result.plan.groups[rows],
        durations_seconds=np.full(len(rows), np.nan) if result.settings.media == IMAGE else durations,
        short_sides=dataset.sizes[rows].min(axis=1),
    )


def _epoch_record(epoch: Epoch) -> dict[str, Any]:
    record = asdict(epoch)
    del record["seconds"]
    return {**record, "table_choice": epoch.table[chosen_row(epoch.table)].threshold}


def _fold_record(fold: Fold, labels: np.ndarray) -> dict[str, Any]:
    return {
        "number": fold.number,
        "best_epoch": fold.best_epoch,
        "threshold": fold.threshold,
        "counts": fold.split.counts(labels),
        "metrics": fold.figures,
        "val_metrics": fold.val_figures,
        "epochs": [_epoch_record(epoch) for epoch in fold.epochs],
    }
