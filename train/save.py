"""Writes all files of a run."""

from dataclasses import replace
from pathlib import Path

from train import run
from train.checkpoint import Checkpoint, features_of
from train.events import write_events
from train.page import Page, Row, write_page
from train.pictures import draw_confusion_matrix, draw_curves
from train.report import metrics_record, write_metrics, write_predictions
from train.result import Result
from train.threshold import predict
from train.thumbnails import make_thumbnails


def save(folder: Path, result: Result, *, name: str, command: str, media_root: Path | None) -> None:
    """Write the run's files into `folder` (see `run_folder`). `name` is the run's, `command` what made it.

    `media_root` is the folder that the videos' ids are relative to; None: the page has no thumbnails.
    """
    record = metrics_record(result)
    write_metrics(folder / run.METRICS_FILE, record)
    write_predictions(folder / run.PREDICTIONS_FILE, result)
    draw_confusion_matrix(folder / run.CONFUSION_FILE, result)
    draw_curves(folder / run.CURVES_FILE, result)
    write_events(folder / run.EVENTS_FILE, result)
    page = Page(title=name, command=command, metrics=record, rows=_rows(result), thumbnails={})
    if media_root is not None:
        page = replace(page, thumbnails=make_thumbnails({row.id: media_root / row.id for row in page.mistakes}))
    write_page(folder / run.PAGE_FILE, page)
    dataset = result.plan.dataset
    trained = slice(None) if result.folds else result.split.rows("train")  # after folds the head is trained on all
    Checkpoint(
        head=result.head,
        best_threshold=result.threshold,
        best_epoch=result.best_epoch,
        settings=result.settings,
        streams=dataset.streams,
        fingerprint=dataset.cache.fingerprint,
        untrained=dataset.cache.untrained,
        features=features_of(dataset.cache),
        calibration=result.calibration,
        longest_seconds=float(dataset.durations_seconds[trained].max()),
        metrics=result.metrics,
    ).save(folder / run.MODEL_FILE)


def _rows(result: Result) -> list[Row]:
    dataset = result.plan.dataset
    predictions = predict(result.scores, result.thresholds)
    return [
        Row(
            id=str(dataset.ids[i]),
            label=int(result.labels[i]),
            split=str(result.split.names[i]),
            score=float(result.scores[i]),
            calibrated=float(result.calibrated[i]),
            threshold=float(result.thresholds[i]),
            prediction=int(predictions[i]),
            group=str(result.plan.groups[i]),
            duration_seconds=float(dataset.durations_seconds[i]),
            width=int(dataset.sizes[i, 0]),
            height=int(dataset.sizes[i, 1]),
            fold=int(result.fold[i]) or None,
        )
        for i in range(len(dataset.ids))
    ]
