"""Compares classifiers by what each loses against the best of them on the same set: `python -m bench.contest`.

The sets are synthetic ones in which it is known what the label depends on (`bench.structures`), and the caches of
--data, cross-validated with whole recordings. Every classifier sees the same videos in training and test; whatever it
chooses (epoch, strength, threshold) it chooses among its training videos. Heads are trained by the code of `haechi
train`.
"""

import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from bench import measure, tables
from bench.measure import Measurement
from bench.pipelines import Pipeline, rbf_svm, read_columns, regression
from bench.recordings import OPTION_TYPE
from bench.sets import image_features, load_grouped, usable_slowfast
from bench.structures import NUM_TESTED, STRUCTURES, SyntheticSet
from haechi.cache.reader import Cache
from haechi.train.data.dataset import Dataset
from haechi.train.data.scenes import same_files
from haechi.train.pipeline import carry_out
from haechi.train.plan import Grouping, Plan, make_plan
from haechi.train.settings import DEFAULT_PRESET, TrainSettings

NUM_FOLDS = 5
FEWEST_OF_A_CLASS = 8
AUC, ORACLE = "ROC AUC", "oracle"
NOTHING = "none, "  # the names of the sets in which the label depends on nothing start with it
QUICK = {"epochs": 1}


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """A head of `haechi train`, or a classifier of scikit-learn."""

    settings: Mapping[str, Any] | None = None
    """The preset and the settings that differ from it."""
    pipeline: Pipeline | None = None
    baseline: bool = False
    """Whether it is the regression that the run of `settings` compares its head with."""
    most_videos: int = 10_000
    """It takes too long on larger sets."""


CONTESTANTS = {
    "default": Contestant(settings={"preset": DEFAULT_PRESET}),
    "its regression": Contestant(settings={"preset": DEFAULT_PRESET}, baseline=True),
    "Model 4": Contestant(settings={"preset": "model4"}, most_videos=100),
    "regression": Contestant(pipeline=regression("mean", "spread", "step", "constant")),
    "regression without the mean": Contestant(pipeline=regression("spread", "step", "constant")),
    "RBF SVM": Contestant(pipeline=rbf_svm("mean", "spread", "step", "constant"), most_videos=1000),
}
"""Name -> contestant. A new one is one line."""


@dataclass(frozen=True, kw_only=True)
class Race:
    """One draw of a set: the videos, and the parts of them that all contestants have in common."""

    dataset: Dataset
    options: Mapping[str, Any]
    """Settings that all heads have: seed, folds, features."""
    oracle: np.ndarray | None = None
    """(N,) scores of the oracle, if there is one."""

    def plan(self, **settings: Any) -> Plan:
        """The plan of a run. The videos of its test parts depend on the options alone."""
        wanted = TrainSettings.from_preset(**{"preset": DEFAULT_PRESET, **self.options, **settings})
        grouping = Grouping(groups=self.dataset.groups, source="manifest", scenes=same_files(self.dataset.sha256))
        return make_plan(self.dataset, grouping, wanted)


@dataclass(frozen=True, kw_only=True)
class Set:
    """A set that the contestants are compared on, with several draws."""

    name: str
    num_videos: int
    draw: Callable[[int], Race]
    """From a seed."""


def synthetic(chosen: SyntheticSet, *, num_tested: int) -> Set:
    """A synthetic set; each seed draws other videos."""

    def draw(seed: int) -> Race:
        dataset, oracle = chosen.draw(seed, num_tested=num_tested)
        return Race(dataset=dataset, options={"seed": seed, "folds": 0, "scenes": False}, oracle=oracle)

    return Set(name=chosen.name, num_videos=chosen.num_videos, draw=draw)


def cached(path: Path, groups: Path | None) -> Set:
    """The labelled videos of a cache; each seed draws other folds."""
    cache = Cache.open(path)
    options = {"slowfast": usable_slowfast(cache), "folds": NUM_FOLDS, "scenes": False}
    dataset = load_grouped(cache, TrainSettings.from_preset(DEFAULT_PRESET, **options), groups)
    name = f"{len(dataset.labels)} clips, {image_features(cache)}"
    return Set(
        name=name,
        num_videos=len(dataset.labels),
        draw=lambda seed: Race(dataset=dataset, options=options | {"seed": seed}),
    )


Scores = tuple[np.ndarray, np.ndarray | None]
"""Scores (N,) of all videos, those of test parts by a classifier that did not see them; the threshold of each (N,), if
the contestant chooses any."""


def run_all(race: Race, contestants: Mapping[str, Contestant], **quick: Any) -> Iterator[tuple[str, Scores, float]]:
    """Yield the name of each contestant, its scores, and its seconds; `quick` are settings of all heads."""
    done: dict[str, tuple[Any, float]] = {}
    columns = None
    for name, contestant in contestants.items():
        started = time.perf_counter()
        if contestant.settings is None:
            assert contestant.pipeline is not None, name
            columns = columns or read_columns(race.dataset)
            scores = np.full(len(race.dataset.labels), np.nan)
            for split in race.plan().splits:
                test = split.rows("test")
                fit = np.setdiff1d(np.arange(len(scores)), test)
                scores[test] = contestant.pipeline(columns, fit, race.options["seed"])[test]
            yield name, (scores, None), time.perf_counter() - started
            continue
        key = repr(sorted(contestant.settings.items()))
        if key not in done:  # a head and its baseline share a run
            result = carry_out(race.plan(**{**contestant.settings, **quick}))
            done[key] = result, time.perf_counter() - started
        result, seconds = done[key]
        found = result.baselines["logistic_regression"] if contestant.baseline else result
        yield name, (found.scores, found.thresholds), seconds


def figures_of(race: Race, scores: np.ndarray, thresholds: np.ndarray | None) -> dict[str, float]:
    """ROC AUC of the test videos, all folds together; for a cache also that of the folds, their mean, and F1 at the
    chosen thresholds with their deviation."""
    splits, labels = race.plan().splits, race.dataset.labels
    tests = [split.rows("test") for split in splits]
    rows = np.concatenate(tests)
    figures = {AUC: float(roc_auc_score(labels[rows], scores[rows]))}
    if len(splits) > 1:
        figures["ROC AUC, mean of the folds"] = float(np.mean([roc_auc_score(labels[t], scores[t]) for t in tests]))
        figures["average precision"] = float(average_precision_score(labels[rows], scores[rows]))
        if thresholds is not None:
            figures["F1"] = float(f1_score(labels[rows], scores[rows] >= thresholds[rows]))
            figures["deviation of thresholds"] = float(np.std([thresholds[t[0]] for t in tests]))
    return figures


def synthetic_sets(
    structures: Sequence[str], sizes: Sequence[int], ratios: Sequence[float], widths: Sequence[int]
) -> list[SyntheticSet]:
    """All combinations that have at least `FEWEST_OF_A_CLASS` videos of each class; small ones first."""
    return [
        SyntheticSet(structure=structure, num_videos=size, ratio=ratio, width=width)
        for size, width, ratio, structure in itertools.product(sizes, widths, ratios, structures)
        if size * min(ratio, 1) / (1 + ratio) >= FEWEST_OF_A_CLASS
    ]


@click.command()
@click.option("--data", "caches", multiple=True, type=click.Path(path_type=Path, exists=True), help="A cache; several.")
@click.option("--groups", type=OPTION_TYPE, help="CSV with the columns path and source: the recordings of the videos.")
@click.option("--out", type=click.Path(path_type=Path), default=measure.RESULTS, help="[default: docs/bench]")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="Seeds of each set.")
@click.option("--structure", "structures", multiple=True, type=click.Choice(list(STRUCTURES)), help="[default: all]")
@click.option(
    "--size", "sizes", multiple=True, type=int, default=(100, 1000), show_default=True, help="Videos; several."
)
@click.option("--width", "widths", multiple=True, type=int, default=(512,), show_default=True, help="Of CLIP; several.")
@click.option(
    "--ratio", "ratios", multiple=True, type=float, default=(2.7, 1.0, 0.01), show_default="2.7, 1, 0.01",
    help="Harmful videos for each safe one; several. Sets with fewer than 8 videos of a class are left out.",
)  # fmt: skip
@click.option("--contestant", "names", multiple=True, type=click.Choice(list(CONTESTANTS)), help="[default: all]")
@click.option("--no-synthetic", is_flag=True, help="Only the caches of --data.")
@click.option(
    "--quick", is_flag=True, help="One small set: only checks that everything runs; the figures mean nothing."
)
def main(
    *,
    caches: tuple[Path, ...],
    groups: Path | None,
    out: Path,
    rounds: int,
    structures: tuple[str, ...],
    sizes: tuple[int, ...],
    widths: tuple[int, ...],
    ratios: tuple[float, ...],
    names: tuple[str, ...],
    no_synthetic: bool,
    quick: bool,
) -> None:
    """Compare classifiers on synthetic sets and on the caches of --data.

    The results are written after each set, so that a run can be stopped. With one seed on one core, a set of 100 videos
    takes half a minute to two minutes, mostly for Model 4 (leave it out with --contestant), one of 1,000 half a minute
    to two minutes, mostly for the default head; one of 10,000 takes ten times as long and up to 3 GB of memory. A width
    of 1280 takes two to three times as long. All defaults together take two to three hours.

    The whole suite: --size 100 --size 1000 --size 10000 --width 512 --width 1280.
    """
    contestants = {name: each for name, each in CONTESTANTS.items() if not names or name in names}
    sets = [cached(path, groups) for path in caches]
    num_tested = 40 if quick else NUM_TESTED
    if quick:
        structures, sizes, widths, ratios, rounds = structures or ("mean",), (40,), (64,), (1.0,), 1
    if not no_synthetic:
        sets += [
            synthetic(each, num_tested=num_tested)
            for each in synthetic_sets(structures or list(STRUCTURES), sizes, ratios, widths)
        ]
    if not sets:
        raise click.UsageError("nothing to compare on: give --data, or leave --no-synthetic out")
    untrained = any(Cache.open(path).untrained for path in caches)
    found: dict[tuple[str, str, str], list[float]] = {}
    for chosen in sets:
        allowed = {name: each for name, each in contestants.items() if chosen.num_videos <= each.most_videos}
        for seed in range(rounds):
            race = chosen.draw(seed)
            if race.oracle is not None:
                found.setdefault((chosen.name, ORACLE, AUC), []).append(figures_of(race, race.oracle, None)[AUC])
            for name, (scores, thresholds), seconds in run_all(race, allowed, **(QUICK if quick else {})):
                for figure, value in (figures_of(race, scores, thresholds) | {"seconds": seconds}).items():
                    found.setdefault((chosen.name, name, figure), []).append(value)
        path = measure.write(
            out,
            "contest",
            table_rows(found),
            untrained=untrained,
            contestants=list(contestants),
            sets=[each.name for each in sets if (each.name, next(iter(allowed)), AUC) in found],
            clips=[each.name for each in sets[: len(caches)]],
        )
        click.echo(tables.contest_lines(json.loads(path.read_text(encoding="utf-8")))[-2])
    click.echo(tables.table("contest", out))


def table_rows(found: Mapping[tuple[str, str, str], list[float]]) -> list[Measurement]:
    """For each set, contestant and figure the values of all seeds; then each contestant's largest regret: how much
    lower its mean ROC AUC is than the best one, on the worst set whose label depends on something."""
    rows = [
        Measurement(what=f"{chosen}: {name}: {figure}", unit="s" if figure == "seconds" else "", values=values)
        for (chosen, name, figure), values in found.items()
    ]
    for name, each in regrets(found).items():
        rows.append(Measurement(what=f"largest regret: {name}", unit="", values=[max(each.values())]))
    return rows


def regrets(found: Mapping[tuple[str, str, str], list[float]]) -> dict[str, dict[str, float]]:
    """Contestant -> set -> how much lower its mean ROC AUC is than the best one there. The sets in which there is
    nothing to find are left out, since all differences are chance."""
    means: dict[str, dict[str, float]] = {}
    for (chosen, name, figure), values in found.items():
        if figure == AUC and name != ORACLE and not chosen.startswith(NOTHING):
            means.setdefault(chosen, {})[name] = float(np.mean(values))
    result: dict[str, dict[str, float]] = {}
    for chosen, each in means.items():
        for name, mean in each.items():
            result.setdefault(name, {})[chosen] = max(each.values()) - mean
    return result


if __name__ == "__main__":
    main()
