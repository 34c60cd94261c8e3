"""Results of several experiments: mean and standard deviation over the seeds, experiments.json and experiments.csv."""

import csv
import io
import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haechi.cache.atomic import replace_text
from haechi.cache.text import harmless
from haechi.train import run_folder
from haechi.train.evaluate.metrics import Figures
from haechi.train.grid import Trial
from haechi.train.output.verdict import find
from haechi.train.result import HELD_OUT_PARTS, Result


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a trial, or the error that ended it."""

    trial: Trial
    figures: dict[str, Figures]
    """Held-out part -> its metrics at the threshold. With folds, test holds all videos, each scored by its fold's head,
    and val the means over the folds. Empty where training diverged."""
    best_epoch: int | None
    """None where training diverged, as `threshold` and `seconds`."""
    threshold: float | None
    seconds: float | None
    """Duration from the first epoch to the last score."""
    error: str
    """Why training diverged; empty where it did not."""
    warning: str = ""
    """In words, that the head is worse in ranking than logistic regression; empty where it is not."""

    @classmethod
    def of(cls, trial: Trial, result: Result) -> "Outcome":
        """The outcome of a trial that finished."""
        return cls(
            trial=trial,
            figures=_figures(result),
            best_epoch=result.best_epoch,
            threshold=result.threshold,
            seconds=result.seconds,
            error="",
            warning=next((finding.claim for finding in find(result) if finding.is_warning), ""),
        )

    @classmethod
    def failed(cls, trial: Trial, error: str) -> "Outcome":
        """The outcome of a trial whose training diverged."""
        return cls(trial=trial, figures={}, best_epoch=None, threshold=None, seconds=None, error=error)

    def value(self, name: str) -> float | None:
        """A number by its name: `threshold`, `seconds`, or part and metric, such as `val.f1`. None: undefined."""
        if name in {"threshold", "seconds"}:
            found: float | None = getattr(self, name)
            return found
        part, _, metric = name.partition(".")
        return self.figures.get(part, {}).get(metric)


def _figures(result: Result) -> dict[str, Figures]:
    found = {part: figures for part, figures in result.metrics.items() if part in HELD_OUT_PARTS}
    if result.folds:
        validation = [fold.val_figures for fold in result.folds]
        spreads = {name: Spread.over([figures[name] for figures in validation]) for name in validation[0]}
        found["val"] = {name: spread.mean if spread else None for name, spread in spreads.items()}
    return found


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Mean and standard deviation of some values."""

    mean: float
    sd: float | None
    """Sample standard deviation; None for a single value."""

    @classmethod
    def over(cls, values: list[float | None]) -> "Spread | None":
        """The spread of the values that are defined; None where none is."""
        defined = [value for value in values if value is not None]
        if not defined:
            return None
        return cls(mean=statistics.fmean(defined), sd=statistics.stdev(defined) if len(defined) > 1 else None)


def by_point(outcomes: list[Outcome]) -> dict[str, list[Outcome]]:
    """Name of each point of the grid -> its outcomes, in the order of the trials."""
    points: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        points.setdefault(outcome.trial.name, []).append(outcome)
    return points


def best_point(outcomes: list[Outcome]) -> str | None:
    """Name of the point with the highest mean F1 on validation; of equal ones the first. None where all diverged."""
    means = {
        name: Spread.over([each.value("val.f1") for each in trials]) for name, trials in by_point(outcomes).items()
    }
    scored = {name: spread.mean for name, spread in means.items() if spread is not None}
    return max(scored, key=scored.__getitem__) if scored else None


def write_summary(
    out: Path,
    outcomes: list[Outcome],
    *,
    fingerprint: str,
    untrained: list[str],
    new_labels: dict[str, Any] | None = None,
) -> None:
    """Write experiments.json and experiments.csv of the outcomes so far, each whole or not at all.

    `new_labels` is the record of the file that replaced labels of the cache (`NewLabels.record`), if any. Texts in the
    CSV go through `haechi.cache.text.harmless`.
    """
    data = {
        "format": run_folder.EXPERIMENTS_FORMAT,
        "format_version": run_folder.FORMAT_VERSION,
        "fingerprint": fingerprint,
        "untrained": untrained,
        "new_labels": new_labels,
        "best_point": best_point(outcomes),
        "experiments": [
            {
                "folder": outcome.trial.folder,
                "point": outcome.trial.point,
                "settings": outcome.trial.settings.to_dict(),
                "best_epoch": outcome.best_epoch,
                "best_threshold": outcome.threshold,
                "metrics": outcome.figures,
                "seconds": outcome.seconds,
                "error": outcome.error,
            }
            for outcome in outcomes
        ],
    }
    replace_text(
        out / run_folder.EXPERIMENTS_FILE, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    )
    replace_text(out / run_folder.EXPERIMENTS_TABLE, _csv([_record(outcome) for outcome in outcomes]))


def _record(outcome: Outcome) -> dict[str, Any]:
    """A row of the CSV; undefined values are empty."""
    return {
        "folder": outcome.trial.folder,
        **outcome.trial.settings.to_dict(),
        "best_epoch": outcome.best_epoch,
        "best_threshold": outcome.threshold,
        "seconds": outcome.seconds,
        "error": outcome.error,
        **{f"{part}_{name}": value for part, figures in outcome.figures.items() for name, value in figures.items()},
    }


def _csv(records: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    columns = list(dict.fromkeys(name for record in records for name in record))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {name: harmless(value) if isinstance(value, str) else value for name, value in record.items()}
        for record in records
    )
    return text.getvalue()
