"""Writes all files of a run."""

from dataclasses import replace
from pathlib import Path

from haechi.train import run_folder
from haechi.train.model.checkpoint import Checkpoint, feature_recipe
from haechi.train.output.metrics_json import metrics_record, write_metrics, write_predictions
from haechi.train.output.page import Page
from haechi.train.output.page_html import write_page
from haechi.train.output.plots import draw_confusion_matrix, draw_curves
from haechi.train.output.tensorboard import write_events
from haechi.train.output.thumbnails import make_thumbnails
from haechi.train.result import Result
from haechi.train.training_set import TrainingSet


def save(folder: Path, result: Result, *, name: str, command: str, media_root: Path | None) -> None:
    """Write the files of a run into `folder` (see `run_folder`).

    `name` is the title of the page, `command` the command that made the run. Ids of videos are paths relative to
    `media_root`; None: the page has no thumbnails.
    """
    write_metrics(folder / run_folder.METRICS_FILE, metrics_record(result))
    write_predictions(folder / run_folder.PREDICTIONS_FILE, result)
    TrainingSet.of(result).save(folder / run_folder.TRAINING_SET_FILE)
    draw_confusion_matrix(folder / run_folder.CONFUSION_FILE, result)
    draw_curves(folder / run_folder.CURVES_FILE, result)
    write_events(folder / run_folder.EVENTS_FILE, result)
    page = Page.of(result, title=name, command=command)
    if media_root is not None:
        page = replace(page, thumbnails=make_thumbnails([video.id for video in page.mistakes], media_root))
    write_page(folder / run_folder.PAGE_FILE, page)
    dataset = result.plan.dataset
    trained = slice(None) if result.folds else result.split.rows("train")  # with folds the head is trained on all
    Checkpoint(
        head=result.head,
        best_threshold=result.threshold,
        best_epoch=result.best_epoch,
        settings=result.settings,
        streams=dataset.streams,
        fingerprint=dataset.cache.fingerprint,
        untrained=dataset.untrained,
        features=feature_recipe(dataset.cache),
        calibration=result.calibration,
        longest_seconds=float(dataset.durations_seconds[trained].max()),
        metrics=result.metrics,
    ).save(folder / run_folder.MODEL_FILE)
