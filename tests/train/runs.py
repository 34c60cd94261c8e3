"""Small runs on synthetic features, without the command line."""

from pathlib import Path

import numpy as np
import torch

from haechi.cache.reader import Cache
from haechi.train.data.dataset import Dataset, load_dataset
from haechi.train.data.features import Features
from haechi.train.data.split import Split, inner_folds, make_split
from haechi.train.model.fit import Epoch, fit
from haechi.train.model.head import Head, build_head
from haechi.train.model.loss import compute_pos_weight
from haechi.train.model.regression import FittedRegression, fit_regression
from haechi.train.model.scores import compute_logits, compute_scores
from haechi.train.pipeline import carry_out
from haechi.train.plan import Grouping, make_plan
from haechi.train.result import Result
from haechi.train.settings import TrainSettings
from tests import synthetic

QUICK = TrainSettings(feedforward=32, epochs=3, lr=1e-3, test_fraction=0.0, folds=0)


def prepare(path: Path, settings: TrainSettings = QUICK, **cache_options: object) -> tuple[Dataset, Split]:
    """Write a cache and load it."""
    dataset = load_dataset(Cache.open(synthetic.write_cache(path, **cache_options)), settings)  # type: ignore[arg-type]
    return dataset, make_split(dataset.labels, dataset.splits, dataset.groups, settings)


def train(dataset: Dataset, split: Split, settings: TrainSettings = QUICK) -> tuple[Head, list[Epoch]]:
    """A head trained by `fit`, and its epochs."""
    head, fitted = start(dataset.features, dataset.labels, split, settings)
    return head, list(fit(head, dataset.features, dataset.labels, split, settings, fitted=fitted))


def start(
    features: Features, labels: np.ndarray, split: Split, settings: TrainSettings
) -> tuple[Head, FittedRegression | None]:
    """A head before its first epoch, and the regression that it starts from, if any."""
    head, rows = build_head(features.widths, settings), split.rows("train")
    if head.regression is None:
        return head, None
    folds = inner_folds(labels[rows], np.full(len(rows), "", dtype=object), seed=settings.seed)
    fitted = fit_regression(features, labels, rows, folds, pos_weight=compute_pos_weight(labels[rows], settings))
    head.regression.load_state_dict(fitted.regression.state_dict())
    return head, fitted


def with_random_weights(head: Head) -> Head:
    """The same head, as if fitted: all its parts change the logits."""
    with torch.no_grad():
        for name, weight in head.named_parameters():
            if name.startswith("mlp") and weight.dim() == 2:  # the last layer of some presets starts at zero
                torch.nn.init.kaiming_normal_(weight)
        for part in (head.regression, head.moments):
            for name, values in () if part is None else part.named_buffers():
                values.uniform_(0.5, 2) if name.endswith("scale") else values.normal_()
    return head


def score(head: Head, dataset: Dataset, rows: np.ndarray | None = None) -> np.ndarray:
    """Scores of `rows`, or of all videos."""
    rows = np.arange(len(dataset.ids)) if rows is None else rows
    return compute_scores(compute_logits(head, dataset.features, torch.from_numpy(rows)))


def finish(path: Path, settings: TrainSettings = QUICK, **cache_options: object) -> Result:
    """Write a cache and train on it."""
    dataset, _ = prepare(path, settings, **cache_options)
    return carry_on(dataset, settings)


def carry_on(dataset: Dataset, settings: TrainSettings = QUICK) -> Result:
    """Train on a loaded dataset."""
    return carry_out(make_plan(dataset, Grouping.find(dataset, settings), settings))
