"""Several experiments side by side: mean and spread over the seeds, for programs (JSON, CSV) and for the table."""

import csv
import io
import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haechi.cache.text import harmless
from haechi.train import run_folder
from haechi.train.evaluate.metrics import Figures
from haechi.train.grid import Trial
from haechi.train.result import JUDGED, Result


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a trial."""

    trial: Trial
    figures: dict[str, Figures]
    """Part of the split (val, test) -> its figures at the threshold; where there are folds, test are all of them, out
    of fold, and val the mean over them. Empty where training diverged."""
    best_epoch: int | None
    threshold: float | None
    seconds: float | None
    """From the first epoch to the last score."""
    error: str
    """What went wrong; empty: nothing."""

    @classmethod
    def of(cls, trial: Trial, result: Result) -> "Outcome":
        """Of a trial that was trained to its end."""
        return cls(
            trial=trial,
            figures=_figures(result),
            best_epoch=result.best_epoch,
            threshold=result.threshold,
            seconds=result.seconds,
            error="",
        )

    @classmethod
    def failed(cls, trial: Trial, error: str) -> "Outcome":
        """Of a trial whose training diverged."""
        return cls(trial=trial, figures={}, best_epoch=None, threshold=None, seconds=None, error=error)

    def value(self, name: str) -> float | None:
        """A number by its name: `threshold`, `seconds`, or `PART.FIGURE` as in `val.f1`. None: undefined."""
        if name in {"threshold", "seconds"}:
            found: float | None = getattr(self, name)
            return found
        part, _, figure = name.partition(".")
        return self.figures.get(part, {}).get(figure)


def _figures(result: Result) -> dict[str, Figures]:
    found = {part: figures for part, figures in result.metrics.items() if part in JUDGED}
    if result.folds:
        of_folds = [fold.val_figures for fold in result.folds]
        spreads = {name: Spread.over([figures[name] for figures in of_folds]) for name in of_folds[0]}
        found["val"] = {name: spread.mean if spread else None for name, spread in spreads.items()}
    return found


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A number over the seeds of one point."""

    mean: float
    sd: float | None
    """The sample's standard deviation; None where there is one seed."""

    @classmethod
    def over(cls, values: list[float | None]) -> "Spread | None":
        """Of the values that are defined; None where none is."""
        defined = [value for value in values if value is not None]
        if not defined:
            return None
        return cls(mean=statistics.fmean(defined), sd=statistics.stdev(defined) if len(defined) > 1 else None)


def by_point(outcomes: list[Outcome]) -> dict[str, list[Outcome]]:
    """The outcomes of each point of the grid, by its name, in order."""
    points: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        points.setdefault(outcome.trial.name, []).append(outcome)
    return points


def best_point(outcomes: list[Outcome]) -> str | None:
    """The point with the highest mean F1 on validation; of equal ones the first. None where all diverged."""
    means = {name: Spread.over([o.value("val.f1") for o in of_point]) for name, of_point in by_point(outcomes).items()}
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

    `new_labels` says what file has labelled the videos in place of the cache (`NewLabels.record`). Texts in the CSV
    are those of `haechi.cache.text.harmless`.
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
    run_folder.replace_text(
        out / run_folder.EXPERIMENTS_FILE, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    )
    run_folder.replace_text(out / run_folder.EXPERIMENTS_TABLE, _csv([_record(outcome) for outcome in outcomes]))


def _record(outcome: Outcome) -> dict[str, Any]:
    """A row of the CSV; what is undefined is empty."""
    return {
        "folder": outcome.trial.folder,
        **outcome.trial.settings.to_dict(),
        "best_epoch": outcome.best_epoch,
        "best_threshold": outcome.threshold,
        "seconds": outcome.seconds,
        "error": outcome.error,
        **{f"{part}_{figure}": value for part, figures in outcome.figures.items() for figure, value in figures.items()},
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
