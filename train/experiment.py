"""Training and scoring of one head: a run does it once, cross-validation once per fold."""

import itertools
import time
from dataclasses import dataclass

import numpy as np
import torch

from haechi.device import find_device
from haechi.train.data.dataset import Dataset
from haechi.train.data.split import Split, make_split
from haechi.train.device import find_precision
from haechi.train.model.fit import Epoch, check_finite, fit, passes
from haechi.train.model.head import Head, build_head
from haechi.train.model.loss import compute_pos_weight
from haechi.train.model.scores import compute_logits, compute_scores
from haechi.train.progress import SILENT, TrainProgress
from haechi.train.settings import TrainSettings


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A head before its first epoch, with all that its training depends on."""

    settings: TrainSettings
    dataset: Dataset
    split: Split
    pos_weight: float
    device: torch.device
    precision: str
    """Precision of the training steps: `fp32` or `bf16`."""
    head: Head
    """On the device, with its initial weights."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A head after its last epoch."""

    experiment: Experiment
    epochs: list[Epoch]
    scores: np.ndarray
    """(N,) float64 in [0, 1]: the scores of all labelled videos by the head of the best epoch."""
    seconds: float
    """Time from the first epoch to the last score."""

    @property
    def best(self) -> Epoch:
        """The best epoch, whose head is kept."""
        return [epoch for epoch in self.epochs if epoch.improved][-1]


def prepare(dataset: Dataset, settings: TrainSettings, split: Split | None = None) -> Experiment:
    """Build the head, and draw the split if none is given.

    `dataset` was loaded for settings with the same `input_key`. Raises `TrainError` if train or val would lack a class,
    `SettingsError` if there is no such device.
    """
    device = find_device(settings.device)
    split = split or make_split(dataset.labels, dataset.splits, dataset.groups, settings)
    return Experiment(
        settings=settings,
        dataset=dataset,
        split=split,
        pos_weight=compute_pos_weight(dataset.labels[split.rows("train")], settings),
        device=device,
        precision=find_precision(settings, device),
        head=build_head(dataset.features.widths, settings).to(device),
    )


def train_once(experiment: Experiment, *, what: str = "training", progress: TrainProgress = SILENT) -> Trained:
    """Train the head of an experiment and score every video with it.

    `what` names the head for `progress.start`. Raises `DivergedError` when a loss is not finite.
    """
    progress.start(_count_passes(experiment), what)
    start_seconds = time.perf_counter()
    dataset, split, head = experiment.dataset, experiment.split, experiment.head
    features, epochs = dataset.features.to(experiment.device), []
    for epoch in fit(
        head, features, dataset.labels, split, experiment.settings, precision=experiment.precision, progress=progress
    ):
        epochs.append(epoch)
        progress.epoch(epoch)
    scores = np.empty(len(dataset.labels))
    for name in split.counts(dataset.labels):  # each part alone: val in the batches in which its threshold was chosen
        rows = split.rows(name)
        scores[rows] = compute_scores(compute_logits(head, features, torch.from_numpy(rows).to(experiment.device)))
    return Trained(experiment=experiment, epochs=epochs, scores=scores, seconds=time.perf_counter() - start_seconds)


def train_all(
    experiment: Experiment, *, num_epochs: int, what: str = "training", progress: TrainProgress = SILENT
) -> float:
    """Train the head of an experiment for `num_epochs` epochs without validation, and return the time in seconds.

    For a head that is trained on all videos, after cross-validation has chosen the number of epochs. `what` names the
    head for `progress.start`. Raises `DivergedError` when a loss is not finite.
    """
    progress.start(_count_passes(experiment), what)
    start_seconds = time.perf_counter()
    dataset = experiment.dataset
    features, rows = dataset.features.to(experiment.device), experiment.split.rows("train")
    losses = passes(
        experiment.head,
        features,
        dataset.labels,
        rows,
        experiment.settings,
        precision=experiment.precision,
        progress=progress,
    )
    for number, loss in enumerate(itertools.islice(losses, num_epochs), start=1):
        check_finite(number, experiment.settings, training=loss)
    experiment.head.eval()
    return time.perf_counter() - start_seconds


def _count_passes(experiment: Experiment) -> int:
    """The number of videos in all epochs together, each counted once per epoch."""
    return experiment.settings.epochs * len(experiment.split.rows("train"))
