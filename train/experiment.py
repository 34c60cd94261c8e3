"""Training and scoring of one head: a run does it once, cross-validation once per fold."""

import itertools
import time
from dataclasses import dataclass

import numpy as np
import torch

from haechi.device import find_device
from haechi.train.data.dataset import Dataset
from haechi.train.data.features import Features
from haechi.train.data.split import Split, inner_folds, make_split
from haechi.train.data.stream import Stream
from haechi.train.device import find_precision
from haechi.train.model.fit import Epoch, check_finite, fit, make_epoch, passes
from haechi.train.model.head import Head, Regression, build_head
from haechi.train.model.judge import Judge
from haechi.train.model.loss import compute_pos_weight
from haechi.train.model.moments import choose_parts, fit_moments, use_parts
from haechi.train.model.regression import (
    FittedRegression,
    Folds,
    class_weights,
    fit_regression,
    regression_logits,
    restricted,
)
from haechi.train.model.rehearsal import Rehearsal
from haechi.train.model.scores import compute_logits, compute_scores
from haechi.train.policy import Policy
from haechi.train.progress import SILENT, TrainProgress
from haechi.train.settings import TrainSettings


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A head before its first epoch, with all that its training depends on."""

    settings: TrainSettings
    dataset: Dataset
    split: Split
    fit_rows: np.ndarray
    """(n,) int64, ascending: the videos that the head is fitted on."""
    folds: Folds
    """Inner folds of these videos, groups whole."""
    is_nested: bool
    """Whether all choices are made on the inner folds, and not on the val split, which is fitted on too."""
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
    regression: Regression
    """The regression that the head starts from, or is compared with."""
    rehearsal: Rehearsal
    """The videos that epoch and threshold were chosen on, with held-out scores."""
    seconds: float
    """Time from the first epoch to the last score."""

    @property
    def best(self) -> Epoch:
        """The best epoch, whose head is kept."""
        return [epoch for epoch in self.epochs if epoch.improved][-1]


def prepare(
    dataset: Dataset,
    settings: TrainSettings,
    split: Split | None = None,
    *,
    groups: np.ndarray | None = None,
    nested: bool = False,
) -> Experiment:
    """Build the head, and draw the split if none is given.

    `dataset` was loaded for settings with the same `input_key`. `groups` (N,) are never divided by inner folds; None:
    those of the manifest. `nested`: in cross-validation, the inner folds replace the val split of a head without a
    network, which is fitted on these videos too. Raises `TrainError` if train or val would lack a class,
    `SettingsError` if there is no such device.
    """
    device = find_device(settings.device)
    split = split or make_split(dataset.labels, dataset.splits, dataset.groups, settings)
    groups = dataset.groups if groups is None else groups
    nested = nested and not settings.network
    rows = np.flatnonzero(split.names != "test") if nested else split.rows("train")
    folds = inner_folds(dataset.labels[rows], groups[rows], seed=settings.seed)
    return Experiment(
        settings=settings,
        dataset=dataset,
        split=split,
        fit_rows=rows,
        folds=folds,
        is_nested=nested,
        pos_weight=compute_pos_weight(dataset.labels[rows], settings),
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
    split, head, labels = experiment.split, experiment.head, experiment.dataset.labels
    features, epochs = experiment.dataset.features.to(experiment.device), list[Epoch]()
    fitted = _fit_regression(experiment, features)
    if experiment.settings.network:
        for epoch in fit(
            head,
            features,
            labels,
            split,
            experiment.settings,
            fitted=fitted if experiment.settings.regression else None,
            precision=experiment.precision,
            progress=progress,
        ):
            epochs.append(epoch)
            progress.epoch(epoch)
        rehearsal = _rehearse(experiment, features, fitted.regression)
    else:
        rehearsal = _fit_parts(experiment, features, fitted, epochs)
        for epoch in epochs:
            progress.epoch(epoch)
        progress.advance(len(experiment.fit_rows))
    scores = np.empty(len(labels))
    for name in split.counts(labels):  # each part alone: val in the batches in which its threshold was chosen
        rows = split.rows(name)
        scores[rows] = compute_scores(compute_logits(head, features, torch.from_numpy(rows).to(experiment.device)))
    return Trained(
        experiment=experiment,
        epochs=epochs,
        scores=scores,
        regression=fitted.regression,
        rehearsal=rehearsal,
        seconds=time.perf_counter() - start_seconds,
    )


def _deviation(logits: np.ndarray) -> float:
    return float(logits.std()) or 1.0


def _standardised(logits: np.ndarray) -> np.ndarray:
    return logits / _deviation(logits)


def _rehearse(experiment: Experiment, features: Features | Stream, regression: Regression) -> Rehearsal:
    """The logits of the validation videos, by the head as it is."""
    rows = experiment.split.rows("val")
    index = torch.from_numpy(rows).to(experiment.device)
    return Rehearsal(
        rows=rows,
        logits=compute_logits(experiment.head, features, index).double().cpu().numpy(),
        regression_logits=regression_logits(features, regression, rows),
    )


def _fit_parts(
    experiment: Experiment, features: Features | Stream, fitted: FittedRegression, epochs: list[Epoch]
) -> Rehearsal:
    """Fit a head without a network: the regression, and the moments that improve it on inner folds.

    Appends epoch 0, the regression alone, and if there are moments epoch 1, the head as it is used.
    """
    settings, head, folds = experiment.settings, experiment.head, restricted(experiment.folds, fitted.kept)
    rows = experiment.fit_rows[fitted.kept]
    labels, pos_weight = experiment.dataset.labels, experiment.pos_weight
    judge = Judge(labels[rows], pos_weight=pos_weight)
    started = time.perf_counter()

    def add_epoch(found: Rehearsal, *, loss: float, improved: bool) -> None:
        nonlocal started
        truth = labels[found.rows]
        epoch = make_epoch(
            len(epochs),
            train_loss=loss,
            val_loss=Judge(truth, pos_weight=pos_weight).loss(found.logits),
            logits=found.logits,
            labels=truth,
            policy=Policy.parse(settings.policy),
            pos_weight=pos_weight,
            improved=improved,
            seconds=time.perf_counter() - started,
        )
        epochs.append(epoch)
        started = time.perf_counter()

    def rehearse(held_out: np.ndarray) -> Rehearsal:
        if not experiment.is_nested:
            return _rehearse(experiment, features, regression)
        return Rehearsal(rows=rows, logits=_standardised(held_out), regression_logits=_standardised(fitted.held_out))

    # The logits of all heads have the deviation 1 on held-out videos, so that scores of several folds can be compared:
    # a factor that was fitted on labels would differ between folds by chance.
    regression, start = fitted.regression, fitted.held_out
    regression.scale_logits(1 / _deviation(start))
    assert head.regression is not None
    head.regression.load_state_dict(regression.state_dict())
    found = rehearse(start)
    add_epoch(found, loss=judge.loss(_standardised(start)), improved=True)
    if head.moments is None or not folds:
        return found
    parts = fit_moments(
        features,
        labels,
        rows,
        folds,
        weights=class_weights(labels[rows], pos_weight),
        num_directions=settings.moments,
    )
    scales = choose_parts(parts, start, judge)
    held_out = start + sum(scale.applied(parts[name].held_out) for name, scale in scales.items())
    use_parts(head.moments, parts, scales, factor=1 / _deviation(held_out))
    head.regression.scale_logits(_deviation(start) / _deviation(held_out))
    found = rehearse(held_out)
    add_epoch(found, loss=judge.loss(_standardised(held_out)), improved=bool(scales))
    return found


def train_all(
    experiment: Experiment, *, num_epochs: int, what: str = "training", progress: TrainProgress = SILENT
) -> float:
    """Train a head with a network for `num_epochs` epochs without validation, and return the time in seconds.

    For a head that is trained on all videos, after cross-validation has chosen the number of epochs. `what` names the
    head for `progress.start`. Raises `DivergedError` when a loss is not finite.
    """
    progress.start(_count_passes(experiment), what)
    start_seconds = time.perf_counter()
    dataset, settings, rows = experiment.dataset, experiment.settings, experiment.fit_rows
    features, offset = dataset.features.to(experiment.device), None
    if settings.regression:
        offset = _fit_regression(experiment, features).offset(features, rows)
    losses = passes(
        experiment.head,
        features,
        dataset.labels,
        rows,
        settings,
        offset=offset,
        precision=experiment.precision,
        progress=progress,
    )
    for number, loss in enumerate(itertools.islice(losses, num_epochs), start=1):
        check_finite(number, settings, training=loss)
    experiment.head.eval()
    return time.perf_counter() - start_seconds


def _fit_regression(experiment: Experiment, features: Features | Stream) -> FittedRegression:
    """Fit the regression on the videos of the experiment, and put it into the head if that starts from one."""
    fitted = fit_regression(
        features,
        experiment.dataset.labels,
        experiment.fit_rows,
        experiment.folds,
        pos_weight=experiment.pos_weight,
    )
    if experiment.head.regression is not None:
        experiment.head.regression.load_state_dict(fitted.regression.state_dict())
    return fitted


def _count_passes(experiment: Experiment) -> int:
    """The number of videos in all epochs together, each counted once per epoch."""
    num_epochs = experiment.settings.epochs if experiment.settings.network else 1
    return num_epochs * len(experiment.fit_rows)
