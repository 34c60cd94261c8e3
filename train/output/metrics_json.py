"""The files of a run for programs: metrics.json and predictions.csv."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from haechi.train import run_folder
from haechi.train.evaluate.threshold import chosen_row, predict
from haechi.train.model.fit import Epoch
from haechi.train.output.csv_columns import write_columns
from haechi.train.output.verdict import find, verdict
from haechi.train.result import Fold, Result


def metrics_record(result: Result) -> dict[str, Any]:
    """The contents of metrics.json. It has no times and no paths, so that equal runs give equal records."""
    plan, dataset, findings = result.plan, result.plan.dataset, find(result)
    return {
        "format": run_folder.FORMAT,
        "format_version": run_folder.FORMAT_VERSION,
        "fingerprint": dataset.cache.fingerprint,
        "untrained": dataset.untrained,
        "settings": result.settings.to_dict(),
        "streams": dataset.streams,
        "new_labels": dataset.new_labels.record() if dataset.new_labels else None,
        "mode": "folds" if plan.is_folds else "holdout",
        "counts": result.split.counts(result.labels),
        "num_unlabelled": dataset.num_unlabelled,
        "failures": result.failures,
        "split_notes": plan.notes,
        "split_warnings": plan.warnings,
        "groups": {
            "source": plan.grouping.source,
            "count": plan.grouping.count,
            "similarity_threshold": result.similarity_threshold,
        },
        "leaks": _leaks(result),
        "headline": result.headline,
        "metrics": result.metrics,
        "intervals": result.intervals,
        "threshold": _threshold(result),
        "pos_weight": result.pos_weight,
        "precision": result.precision,
        "head": result.head.description,
        "best_epoch": result.best_epoch,
        "best_threshold": result.threshold,
        "calibration": _calibration(result),
        "baselines": result.baseline_metrics,
        "verdict": verdict(findings),
        "findings": [finding.record() for finding in findings],
        "slices": [asdict(subset) for subset in result.subsets],
        "epochs": [_epoch_record(epoch) for epoch in result.epochs],
        "folds": [_fold_record(fold, result.labels) for fold in result.folds],
    }


def write_metrics(path: Path, record: dict[str, Any]) -> None:
    """Write the record of `metrics_record`."""
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def write_predictions(path: Path, result: Result) -> None:
    """Write predictions.csv: one row for each labelled video; without folds, the column fold is empty.

    Scores have all their digits, so that prediction = score >= threshold also holds for the values that are read back.
    """
    columns = {
        "id": result.plan.dataset.ids,
        "label": result.labels,
        "split": result.split.names,
        "group": result.plan.groups,
        "fold": np.where(result.fold > 0, result.fold.astype(object), ""),
        "score": result.scores,
        "calibrated": result.calibrated,
        "threshold": result.thresholds,
        "prediction": predict(result.scores, result.thresholds),
    }
    write_columns(path, columns)


def _leaks(result: Result) -> dict[str, Any]:
    """Leaks between the parts, and the metrics of the headline part without its leaked videos."""
    leaks = result.plan.leaks
    return {
        "touched": len(leaks.touched(result.headline)),
        "pairs": [asdict(pair) for pair in leaks.pairs],
        "metrics_without": result.metrics_without_leaks,
    }


def _threshold(result: Result) -> dict[str, Any]:
    chosen = result.chosen_threshold
    return {
        "value": chosen.value,
        "policy": chosen.policy.text,
        "bound": asdict(chosen.policy.bound) if chosen.policy.bound else None,
        "met": chosen.met,
        "plateau": chosen.plateau,
        "interval": chosen.interval,
        "notes": chosen.notes,
    }


def _calibration(result: Result) -> dict[str, Any]:
    before, after = result.reliability
    return {
        "shift": result.calibration.shift,
        "temperature": result.calibration.temperature,
        "part": result.headline,
        "before": asdict(before),
        "after": asdict(after),
    }


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
