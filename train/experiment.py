"""One training run from a dataset and settings: what the command line does once or many times, without printing."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from train.checkpoint import Checkpoint, features_of
from train.dataset import Dataset
from train.device import find_device, find_precision
from train.fit import Epoch, fit, logits_of, pos_weight_of, scores_of
from train.head import Head, build_head
from train.report import Result, write_report
from train.run import MODEL_FILE
from train.settings import TrainSettings
from train.split import Split, make_split, same_bytes


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A run before its first epoch: all that dataset and settings decide."""

    settings: TrainSettings
    dataset: Dataset
    split: Split
    pos_weight: float
    device: torch.device
    precision: str
    """`fp32` or `bf16`: of the training steps."""
    head: Head
    """On the device, with its first weights."""


def prepare(dataset: Dataset, settings: TrainSettings) -> Experiment:
    """Draw the split and build the head.

    `dataset` was loaded for the same `clip` and `slowfast`. Raises `TrainError` where train or val would lack a class,
    or the device is not there.
    """
    device = find_device(settings)
    split = make_split(dataset.labels, dataset.splits, dataset.groups, settings)
    split.warnings.extend(same_bytes(split.names, dataset.sha256, dataset.ids))
    return Experiment(
        settings=settings,
        dataset=dataset,
        split=split,
        pos_weight=pos_weight_of(dataset.labels[split.rows("train")], settings),
        device=device,
        precision=find_precision(settings, device),
        head=build_head(dataset.features.widths, settings).to(device),
    )


def train_once(
    experiment: Experiment,
    *,
    show: Callable[[Epoch], object] = lambda epoch: None,
    track: Callable[[list[Tensor]], Iterable[Tensor]] = iter,
) -> Result:
    """Train and score the head of an experiment.

    `show` is given each epoch when it is over, `track` a window's batches (see `fit`). Raises `DivergedError` where a
    loss is not finite.
    """
    start_seconds = time.perf_counter()
    dataset, split, head = experiment.dataset, experiment.split, experiment.head
    features, epochs = dataset.features.to(experiment.device), []
    for epoch in fit(
        head, features, dataset.labels, split, experiment.settings, precision=experiment.precision, track=track
    ):
        epochs.append(epoch)
        show(epoch)
    scores = np.empty(len(dataset.labels))
    for name in split.counts(dataset.labels):  # a part at a time, in the batches in which the threshold was chosen
        rows = split.rows(name)
        scores[rows] = scores_of(logits_of(head, features, torch.from_numpy(rows).to(experiment.device)))
    return Result(
        settings=experiment.settings,
        dataset=dataset,
        split=split,
        pos_weight=experiment.pos_weight,
        precision=experiment.precision,
        epochs=epochs,
        scores=scores,
        head=head,
        fingerprint=dataset.cache.fingerprint,
        untrained=dataset.cache.untrained,
        seconds=time.perf_counter() - start_seconds,
    )


def save(folder: Path, result: Result) -> None:
    """Write all files of a run (see `run_folder`)."""
    write_report(folder, result)
    Checkpoint(
        head=result.head,
        best_threshold=result.best.best.threshold,
        best_epoch=result.best.number,
        settings=result.settings,
        streams=result.dataset.streams,
        fingerprint=result.fingerprint,
        untrained=result.untrained,
        features=features_of(result.dataset.cache),
        metrics=result.metrics,
    ).save(folder / MODEL_FILE)
