"""Which preset is the default: quality and time of each by cross-validation. `python -m bench.presets --data CACHE`.

Each of five folds, groups whole, is once the test split, which only the end scores. On the rest runs what
`haechi train` does: a validation split is drawn, best epoch and threshold are taken on it.
"""

from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from bench import measure
from bench.figures import show
from bench.measure import Row
from bench.options import common
from cache.reader import Cache
from train.dataset import Dataset, load_dataset
from train.experiment import prepare, train_once
from train.metrics import metrics_at
from train.settings import DEFAULT_PRESET, PRESETS, TrainSettings

NUM_FOLDS = 5
FIGURES = {"roc_auc": "ROC AUC", "f1": "F1", "balanced_accuracy": "balanced accuracy"}


@click.command()
@common
def main(*, data: Path | None, out: Path, rounds: int, quick: bool) -> None:
    """Cross-validate every preset on the cache --data, `rounds` times with other folds, presets in turn."""
    if data is None:
        raise click.UsageError("--data CACHE: a cache of labelled videos is needed")
    cache = Cache.open(data)
    found: dict[tuple[str, str], list[float]] = {}
    for seed in range(rounds):
        for preset in PRESETS:
            settings = TrainSettings.of_preset(preset, seed=seed, epochs=1 if quick else None)
            dataset = load_dataset(cache, settings)
            for name, value in cross_validate(dataset, settings).items():
                found.setdefault((preset, name), []).append(value)
    rows = [
        Row(what=f"{preset}: {title}", unit="s" if name == "seconds" else "", values=found[preset, name])
        for name, title in {**FIGURES, "seconds": "training, a fold"}.items()
        for preset in PRESETS
    ]
    groups = len(set(dataset.groups[dataset.groups != ""].tolist()))
    show(
        measure.write(
            out,
            "presets",
            rows,
            untrained=bool(cache.untrained),
            num_videos=len(dataset.ids),
            num_harmful=int(dataset.labels.sum()),
            num_groups=groups,
            default=DEFAULT_PRESET,
        )
    )


def cross_validate(dataset: Dataset, settings: TrainSettings) -> dict[str, float]:
    """Mean figures over the test folds in which they are defined, and mean seconds of training."""
    found: dict[str, list[float]] = {name: [] for name in (*FIGURES, "seconds")}
    groups = [group or f"\0{id}" for group, id in zip(dataset.groups, dataset.ids, strict=True)]
    folds = StratifiedGroupKFold(NUM_FOLDS, shuffle=True, random_state=settings.seed)
    for _, test in folds.split(dataset.labels, dataset.labels, groups):
        splits = np.full(len(dataset.ids), "", dtype=object)
        splits[test] = "test"
        result = train_once(prepare(replace(dataset, splits=splits), settings))
        figures = metrics_at(result.scores[test], dataset.labels[test], result.best.best.threshold)
        for name in FIGURES:
            if (value := figures[name]) is not None:
                found[name].append(value)
        found["seconds"].append(result.seconds)
    return {name: float(np.mean(values)) for name, values in found.items()}


if __name__ == "__main__":
    main()
