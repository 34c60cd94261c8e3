"""Runs side by side on the same videos, with intervals of their differences."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from haechi.cache.text import bullet_list
from haechi.train import run_folder
from haechi.train.errors import TrainError
from haechi.train.evaluate import bootstrap
from haechi.train.evaluate.bootstrap import Interval
from haechi.train.evaluate.metrics import Figures, metrics_at

# As many ids are named where two runs differ.
MOST_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What a run says of the videos of its headline part."""

    path: Path
    part: str
    fingerprint: str
    untrained: list[str]
    threshold: float
    """Of the head that is kept."""
    ids: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    scores: np.ndarray
    thresholds: np.ndarray
    """(N,) what decided each video; ids ascending."""

    @classmethod
    def load(cls, path: Path) -> "Judged":
        """Read a run's folder. Raises `TrainError` where it holds no run of this version, or a damaged one."""
        try:
            metrics = json.loads((path / run_folder.METRICS_FILE).read_text(encoding="utf-8"))
            with (path / run_folder.PREDICTIONS_FILE).open(encoding="utf-8", newline="") as file:
                rows = [row for row in csv.DictReader(file) if row["split"] == metrics["headline"]]
            if (metrics["format"], metrics["format_version"]) != (run_folder.FORMAT, run_folder.FORMAT_VERSION):
                raise TrainError(f"{path}: made by another version of Haechi; train again to compare")
            rows.sort(key=lambda row: row["id"])
            return cls(
                path=path,
                part=metrics["headline"],
                fingerprint=metrics["fingerprint"],
                untrained=metrics["untrained"],
                threshold=float(metrics["best_threshold"]),
                ids=np.array([row["id"] for row in rows], dtype=object),
                labels=np.array([int(row["label"]) for row in rows], dtype=np.int8),
                groups=np.array([row["group"] for row in rows], dtype=object),
                scores=np.array([float(row["score"]) for row in rows]),
                thresholds=np.array([float(row["threshold"]) for row in rows]),
            )
        except FileNotFoundError as error:
            raise TrainError(f"{error.filename}: no such file; {path} is no finished run of `haechi train`") from error
        except (ValueError, KeyError, TypeError) as error:
            raise TrainError(f"{path}: not a run of this version of Haechi, or damaged ({error!r})") from error


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One run beside the first."""

    run: Judged
    figures: Figures
    intervals: dict[str, Interval | None]
    """Figure -> its 95 % bootstrap interval, by groups."""
    differences: dict[str, Interval | None]
    """Figure -> 95 % interval of this run's less the first's, on the same draws; of the first run empty."""

    def record(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "run": str(self.run.path),
            "part": self.run.part,
            "fingerprint": self.run.fingerprint,
            "untrained": self.run.untrained,
            "threshold": self.run.threshold,
            "metrics": self.figures,
            "intervals": self.intervals,
            "differences": self.differences,
        }


def compare(paths: list[Path]) -> list[Compared]:
    """Compare two runs or more.

    Raises `TrainError` where one cannot be read, or where they were not judged on the same videos with the same labels
    in the same part, or their features come from different fingerprints; all offenders are named.
    """
    runs = [Judged.load(path) for path in paths]
    first = runs[0]
    if problems := [text for other in runs[1:] for text in _differences(first, other)]:
        raise TrainError(f"these runs cannot be compared:\n{bullet_list(problems)}")
    return [
        Compared(
            run=each,
            figures=metrics_at(each.scores, each.labels, each.thresholds),
            intervals=bootstrap.intervals(each.scores, each.labels, each.thresholds, first.groups),
            differences={}
            if each is first
            else bootstrap.differences(
                (first.scores, first.thresholds), (each.scores, each.thresholds), first.labels, first.groups
            ),
        )
        for each in runs
    ]


def _differences(first: Judged, other: Judged) -> list[str]:
    """Why the second cannot be held against the first."""
    problems = []
    if first.part != other.part:
        problems.append(f"{other.path}: judged on {other.part}, {first.path} on {first.part}")
    if first.fingerprint != other.fingerprint:
        problems.append(
            f"{other.path}: features of fingerprint {other.fingerprint[:12]}…, {first.path} has "
            f"{first.fingerprint[:12]}…: other models, weights or sampling"
        )
    labels_of = [dict(zip(each.ids, each.labels.tolist(), strict=True)) for each in (first, other)]
    for found, missing, here in [(labels_of[0], labels_of[1], first), (labels_of[1], labels_of[0], other)]:
        if alone := sorted(found.keys() - missing.keys()):
            problems.append(f"{len(alone)} videos are judged only in {here.path}: {_named(alone)}")
    both = labels_of[0].keys() & labels_of[1].keys()
    if relabelled := sorted(id for id in both if labels_of[0][id] != labels_of[1][id]):
        problems.append(f"{other.path}: {len(relabelled)} videos have another label: {_named(relabelled)}")
    return problems


def _named(ids: list[str]) -> str:
    return ", ".join(map(repr, ids[:MOST_NAMED])) + (" …" if len(ids) > MOST_NAMED else "")
