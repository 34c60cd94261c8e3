"""Comparison of runs on the same videos, with bootstrap intervals of their differences."""

import csv
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from haechi.cache.text import bullet_list, counted, from_harmless
from haechi.train import run_folder
from haechi.train.errors import TrainError
from haechi.train.evaluate import bootstrap
from haechi.train.evaluate.bootstrap import Interval
from haechi.train.evaluate.metrics import Figures, metrics_at
from haechi.train.untrained import seen_by_head

# Ids named in an error where two runs differ.
MAX_IDS = 5


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """Scores and labels that a run folder holds for the N videos of its headline part, in the order of its file."""

    path: Path
    """The run folder."""
    part: str
    """The headline part: `test`, or `val`."""
    fingerprint: str
    """Fingerprint of the features."""
    untrained: list[str]
    """Backbones with random weights whose features the head sees."""
    threshold: float
    """Threshold of the head that is kept."""
    ids: np.ndarray
    """(N,) str"""
    labels: np.ndarray
    """(N,) int8: 1 harmful, 0 safe."""
    groups: np.ndarray
    """(N,) str; empty: no group."""
    scores: np.ndarray
    """(N,) float64 in [0, 1]"""
    thresholds: np.ndarray
    """(N,) float64: the threshold that decided each video; with folds, the threshold of its fold."""
    calibrated: np.ndarray
    """(N,) float64: the scores as probabilities that a video is harmful."""
    is_folds: bool
    """Whether each video was scored by the head of the fold that did not train on it."""

    @classmethod
    def load(cls, path: Path) -> "FinishedRun":
        """Read a run folder. Raises `TrainError` where it holds no run of this version, or a damaged one."""
        try:
            metrics = json.loads(run_folder.current(path / run_folder.METRICS_FILE).read_text(encoding="utf-8"))
            predictions = run_folder.current(path / run_folder.PREDICTIONS_FILE)
            with predictions.open(encoding="utf-8", newline="") as file:
                rows = [row for row in csv.DictReader(file) if row["split"] == metrics["headline"]]
            if (metrics["format"], metrics["format_version"]) != (run_folder.FORMAT, run_folder.FORMAT_VERSION):
                raise TrainError(f"{path}: written by another version of Haechi; train again")
            found = cls(
                path=path,
                part=metrics["headline"],
                fingerprint=metrics["fingerprint"],
                untrained=seen_by_head(metrics["untrained"], metrics["streams"]),  # older runs name all of the cache
                threshold=float(metrics["best_threshold"]),
                ids=np.array([from_harmless(row["id"]) for row in rows], dtype=object),
                labels=np.array([int(row["label"]) for row in rows], dtype=np.int8),
                groups=np.array([row["group"] for row in rows], dtype=object),
                scores=np.array([float(row["score"]) for row in rows]),
                thresholds=np.array([float(row["threshold"]) for row in rows]),
                calibrated=np.array([float(row["calibrated"]) for row in rows]),
                is_folds=metrics["mode"] == "folds",
            )
            expected = sum(metrics["counts"][found.part].values())
        except FileNotFoundError as error:
            raise TrainError(
                f"{error.filename}: no such file; {path} is not a finished run of `haechi train`"
            ) from error
        except OSError as error:
            raise TrainError(f"{error.filename or path}: cannot be read ({error.strerror})") from error
        except (ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
            raise TrainError(f"{path}: not a run of this version of Haechi, or damaged ({error!r})") from error
        if len(found.ids) != expected:
            raise TrainError(
                f"{predictions}: damaged: it has {counted(len(found.ids), 'video')} of the part {found.part}, expected "
                f"{expected:,}; train again"
            )
        return found

    def by_id(self) -> "FinishedRun":
        """The same with its videos by ascending id."""
        order = np.argsort(self.ids, kind="stable")
        columns = ("ids", "labels", "groups", "scores", "thresholds", "calibrated")
        return replace(self, **{name: getattr(self, name)[order] for name in columns})


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One run compared with the first run."""

    run: FinishedRun
    figures: Figures
    intervals: dict[str, Interval | None]
    """Metric -> its 95 % bootstrap interval, over groups."""
    differences: dict[str, Interval | None]
    """Metric -> 95 % interval of this run's value minus the first run's, on the same draws; empty for the first run."""

    def record(self) -> dict[str, Any]:
        """This comparison as `haechi compare --json` prints it."""
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


def compare(paths: list[Path]) -> list[Comparison]:
    """Compare two or more runs; each is compared with the first.

    Raises `TrainError` where a run cannot be read, or where runs were not evaluated on the same videos with the same
    labels in the same part, or their features have different fingerprints; all problems are listed.
    """
    runs = [FinishedRun.load(path).by_id() for path in paths]
    first = runs[0]
    if problems := [text for other in runs[1:] for text in _obstacles(first, other)]:
        raise TrainError(f"these runs cannot be compared:\n{bullet_list(problems)}")
    return [
        Comparison(
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


def _obstacles(first: FinishedRun, other: FinishedRun) -> list[str]:
    """Reasons why the second run cannot be compared with the first."""
    problems = []
    if first.part != other.part:
        problems.append(f"{other.path}: evaluated on {other.part}, {first.path} on {first.part}")
    if first.fingerprint != other.fingerprint:
        problems.append(
            f"{other.path}: features have fingerprint {other.fingerprint[:12]}…, those of {first.path} have "
            f"{first.fingerprint[:12]}…: models, weights or sampling differ"
        )
    labels, other_labels = (dict(zip(each.ids, each.labels.tolist(), strict=True)) for each in (first, other))
    for present, absent, run in [(labels, other_labels, first), (other_labels, labels, other)]:
        if alone := sorted(present.keys() - absent.keys()):
            problems.append(f"{counted(len(alone), 'video is', 'videos are')} only in {run.path}: {_listed(alone)}")
    if relabelled := sorted(id for id in labels.keys() & other_labels.keys() if labels[id] != other_labels[id]):
        problems.append(
            f"{other.path}: {counted(len(relabelled), 'video has', 'videos have')} another label: {_listed(relabelled)}"
        )
    return problems


def _listed(ids: list[str]) -> str:
    return ", ".join(map(repr, ids[:MAX_IDS])) + (" …" if len(ids) > MAX_IDS else "")
