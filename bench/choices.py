"""Compares the default head, loss and schedule with alternatives: `python -m bench.choices --data CACHE`.

The default, each alternative and logistic regression are cross-validated in the same folds with the same seeds. In each
fold everything is done that `haechi train` does.
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
from bench.measure import Measurement
from bench.options import common
from bench.recordings import OPTION_TYPE
from bench.sets import load_grouped, usable_slowfast
from haechi.cache.reader import Cache
from haechi.train.data.dataset import Dataset
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
    "pooled_auc": "ROC AUC, videos of all folds together",
    "fold_auc": "ROC AUC, mean of the folds",
    "f1": "F1, mean of the folds",
    "balanced_accuracy": "balanced accuracy, mean of the folds",
}
TRAINING_FIGURES = {
    "wandering": "standard deviation of thresholds over epochs",
    "seconds": "training, per fold",
}
COMPARED = "fold_auc"


@click.command()
@common
@click.option("--groups", type=OPTION_TYPE, help="CSV with the columns path and source: the recordings of the videos.")
def main(*, data: Path | None, groups: Path | None, out: Path, rounds: int, quick: bool) -> None:
    """Cross-validate the default and every alternative on the cache --data; each round has different folds."""
    if data is None:
        raise click.UsageError("--data CACHE is missing: a cache of labelled videos")
    cache = Cache.open(data)
    seen = {"slowfast": usable_slowfast(cache)}
    dataset = load_grouped(cache, TrainSettings.from_preset(DEFAULT_PRESET, **seen), groups)
    found: dict[tuple[str, str], list[float]] = {}
    for seed in range(rounds):
        for name, changes in ALTERNATIVES.items():
            settings = TrainSettings.from_preset(
                **{"preset": DEFAULT_PRESET, "seed": seed, **seen, "epochs": 1 if quick else None, **changes}
            )
            folds = list(trained_folds(dataset, settings))
            figures = {name: fold_figures(dataset, folds, [fold.scores for fold in folds]) | training_figures(folds)}
            if not changes:  # once, on the folds of the default: all contestants have the same
                figures |= {
                    regression: fold_figures(dataset, folds, regression_scores(dataset, folds, **options))
                    for regression, options in REGRESSIONS.items()
                }
            for contestant, figures_found in figures.items():
                for figure, value in figures_found.items():
                    found.setdefault((contestant, figure), []).append(value)
    show(
        measure.write(
            out,
            "choices" if "clip" in cache.untrained else "choices_trained",
            table_rows(found),
            untrained=bool(cache.untrained),
            num_videos=len(dataset.ids),
            num_harmful=int(dataset.labels.sum()),
            num_groups=len(set(dataset.groups[dataset.groups != ""].tolist())),
            default=TrainSettings.from_preset(DEFAULT_PRESET).to_dict(),
            alternatives=ALTERNATIVES,
        )
    )


def trained_folds(dataset: Dataset, settings: TrainSettings) -> Iterator[Trained]:
    """Yield each fold's head. Groups stay whole; the fold is the test split, which is scored once, at the end."""
    for given in make_folds(dataset.labels, dataset.groups, settings, num_folds=NUM_FOLDS):
        yield train_once(prepare(replace(dataset, splits=given), settings))


def regression_scores(dataset: Dataset, folds: list[Trained], **options: Any) -> list[np.ndarray]:
    """Scores (N,) of each fold by logistic regression, fitted to the videos that the fold's head was trained on."""
    return [
        fit_baselines(dataset.features, dataset.labels, part_rows(fold, "train"), **options).scores[
            "logistic_regression"
        ]
        for fold in folds
    ]


def fold_figures(dataset: Dataset, folds: list[Trained], scores: list[np.ndarray]) -> dict[str, float]:
    """The figures of `FIGURES` from the scores (N,) of each fold, at the threshold chosen on its validation videos."""
    labels, out_of_fold = dataset.labels, np.empty(len(dataset.labels))
    found: dict[str, list[float]] = {"fold_auc": [], "f1": [], "balanced_accuracy": []}
    for fold, fold_scores in zip(folds, scores, strict=True):
        val, test = part_rows(fold, "val"), part_rows(fold, "test")
        out_of_fold[test] = fold_scores[test]
        policy = Policy.parse(fold.experiment.settings.policy)
        threshold = choose_threshold(fold_scores[val], labels[val], policy).threshold
        figures = metrics_at(fold_scores[test], labels[test], threshold)
        for name, value in (("fold_auc", figures["roc_auc"]), *((name, figures[name]) for name in list(found)[1:])):
            if value is not None:
                found[name].append(value)
    means = {name: float(np.mean(values)) for name, values in found.items()}
    return {"pooled_auc": float(roc_auc_score(labels, out_of_fold)), **means}


def training_figures(folds: list[Trained]) -> dict[str, float]:
    """The figures of `TRAINING_FIGURES`, means over the folds."""
    wandering = [np.std([epoch.best.threshold for epoch in fold.epochs]) for fold in folds]
    return {"wandering": float(np.mean(wandering)), "seconds": float(np.mean([fold.seconds for fold in folds]))}


def part_rows(fold: Trained, part: str) -> np.ndarray:
    """Indices (n,) int64 of the videos in one part of the fold's split."""
    return fold.experiment.split.rows(part)


def table_rows(found: dict[tuple[str, str], list[float]]) -> list[Measurement]:
    """One row for each figure and contestant, and the difference of each to the default in the same folds."""
    names = [*REGRESSIONS, *ALTERNATIVES]
    rows = [
        Measurement(what=f"{name}: {title}", unit="s" if figure == "seconds" else "", values=found[name, figure])
        for figure, title in (FIGURES | TRAINING_FIGURES).items()
        for name in names
        if (name, figure) in found
    ]
    for name in names:
        if name != "default":
            pairs = zip(found[name, COMPARED], found["default", COMPARED], strict=True)
            rows.append(
                Measurement(what=f"{name} less default: {FIGURES[COMPARED]}", unit="", values=[a - b for a, b in pairs])
            )
    return rows


if __name__ == "__main__":
    main()
