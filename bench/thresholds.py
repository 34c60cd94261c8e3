"""Compares rules for choosing the threshold: `python -m bench.thresholds --data CACHE --groups CSV`.

A rule sees either a validation part of 15 % of the development videos, or the out-of-fold scores of five inner folds
of all of them. Its threshold is applied to other videos. A rule's loss is the best F1 that any threshold has there,
less the F1 at the rule's threshold. Scores are simulated, and those of a logistic regression on the caches of --data.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit
from scipy.stats import norm

from bench import measure
from bench.figures import show
from bench.measure import Measurement
from bench.pipelines import Columns, read_columns, regression
from bench.recordings import OPTION_TYPE
from bench.sets import image_features, load_grouped, usable_slowfast
from haechi.cache.reader import Cache
from haechi.train.data.split import make_folds, make_split
from haechi.train.evaluate.calibration import EDGE, Calibration
from haechi.train.evaluate.threshold import TABLE_THRESHOLDS, choose_threshold, chosen_row, threshold_table
from haechi.train.policy import Policy
from haechi.train.settings import DEFAULT_PRESET, TrainSettings

F1 = Policy.parse("f1")
NUM_FOLDS = 5
VAL_FRACTION = 0.15

# The number of videos whose labels have as much weight as all calibrated probabilities.
SHRINKING = (50, 200, 1000)

NUM_BAGS = 50
LEAST = 1e-6  # thresholds below it count as this one where logits are averaged

GRID = expit(np.linspace(-12, 12, 481))  # the thresholds among which the best is searched


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The videos that a threshold is chosen on."""

    scores: np.ndarray
    """(n,) float64 in [0, 1]."""
    labels: np.ndarray
    """(n,) int: 1 harmful, 0 safe."""
    pos_weight: float
    """That of the head which gave the scores."""

    @property
    def has_both(self) -> bool:
        return bool(0 < self.labels.sum() < len(self.labels))


def nine_rows(seen: Scored) -> float:
    """The best of the report's nine thresholds."""
    return TABLE_THRESHOLDS[chosen_row(threshold_table(seen.scores, seen.labels))]


def exact(seen: Scored) -> float:
    """The best of all thresholds, as `haechi train` chooses it."""
    return choose_threshold(seen.scores, seen.labels, F1).threshold


def plug_in(seen: Scored) -> float:
    """The threshold with the best F1 that the calibrated probabilities (temperature scaling) expect."""
    return _expected_best(seen.scores, temperature_scaled(seen))


def plug_in_platt(seen: Scored) -> float:
    """The same with Platt scaling: a temperature and a shift."""
    return _expected_best(seen.scores, platt_scaled(seen))


def shrunk(num_videos: int, calibrate: Callable[[Scored], np.ndarray]) -> Callable[[Scored], float]:
    """The best threshold for labels that are mixed with calibrated probabilities.

    The weight of the labels is n / (n + `num_videos`).
    """

    def rule(seen: Scored) -> float:
        weight = len(seen.labels) / (len(seen.labels) + num_videos)
        return _expected_best(seen.scores, weight * seen.labels + (1 - weight) * calibrate(seen))

    return rule


def temperature_scaled(seen: Scored) -> np.ndarray:
    """Probabilities (n,) by `Calibration`, fitted on the same videos."""
    return Calibration.fit(seen.scores, seen.labels, pos_weight=seen.pos_weight).apply(seen.scores)


def platt_scaled(seen: Scored) -> np.ndarray:
    """Probabilities (n,) by logistic regression on the logit, with Platt's smoothed labels (Platt 1999)."""
    logits = _logits(seen.scores)
    num_harmful = int(seen.labels.sum())
    smooth = ((num_harmful + 1) / (num_harmful + 2), 1 / (len(logits) - num_harmful + 2))
    targets = np.where(seen.labels == 1, *smooth)

    def log_loss(line: np.ndarray) -> float:
        z = np.exp(line[0]) * logits + line[1]
        return float((np.logaddexp(0, z) - targets * z).mean())

    slope, shift = minimize(log_loss, np.array([0.0, -np.log(seen.pos_weight)]), method="Nelder-Mead").x
    probabilities: np.ndarray = expit(np.exp(slope) * logits + shift)
    return probabilities


def _expected_best(scores: np.ndarray, probabilities: np.ndarray) -> float:
    """The threshold with the best expected F1 if a video is harmful with these probabilities (n,): half-way to the next
    lower score."""
    order = np.argsort(-scores, kind="stable")
    sorted_scores = scores[order]
    f1 = 2 * np.cumsum(probabilities[order]) / (np.arange(1, len(scores) + 1) + probabilities.sum())
    ends = np.append(sorted_scores[1:] < sorted_scores[:-1], True)
    best = int(np.argmax(np.where(ends, f1, -1)))
    return float((sorted_scores[best] + (sorted_scores[best + 1] if best + 1 < len(scores) else 0.0)) / 2)


def _logits(scores: np.ndarray) -> np.ndarray:
    result: np.ndarray = logit(np.clip(scores, EDGE, 1 - EDGE))
    return result


def bagged(seen: Scored) -> float:
    """The exact choices on `NUM_BAGS` bootstrap samples; the mean of their logits."""
    rng = np.random.default_rng(0)
    chosen = []
    for _ in range(NUM_BAGS):
        rows = rng.integers(len(seen.labels), size=len(seen.labels))
        if seen.labels[rows].any():
            chosen.append(choose_threshold(seen.scores[rows], seen.labels[rows], F1).threshold)
    return float(expit(_logits(np.clip(chosen, LEAST, 1 - LEAST)).mean()))


PART, POOLED = "part of 15 %", "inner folds"
RULES: dict[str, tuple[str, Callable[[Scored], float]]] = {
    "0.5": (POOLED, lambda _: 0.5),
    "nine rows": (PART, nine_rows),
    "exact": (PART, exact),
    "exact, pooled": (POOLED, exact),
    "bagged, pooled": (POOLED, bagged),
    **{f"shrunk, {n}": (POOLED, shrunk(n, temperature_scaled)) for n in SHRINKING},
    "plug-in": (POOLED, plug_in),
    "plug-in, Platt": (POOLED, plug_in_platt),
}


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """A head whose logits are known functions of a latent normal variable."""

    num_videos: int
    """Of the development set."""
    share: float
    """Of harmful videos."""
    auc: float
    hard: float = 0.0
    """Share of the harmful videos that look like safe ones: the logits of harmful videos are a mixture."""
    confidence: float = 2.0
    """How many times the logits are too large."""
    wander: float = 0.3
    """Standard deviation, between heads that are trained on different videos, of the shift and the log of the slope."""

    @property
    def name(self) -> str:
        kind = f", {self.hard:.0%} of the harmful look safe" if self.hard else ""
        return f"simulated: {self.num_videos:,} videos, {self.share:.0%} harmful, AUC {self.auc}{kind}"

    @property
    def distance(self) -> float:
        """Of the means of safe and (not hard) harmful videos."""
        easy_auc = (self.auc - 0.5 * self.hard) / (1 - self.hard)
        return float(np.sqrt(2) * norm.ppf(easy_auc))

    def draws(
        self, rng: np.random.Generator
    ) -> Iterator[tuple[dict[str, Scored], Callable[[np.ndarray], np.ndarray], float]]:
        """Yield, without end, what the rules see, F1 by threshold, and the best F1."""
        while True:
            num_harmful = int(np.clip(round(self.share * self.num_videos), 2, self.num_videos - 2))
            labels = rng.permutation(np.arange(self.num_videos) < num_harmful).astype(int)
            is_easy = (labels == 1) & (rng.random(self.num_videos) >= self.hard)
            latent = rng.normal(size=self.num_videos) + is_easy * self.distance  # (n,)
            fold = np.empty(self.num_videos, dtype=int)
            for label in (0, 1):
                rows = rng.permutation(np.flatnonzero(labels == label))
                fold[rows] = np.arange(len(rows)) % NUM_FOLDS
            heads = [self._head(rng) for _ in range(NUM_FOLDS)]
            slope, shift = (np.array(heads)[fold, k] for k in (0, 1))
            pos_weight = (self.num_videos - num_harmful) / num_harmful
            pooled = Scored(scores=expit(slope * latent + shift), labels=labels, pos_weight=pos_weight)
            part = np.concatenate(
                [
                    (rows := rng.permutation(np.flatnonzero(labels == label)))[
                        : max(1, round(VAL_FRACTION * len(rows)))
                    ]
                    for label in (0, 1)
                ]
            )
            slope, shift = self._head(rng)
            seen = Scored(scores=expit(slope * latent[part] + shift), labels=labels[part], pos_weight=pos_weight)
            f1_at = self._f1_of(slope, shift)
            yield {PART: seen, POOLED: pooled}, f1_at, float(f1_at(GRID).max())

    def _head(self, rng: np.random.Generator) -> tuple[float, float]:
        """Slope and shift of one head's logits: too large, and 0 where both classes are as likely at equal shares."""
        slope = self.confidence * self.distance * np.exp(self.wander * rng.normal() / 2)
        return float(slope), float(-slope * self.distance / 2 + self.wander * rng.normal())

    def _f1_of(self, slope: float, shift: float) -> Callable[[np.ndarray], np.ndarray]:
        """The F1 of the head on all videos that there could be, by threshold."""

        def f1_at(threshold: np.ndarray) -> np.ndarray:
            cut = (logit(np.clip(threshold, EDGE, 1 - EDGE)) - shift) / slope
            safe, easy = norm.sf(cut), norm.sf(cut - self.distance)
            found = self.share * (self.hard * safe + (1 - self.hard) * easy)
            f1: np.ndarray = 2 * found / (found + (1 - self.share) * safe + self.share)
            return f1

        return f1_at


SIMULATIONS = [
    Simulation(num_videos=75, share=0.73, auc=0.8),
    Simulation(num_videos=75, share=0.73, auc=0.9),
    Simulation(num_videos=75, share=0.5, auc=0.8),
    Simulation(num_videos=75, share=0.5, auc=0.85, hard=0.2),
    Simulation(num_videos=300, share=0.73, auc=0.8),
    Simulation(num_videos=300, share=0.5, auc=0.85),
    Simulation(num_videos=300, share=0.5, auc=0.8, hard=0.3),
    Simulation(num_videos=300, share=0.1, auc=0.9),
    Simulation(num_videos=1000, share=0.5, auc=0.98),
    Simulation(num_videos=1000, share=0.01, auc=0.95),
    Simulation(num_videos=1000, share=0.1, auc=0.8, hard=0.3),
    Simulation(num_videos=3000, share=0.73, auc=0.9),
    Simulation(num_videos=3000, share=0.1, auc=0.8, hard=0.3),
    Simulation(num_videos=60, share=0.65, auc=0.7, confidence=3, wander=0.5),
    Simulation(num_videos=91, share=0.74, auc=0.78, hard=0.15),
    Simulation(num_videos=120, share=0.4, auc=0.88, hard=0.1, confidence=1, wander=0.2),
    Simulation(num_videos=200, share=0.25, auc=0.8, hard=0.2, confidence=4),
    Simulation(num_videos=500, share=0.05, auc=0.9),
    Simulation(num_videos=700, share=0.6, auc=0.92, hard=0.1, wander=0.6),
    Simulation(num_videos=2000, share=0.02, auc=0.9, hard=0.1, wander=0.2),
]


def simulate(simulation: Simulation, num_draws: int) -> dict[str, dict[str, list[float]]]:
    """Rule -> `loss`, `threshold` -> a value for each draw."""
    found: dict[str, dict[str, list[float]]] = {rule: {"loss": [], "threshold": []} for rule in RULES}
    for _, (seen, f1_at, best) in zip(range(num_draws), simulation.draws(np.random.default_rng(0)), strict=False):
        for name, (source, rule) in RULES.items():
            threshold = rule(seen[source])
            found[name]["threshold"].append(threshold)
            found[name]["loss"].append(best - float(f1_at(np.array(threshold))))
    return found


def cross_validate(columns: Columns, settings: TrainSettings, num_seeds: int) -> dict[str, dict[str, list[float]]]:
    """Rule -> `loss` and `f1` (a value for each seed), `threshold` (one for each fold of each seed), `spread` over the
    folds (one for each seed).

    The head is the regression whose strength inner folds choose. Each fold's threshold is applied to the fold's videos;
    F1 is that of all videos together. The best F1 is that of one threshold for each fold's scores.
    """
    labels, groups = columns.labels, columns.groups
    fit = regression("mean", "spread", "step", "constant")
    found: dict[str, dict[str, list[float]]] = {
        rule: {"loss": [], "threshold": [], "f1": [], "spread": []} for rule in RULES
    }
    for seed in range(num_seeds):
        settings_seed = TrainSettings.from_dict(settings.to_dict() | {"seed": seed})
        predicted = {rule: np.empty(len(labels)) for rule in RULES}
        out_of_fold = {source: np.empty(len(labels)) for source in (PART, POOLED)}
        chosen: dict[str, list[float]] = {rule: [] for rule in RULES}
        for given in make_folds(labels, groups, settings_seed, num_folds=NUM_FOLDS):
            split = make_split(labels, given, groups, settings_seed)
            train, val, test = (split.rows(name) for name in ("train", "val", "test"))
            both = np.sort(np.concatenate([train, val]))
            ratio = float((labels[both] == 0).sum() / (labels[both] == 1).sum())
            scores = _weighted(fit(columns, train, seed), ratio)
            out_of_fold[PART][test] = scores[test]
            seen = {PART: Scored(scores=scores[val], labels=labels[val], pos_weight=ratio)}
            pooled = np.empty(len(labels))
            inner = make_folds(labels[both], groups[both], settings_seed, num_folds=NUM_FOLDS)
            for names in inner:
                held = both[names == "test"]
                pooled[held] = _weighted(fit(columns, np.setdiff1d(both, held), seed), ratio)[held]
            seen[POOLED] = Scored(scores=pooled[both], labels=labels[both], pos_weight=ratio)
            out_of_fold[POOLED][test] = _weighted(fit(columns, both, seed), ratio)[test]
            for name, (source, rule) in RULES.items():
                threshold = rule(seen[source]) if seen[source].has_both else 0.5
                chosen[name].append(threshold)
                predicted[name][test] = out_of_fold[source][test] >= threshold
        for name, (source, _) in RULES.items():
            f1 = _f1(predicted[name], labels)
            found[name]["f1"].append(f1)
            found[name]["loss"].append(choose_threshold(out_of_fold[source], labels, F1).f1 - f1)
            found[name]["threshold"] += chosen[name]
            found[name]["spread"].append(float(np.std(chosen[name])))
    return found


def _weighted(scores: np.ndarray, pos_weight: float) -> np.ndarray:
    """The scores (N,) that a regression trained with `pos_weight` has, about."""
    weighted: np.ndarray = expit(_logits(scores) + np.log(pos_weight))
    return weighted


def _f1(predicted: np.ndarray, labels: np.ndarray) -> float:
    return float(2 * (predicted * labels).sum() / (predicted.sum() + labels.sum()))


@click.command()
@click.option("--data", "caches", multiple=True, type=click.Path(path_type=Path, exists=True), help="A cache; several.")
@click.option("--groups", type=OPTION_TYPE, help="CSV with the columns path and source: the recordings of the videos.")
@click.option("--out", type=click.Path(path_type=Path), default=measure.RESULTS, help="[default: docs/bench]")
@click.option("--draws", type=click.IntRange(min=1), default=100, show_default=True, help="Resamplings of each set.")
@click.option("--quick", is_flag=True, help="Few draws: only checks that everything runs; the figures mean nothing.")
def main(*, caches: tuple[Path, ...], groups: Path | None, out: Path, draws: int, quick: bool) -> None:
    """Measure each rule's loss of F1 and how much its threshold varies. 100 draws take about 10 minutes on one core."""
    draws = min(draws, NUM_FOLDS) if quick else draws
    found = {each.name: simulate(each, draws) for each in (SIMULATIONS[:1] if quick else SIMULATIONS)}
    untrained = []
    for path in caches:
        cache = Cache.open(path)
        untrained += cache.untrained
        settings = TrainSettings.from_preset(DEFAULT_PRESET, slowfast=usable_slowfast(cache))
        columns = read_columns(load_grouped(cache, settings, groups))
        found[f"{len(columns.labels)} videos, {image_features(cache)}"] = cross_validate(
            columns, settings, max(1, draws // NUM_FOLDS)
        )
    show(measure.write(out, "thresholds", table_rows(found), untrained=bool(untrained), rules=list(RULES)))


TITLES = {"loss": "loss of F1", "f1": "F1", "spread": "standard deviation of thresholds, in a run"}


def table_rows(found: dict[str, dict[str, dict[str, list[float]]]]) -> list[Measurement]:
    """For each set and rule: means of the loss, and of F1 and the spread in a run where there are folds; the deviation
    of the thresholds of all draws."""
    rows = []
    for world, rules in found.items():
        for rule, figures in rules.items():
            name = f"{world}: {rule}"
            rows += [
                Measurement(what=f"{name}: {title}", unit="", values=[float(np.mean(figures[key]))])
                for key, title in TITLES.items()
                if key in figures
            ]
            deviation = float(np.std(figures["threshold"]))
            rows.append(Measurement(what=f"{name}: standard deviation of thresholds", unit="", values=[deviation]))
    return rows


if __name__ == "__main__":
    main()
