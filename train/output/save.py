"""Writes all files of a run."""

from dataclasses import replace
from pathlib import Path

from haechi.train import run_folder
from haechi.train.evaluate.threshold import predict
from haechi.train.model.checkpoint import Checkpoint, feature_recipe
from haechi.train.output.metrics_json import metrics_record, write_metrics, write_predictions
from haechi.train.output.page import Page, Row, write_page
from haechi.train.output.plots import draw_confusion_matrix, draw_curves
from haechi.train.output.tensorboard import write_events
from haechi.train.output.thumbnails import make_thumbnails
from haechi.train.result import Result


def save(folder: Path, result: Result, *, name: str, command: str, media_root: Path | None) -> None:
    """Write the run's files into `folder` (see `run_folder`). `name` is the run's, `command` what made it.

    `media_root` is the folder that the videos' ids are relative to; None: the page has no thumbnails.
    """
    record = metrics_record(result)
    write_metrics(folder / run_folder.METRICS_FILE, record)
    write_predictions(folder / run_folder.PREDICTIONS_FILE, result)
    draw_confusion_matrix(folder / run_folder.CONFUSION_FILE, result)
    draw_curves(folder / run_folder.CURVES_FILE, result)
    write_events(folder / run_folder.EVENTS_FILE, result)
    page = Page(title=name, command=command, metrics=record, rows=_rows(result), thumbnails={})
    if media_root is not None:
        page = replace(page, thumbnails=make_thumbnails({row.id: media_root / row.id for row in page.mistakes}))
    write_page(folder / run_folder.PAGE_FILE, page)
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
        features=feature_recipe(dataset.cache),
        calibration=result.calibration,
        longest_seconds=float(dataset.durations_seconds[trained].max()),
        metrics=result.metrics,
    ).save(folder / run_folder.MODEL_FILE)


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
