"""One head, trained and scored: what a run does once, and cross-validation once a fold. Prints nothing."""

import itertools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from haechi.device import find_device
from haechi.train.data.dataset import Dataset
from haechi.train.data.split import Split, make_split
from haechi.train.device import find_precision
from haechi.train.model.fit import Epoch, check_finite, fit, logits_of, passes, pos_weight_of, scores_of
from haechi.train.model.head import Head, build_head
from haechi.train.settings import TrainSettings

Track = Callable[[list[Tensor]], Iterable[Tensor]]


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A head before its first epoch: all that dataset, settings and split decide."""

    settings: TrainSettings
    dataset: Dataset
    split: Split
    pos_weight: float
    device: torch.device
    precision: str
    """`fp32` or `bf16`: of the training steps."""
    head: Head
    """On the device, with its first weights."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A head after its last epoch."""

    experiment: Experiment
    epochs: list[Epoch]
    scores: np.ndarray
    """(N,) float64 in [0, 1]: every labelled video's, by the head of the best epoch."""
    seconds: float
    """From the first epoch to the last score."""

    @property
    def best(self) -> Epoch:
        """The epoch whose head is kept."""
        return [epoch for epoch in self.epochs if epoch.improved][-1]


def prepare(dataset: Dataset, settings: TrainSettings, split: Split | None = None) -> Experiment:
    """Build the head, and draw the split where none is given.

    `dataset` was loaded for settings of the same `seen_of`. Raises `TrainError` where train or val would lack a class,
    or the device is not there.
    """
    device = find_device(settings.device)
    split = split or make_split(dataset.labels, dataset.splits, dataset.groups, settings)
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
    experiment: Experiment, *, show: Callable[[Epoch], object] = lambda epoch: None, track: Track = iter
) -> Trained:
    """Train the head of an experiment and score every video with it.

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
    return Trained(experiment=experiment, epochs=epochs, scores=scores, seconds=time.perf_counter() - start_seconds)


def train_all(experiment: Experiment, *, num_epochs: int, track: Track = iter) -> float:
    """Train the head of an experiment for so many epochs, none of which is judged; how many seconds it took.

    Its split has no val: for a head trained on everything, after cross-validation has said for how long. Raises
    `DivergedError` where a loss is not finite.
    """
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
        track=track,
    )
    for number, loss in enumerate(itertools.islice(losses, num_epochs), start=1):
        check_finite(number, experiment.settings, training=loss)
    experiment.head.eval()
    return time.perf_counter() - start_seconds
