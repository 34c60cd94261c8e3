"""Measures how often the intervals of `haechi evaluate` contain the true value: `python -m bench.evaluation`.

Scores are simulated: the logits of the safe and of the harmful videos are two normal distributions, so that the true
value of each figure is known. In half of the simulated sets, groups of 1 to 5 videos of one label share half of their
variance. Sets have 200 to 2,000 videos, evenly spaced as logarithms.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from scipy.special import expit, logit
from scipy.stats import norm

from bench import measure
from bench.figures import show
from bench.measure import Measurement
from haechi.predict.evaluation.causes import find_causes
from haechi.predict.evaluation.fall import find_changes
from haechi.predict.evaluation.prevalence import at_prevalences, review
from haechi.predict.evaluation.quantify import PrevalenceEstimate, estimate_prevalence
from haechi.predict.evaluation.scored import Scored
from haechi.predict.evaluation.slices import NUM_SLICE_DRAWS, find_slices
from haechi.train.data.groups import group_numbers
from haechi.train.evaluate.bootstrap import COVERAGE, NUM_DRAWS, Interval
from haechi.train.policy import Policy

SHIFTS = ("label shift", "ranking loss", "threshold shift", "ranking loss and threshold shift")
PREVALENCES = (0.01, 0.05, 0.3)
F1 = Policy.parse("f1")
LEAST_VIDEOS, MOST_VIDEOS, MOST_IN_GROUP = 200, 2000, 5
GRID = np.linspace(-5, 8, 2601)  # thresholds among which the best is searched


@dataclass(frozen=True, kw_only=True)
class World:
    """Videos of which `share` is harmful. A safe logit is normal with mean `offset` and variance 1, a harmful one lies
    `distance` higher."""

    share: float
    distance: float
    offset: float = 0.0

    def rates(self, cut: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Recall and false positive rate with the logit `cut` as the threshold."""
        above = np.asarray(cut) - self.offset
        return norm.sf(above - self.distance), norm.sf(above)

    def f1(self, cut: float | np.ndarray) -> np.ndarray:
        """F1 with the logit `cut` as the threshold."""
        recall, false_positive_rate = self.rates(cut)
        flagged = self.share * recall + (1 - self.share) * false_positive_rate
        return np.asarray(2 * self.share * recall / (flagged + self.share))

    @property
    def best_cut(self) -> float:
        """The threshold with the highest F1."""
        return float(GRID[self.f1(GRID).argmax()])

    def metrics(self, cut: float) -> dict[str, float]:
        """True values of metrics, all but average precision."""
        recall, false_positive_rate = (float(rate) for rate in self.rates(cut))
        hits, wrong = self.share * recall, (1 - self.share) * false_positive_rate
        return {
            "f1": float(self.f1(cut)),
            "precision": hits / (hits + wrong),
            "recall": recall,
            "accuracy": hits + (1 - self.share) - wrong,
            "balanced_accuracy": (recall + 1 - false_positive_rate) / 2,
            "roc_auc": float(norm.cdf(self.distance / np.sqrt(2))),
        }

    def draw(self, rng: np.random.Generator, cut: float, *, in_groups: bool) -> Scored:
        """A set of videos, decided at `cut`; its size is random. The calibrated probabilities are those of `share`."""
        n = round(float(np.exp(rng.uniform(*np.log([LEAST_VIDEOS, MOST_VIDEOS])))))
        number = np.repeat(np.arange(n), rng.integers(1, MOST_IN_GROUP + 1, size=n))[:n] if in_groups else np.arange(n)
        harmful = (rng.random(n) < self.share)[number]
        noise, shared = rng.normal(size=n), rng.normal(size=n)[number]
        logits = (np.sqrt(0.5) * (noise + shared) if in_groups else noise) + self.distance * harmful
        return Scored(
            scores=norm.cdf(logits + self.offset),
            labels=harmful.astype(np.int8),
            thresholds=np.full(n, norm.cdf(cut)),
            calibrated=expit(self.distance * (logits - self.distance / 2) + logit(self.share)),
            groups=np.array([f"recording {i}" for i in number] if in_groups else [""] * n, dtype=object),
        )


@dataclass(frozen=True, kw_only=True)
class Shift:
    """A planted shift: a run's own part, and a set."""

    kind: str
    own_world: World
    here_world: World
    cut: float
    own: Scored
    here: Scored

    @property
    def parts(self) -> dict[str, float]:
        """The true fall of F1 and its true parts."""
        own, here = float(self.own_world.f1(self.cut)), float(self.here_world.f1(self.cut))
        best = float(self.here_world.f1(self.here_world.best_cut))
        reweighted = World(share=self.here_world.share, distance=self.own_world.distance)
        best_reweighted = float(reweighted.f1(reweighted.best_cut))
        return {
            "fall": own - here,
            "ranking": own - best,
            "threshold": best - here,
            "class_mix": own - best_reweighted,
            "separation": best_reweighted - best,
        }


def planted_shifts(rounds: int, *, seed: int = 0) -> Iterator[Shift]:
    """Shifts of each kind in turn, with groups in half of them."""
    rng = np.random.default_rng(seed)
    for i in range(rounds):
        kind = SHIFTS[i % len(SHIFTS)]
        own = World(share=rng.uniform(0.3, 0.7), distance=rng.uniform(1.5, 3))
        here = World(
            share=rng.uniform(0.1, 0.5) if kind == "label shift" else own.share,
            distance=own.distance * (rng.uniform(0.4, 1) if "ranking" in kind else 1),
            offset=rng.uniform(-1, 1) if "threshold" in kind else 0,
        )
        cut = own.best_cut + 0.1 * rng.normal()  # chosen on other videos
        in_groups = i // len(SHIFTS) % 2 == 1
        samples = [world.draw(rng, cut, in_groups=in_groups) for world in (own, here)]
        yield Shift(kind=kind, own_world=own, here_world=here, cut=cut, own=samples[0], here=samples[1])


@dataclass(frozen=True, kw_only=True)
class Estimated:
    """An estimate of a prevalence from unlabelled videos."""

    prevalence: float
    """The true one."""
    estimate: PrevalenceEstimate
    counted: Interval
    """95 % interval of the share of flagged videos: what counting decisions gives."""


def estimated_prevalences(
    prevalence: float, rounds: int, *, num_draws: int = NUM_DRAWS, seed: int = 0
) -> Iterator[Estimated]:
    """Estimates where only the share of harmful videos differs from the source; the source's calibration is wrong."""
    rng = np.random.default_rng(seed)
    for i in range(rounds):
        world = World(share=rng.uniform(0.3, 0.7), distance=rng.uniform(1.5, 3))
        scale, bias = rng.uniform(0.6, 1.2), 0.3 * rng.normal()
        other = World(share=prevalence, distance=world.distance)
        source, unlabelled = (each.draw(rng, world.best_cut, in_groups=i % 2 == 1) for each in (world, other))
        estimate = estimate_prevalence(
            unlabelled.scores,
            _miscalibrated(unlabelled, world, other, scale, bias),
            unlabelled.groups,
            threshold=float(unlabelled.thresholds[0]),
            source=Scored(**vars(source) | {"calibrated": _miscalibrated(source, world, world, scale, bias)}),
            name="own",
            num_draws=num_draws,
        )
        flagged = estimate.flagged
        margin = norm.ppf((1 + COVERAGE) / 2) * np.sqrt(flagged * (1 - flagged) / len(unlabelled))
        yield Estimated(
            prevalence=prevalence, estimate=estimate, counted=(float(flagged - margin), float(flagged + margin))
        )


def _miscalibrated(sample: Scored, world: World, drawn_from: World, scale: float, bias: float) -> np.ndarray:
    """Probabilities for the share of `world`, of videos of `drawn_from`, with their logits scaled and moved."""
    right = logit(np.clip(sample.calibrated, 1e-12, 1 - 1e-12)) - logit(drawn_from.share) + logit(world.share)
    wrong: np.ndarray = expit(scale * right + bias)
    return wrong


def contains(interval: Interval | None, value: float) -> float:
    """1 or 0; NaN without an interval."""
    return float("nan") if interval is None else float(interval[0] <= value <= interval[1])


def covered_changes(rounds: int, num_draws: int) -> dict[str, list[float]]:
    """Figure -> whether each interval contains the true value."""
    found: dict[str, list[float]] = {}
    for shift in planted_shifts(rounds):
        true_own, true_here = (world.metrics(shift.cut) for world in (shift.own_world, shift.here_world))
        for change in find_changes(shift.own, shift.here, num_draws=num_draws):
            if (name := change.metric.name) in true_own:
                difference = contains(change.difference_interval, true_here[name] - true_own[name])
                found.setdefault(f"fall of {change.metric.title}", []).append(difference)
        causes = find_causes(shift.own, shift.here, F1, num_draws=num_draws)
        assert causes is not None
        for name, value in shift.parts.items():
            if name != "fall":
                found.setdefault(f"part of the fall: {name.replace('_', ' ')}", []).append(
                    contains(getattr(causes, name).interval, value)
                )
    return found


def covered_decisions(rounds: int, num_draws: int) -> dict[str, list[float]]:
    """The same for decisions at prevalences, and for budgets of a tenth of the videos."""
    rng, found = np.random.default_rng(0), dict[str, list[float]]()
    for i in range(rounds):
        world = World(share=rng.uniform(0.2, 0.7), distance=rng.uniform(1.5, 3))
        cut = rng.uniform(0.5, 2.3)
        here = world.draw(rng, cut, in_groups=i % 2 == 1)
        recall, false_positive_rate = (float(rate) for rate in world.rates(cut))
        for at in at_prevalences(here, PREVALENCES):
            flagged = at.prevalence * recall + (1 - at.prevalence) * false_positive_rate
            covered = contains(at.precision_interval, at.prevalence * recall / flagged)
            found.setdefault(f"precision at a prevalence of {round(100 * at.prevalence)} %", []).append(covered)
        top = float(
            GRID[np.abs(world.share * world.rates(GRID)[0] + (1 - world.share) * world.rates(GRID)[1] - 0.1).argmin()]
        )
        (budget,) = review(here, [round(0.1 * len(here))], num_draws=num_draws)
        share = float(world.rates(top)[0])
        found.setdefault("share found by reviewing a tenth", []).append(contains(budget.share_found_interval, share))
    return found


def covered_prevalences(rounds: int, num_draws: int) -> dict[str, list[float]]:
    """The same for estimated prevalences and for counting; and how often no estimate is given."""
    found: dict[str, list[float]] = {}
    for prevalence in PREVALENCES:
        name = f"prevalence of {round(100 * prevalence)} %"
        for each in estimated_prevalences(prevalence, rounds, num_draws=num_draws):
            refused = each.estimate.value is None
            covered = contains(each.estimate.interval, prevalence)
            found.setdefault(f"{name}, estimated", []).append(covered)
            found.setdefault(f"{name}, decisions counted", []).append(contains(each.counted, prevalence))
            found.setdefault(f"{name}: no estimate is given", []).append(float(refused))
    return found


def worse_slices(rounds: int, num_draws: int) -> dict[str, list[float]]:
    """Whether any slice is called worse, where mistakes have nothing to do with the slices."""
    rng, found = np.random.default_rng(0), list[float]()
    for i in range(rounds):
        world = World(share=rng.uniform(0.2, 0.7), distance=rng.uniform(1.5, 3))
        here = world.draw(rng, world.best_cut, in_groups=i % 2 == 1)
        number = group_numbers(here.groups)
        values = rng.integers(9, size=(2, len(here)))[:, number].astype(str).astype(object)
        unknown = np.full(len(here), np.nan)
        slices = find_slices(
            here,
            durations_seconds=unknown,
            short_sides=unknown,
            columns=dict(zip("ab", values, strict=True)),
            num_draws=num_draws,
        )
        found.append(float(any(each.is_worse for each in slices)))
    return {"a slice of 18 called worse by chance": found}


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=measure.RESULTS, help="[default: docs/bench]")
@click.option("--rounds", type=click.IntRange(min=1), default=2000, show_default=True, help="Simulated sets.")
@click.option("--draws", type=click.IntRange(min=50), default=NUM_DRAWS, show_default=True, help="Of the bootstrap.")
@click.option("--quick", is_flag=True, help="Few sets: only checks that everything runs; the figures mean nothing.")
def main(*, out: Path, rounds: int, draws: int, quick: bool) -> None:
    """Measure the coverage of each interval; 95 % are meant. 2,000 rounds take about 20 minutes on one core."""
    rounds, draws = (8, 50) if quick else (rounds, draws)
    found = {
        **covered_changes(rounds, draws),
        **covered_decisions(rounds, draws),
        **covered_prevalences(rounds, draws),
        **worse_slices(max(1, rounds // 4), NUM_SLICE_DRAWS),
    }
    rows = [
        Measurement(what=what, unit="%", values=[100 * float(np.nanmean(values))])
        for what, values in found.items()
        if not np.isnan(values).all()
    ]
    show(measure.write(out, "evaluation", rows, untrained=False))


if __name__ == "__main__":
    main()
