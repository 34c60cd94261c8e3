"""Why the head, its loss and its schedule are what they are: `python -m bench.choices --data CACHE`.

Each alternative to the default is cross-validated in the default's own folds, splits and seeds, the whole of what
`haechi train` does in each fold, and so is logistic regression on the same videos.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from sklearn.metrics import roc_auc_score

from bench import measure
from bench.figures import show
from bench.measure import Row
from bench.options import common
from haechi.cache.reader import Cache
from haechi.train.data.dataset import Dataset, load_dataset
from haechi.train.data.split import make_folds
from haechi.train.evaluate.metrics import metrics_at
from haechi.train.evaluate.threshold import choose_threshold
from haechi.train.experiment import Trained, prepare, train_once
from haechi.train.model.baselines import fit_baselines
from haechi.train.policy import Policy
from haechi.train.settings import DEFAULT_PRESET, TrainSettings

NUM_FOLDS = 5

ALTERNATIVES: dict[str, dict[str, Any]] = {
    "default": {},
    "the report's Model 4": {"preset": "model4"},
    "no regression": {"regression": False},
    "focal loss": {"loss": "focal"},
    "labels smoothed by 0.1": {"label_smoothing": 0.1},
    "pos_weight 1": {"pos_weight": 1.0},
    "cosine": {"schedule": "cosine"},
    "one cycle": {"schedule": "onecycle"},
    "EMA of 0.5 an epoch": {"ema": 0.5},
}
REGRESSIONS: dict[str, dict[str, Any]] = {
    "logistic regression": {},
    "logistic regression, prior deviation 0.3": {"prior_deviation": 0.3},
    "logistic regression, prior deviation 3": {"prior_deviation": 3.0},
}

FIGURES = {
    "pooled_auc": "ROC AUC, all folds' videos together",
    "fold_auc": "ROC AUC, mean of the folds",
    "f1": "F1, mean of the folds",
    "balanced_accuracy": "balanced accuracy, mean of the folds",
}
OF_TRAINING = {
    "wandering": "standard deviation of the epochs' thresholds",
    "seconds": "training, a fold",
}
COMPARED = "fold_auc"


@click.command()
@common
def main(*, data: Path | None, out: Path, rounds: int, quick: bool) -> None:
    """Cross-validate the default and every alternative on the cache --data, in `rounds` rounds of other folds."""
    if data is None:
        raise click.UsageError("--data CACHE: a cache of labelled videos is needed")
    cache = Cache.open(data)
    dataset = load_dataset(cache, TrainSettings.from_preset(DEFAULT_PRESET))
    found: dict[tuple[str, str], list[float]] = {}
    for seed in range(rounds):
        for name, changes in ALTERNATIVES.items():
            settings = TrainSettings.from_preset(
                **{"preset": DEFAULT_PRESET, "seed": seed, "epochs": 1 if quick else None, **changes}
            )
            folds = list(trained_folds(dataset, settings))
            figures = {name: figures_of(dataset, folds, [fold.scores for fold in folds]) | training_of(folds)}
            if not changes:  # the same folds for all
                figures |= {
                    regression: figures_of(dataset, folds, regression_scores(dataset, folds, **options))
                    for regression, options in REGRESSIONS.items()
                }
            for contestant, of_contestant in figures.items():
                for figure, value in of_contestant.items():
                    found.setdefault((contestant, figure), []).append(value)
    show(
        measure.write(
            out,
            "choices",
            rows_of_table(found),
            untrained=bool(cache.untrained),
            num_videos=len(dataset.ids),
            num_harmful=int(dataset.labels.sum()),
            num_groups=len(set(dataset.groups[dataset.groups != ""].tolist())),
            default=TrainSettings.from_preset(DEFAULT_PRESET).to_dict(),
            alternatives=ALTERNATIVES,
        )
    )


def trained_folds(dataset: Dataset, settings: TrainSettings) -> Iterator[Trained]:
    """The head of each fold, groups whole; the fold is its test split, which only the end scores."""
    for given in make_folds(dataset.labels, dataset.groups, settings, num_folds=NUM_FOLDS):
        yield train_once(prepare(replace(dataset, splits=given), settings))


def regression_scores(dataset: Dataset, folds: list[Trained], **options: Any) -> list[np.ndarray]:
    """Every fold's scores (N,) by logistic regression on the videos that its head was trained on."""
    return [
        fit_baselines(dataset.features, dataset.labels, rows_of(fold, "train"), **options).scores["logistic_regression"]
        for fold in folds
    ]


def figures_of(dataset: Dataset, folds: list[Trained], scores: list[np.ndarray]) -> dict[str, float]:
    """Figures of `FIGURES` from a fold's scores (N,) each, at the threshold that its validation videos choose."""
    labels, out_of_fold = dataset.labels, np.empty(len(dataset.labels))
    found: dict[str, list[float]] = {"fold_auc": [], "f1": [], "balanced_accuracy": []}
    for fold, of_fold in zip(folds, scores, strict=True):
        val, test = rows_of(fold, "val"), rows_of(fold, "test")
        out_of_fold[test] = of_fold[test]
        policy = Policy.parse(fold.experiment.settings.policy)
        threshold = choose_threshold(of_fold[val], labels[val], policy).threshold
        figures = metrics_at(of_fold[test], labels[test], threshold)
        for name, value in (("fold_auc", figures["roc_auc"]), *((name, figures[name]) for name in list(found)[1:])):
            if value is not None:
                found[name].append(value)
    means = {name: float(np.mean(values)) for name, values in found.items()}
    return {"pooled_auc": float(roc_auc_score(labels, out_of_fold)), **means}


def training_of(folds: list[Trained]) -> dict[str, float]:
    """Figures of `OF_TRAINING`, means over the folds."""
    wandering = [np.std([epoch.best.threshold for epoch in fold.epochs]) for fold in folds]
    return {"wandering": float(np.mean(wandering)), "seconds": float(np.mean([fold.seconds for fold in folds]))}


def rows_of(fold: Trained, part: str) -> np.ndarray:
    """(n,) int64: the videos of one part."""
    return fold.experiment.split.rows(part)


def rows_of_table(found: dict[tuple[str, str], list[float]]) -> list[Row]:
    """A row a figure and contestant, and how far each is above the default in the same folds."""
    names = [*REGRESSIONS, *ALTERNATIVES]
    rows = [
        Row(what=f"{name}: {title}", unit="s" if figure == "seconds" else "", values=found[name, figure])
        for figure, title in (FIGURES | OF_TRAINING).items()
        for name in names
        if (name, figure) in found
    ]
    for name in names:
        if name != "default":
            pairs = zip(found[name, COMPARED], found["default", COMPARED], strict=True)
            rows.append(
                Row(what=f"{name} less default: {FIGURES[COMPARED]}", unit="", values=[a - b for a, b in pairs])
            )
    return rows


if __name__ == "__main__":
    main()
