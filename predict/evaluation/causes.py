"""Why F1 fell: other proportions of the classes, scores that separate them worse, a threshold that no longer fits."""

from dataclasses import dataclass, replace

import numpy as np

from haechi.predict.evaluation.scored import Scored
from haechi.train.evaluate.bootstrap import NUM_DRAWS, Interval, Replicates, combine, replicate
from haechi.train.evaluate.cells import Cells
from haechi.train.evaluate.metrics import WeightedCounts
from haechi.train.evaluate.threshold import choose_threshold, predict
from haechi.train.policy import Policy


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A part of the fall; positive: F1 is lower because of it."""

    value: float
    interval: Interval | None
    """95 % interval."""


@dataclass(frozen=True, kw_only=True)
class Causes:
    """The fall of F1, or of the policy's F-beta, from the run's own test part to this set, in parts that add up.

    `fall` = `ranking` + `threshold`, and `ranking` = `class_mix` + `separation`.
    """

    beta: float
    """Of F-beta; 1: F1."""
    own: float
    here: float
    best: float
    """The value at the best threshold for this set, corrected for having been chosen on the same videos."""
    best_threshold: float
    fall: Loss
    """`own` minus `here`."""
    ranking: Loss
    """`own` minus `best`: what even the best threshold for this set would lose."""
    threshold: Loss
    """`best` minus `here`, at least 0: what the frozen threshold loses against the best one."""
    class_mix: Loss
    """The part of `ranking` that comes from the share of harmful videos alone: `own` minus the best value in the own
    test part if its share were that of this set. With equal shares it is not above 0: another threshold may suit the
    own test part better."""
    separation: Loss
    """The rest of `ranking`: the scores separate the classes worse (negative: better) than in the own test part."""

    @property
    def metric(self) -> str:
        """`F1`, or such as `F-beta 2`."""
        return "F1" if self.beta == 1 else f"F-beta {self.beta:g}"


@dataclass(frozen=True, kw_only=True)
class PolicyCheck:
    """Whether the bound of the policy, such as precision>=0.9, is kept."""

    policy: Policy
    figure: str
    """`precision`, `recall` or `false_positive_rate`."""
    promised: float
    own: float | None
    """In the run's own test part."""
    here: float | None
    """On this set; None: undefined."""
    here_interval: Interval | None
    kept: bool | None
    """Whether `here` keeps the bound; None: undefined."""


def find_causes(own: Scored, here: Scored, policy: Policy, *, num_draws: int = NUM_DRAWS) -> Causes | None:
    """The causes of the fall; None where one side lacks a class.

    The best value over all thresholds is too good, since it is the best on the same videos. It is reduced by the mean,
    over draws of the groups, of what the best threshold of a draw gains on that draw against all videos: the optimism
    (Efron, "Estimating the Error Rate of a Prediction Rule", JASA 78, 1983). No best value is below that of the frozen
    threshold.

    The interval of the fall is that of `bootstrap` for two independent samples, as in `fall`. For the parts, the draws
    of a best value are moved by one number, so that their mean is the reduced value, and the ends are percentiles of
    the draws, expanded for few groups: with them, 93 to 97 % of the intervals contain the true part
    (`python -m bench.evaluation`). Bias-corrected ones contain that of `threshold` less often: many draws of it are 0.
    There are no intervals where all draws of a side give the same value, as for the fall in `fall`.
    """
    if not all((own.num_harmful, own.num_safe, here.num_harmful, here.num_safe)):
        return None
    beta = policy.beta or 1.0
    own_rates, here_rates = (_Rates.of(side.cells, side.sample.totals) for side in (own, here))

    def statistic(own_weights: np.ndarray, here_weights: np.ndarray) -> dict[str, np.ndarray]:
        own_drawn, here_drawn = _Rates.of(own.cells, own_weights), _Rates.of(here.cells, here_weights)
        share = here_drawn.share_harmful
        best, best_on_all = here_drawn.best(share, beta, here_rates)
        reweighted, reweighted_on_all = own_drawn.best(share, beta, own_rates)
        return {
            "own": own_drawn.at_thresholds(own_drawn.share_harmful, beta),
            "here": here_drawn.at_thresholds(share, beta),
            "reweighted own": own_drawn.at_thresholds(share, beta),
            "best": best,
            "best optimism": best - best_on_all,
            "reweighted": reweighted,
            "reweighted optimism": reweighted - reweighted_on_all,
        }

    values = replicate(statistic, own.sample, here.sample, num_draws=num_draws)

    def reduced(name: str, least: Replicates) -> Replicates:
        found = values[name]
        estimate = found.estimate - float(np.nanmean(values[f"{name} optimism"].draws))
        moved = replace(
            found,
            estimate=estimate,
            draws=found.draws + (estimate - np.nanmean(found.draws)),
            lots=tuple(lots + (estimate - found.estimate) for lots in found.lots),
        )
        return combine(np.maximum, moved, least)

    best, reweighted = reduced("best", values["here"]), reduced("reweighted", values["reweighted own"])
    ranking, class_mix = combine(np.subtract, values["own"], best), combine(np.subtract, values["own"], reweighted)
    fall = combine(np.subtract, values["own"], values["here"])
    is_telling = all(values[name].of_sample(k).telling_interval() for k, name in enumerate(("own", "here")))

    def loss(value: Replicates, *, is_corrected: bool = False) -> Loss:
        interval = value.interval(is_corrected=is_corrected) if is_telling else None
        return Loss(value=value.estimate, interval=interval)

    return Causes(
        beta=beta,
        own=values["own"].estimate,
        here=values["here"].estimate,
        best=best.estimate,
        best_threshold=choose_threshold(here.scores, here.labels, Policy(text=policy.text, beta=beta)).threshold,
        fall=loss(fall, is_corrected=True),
        ranking=loss(ranking),
        threshold=loss(combine(np.subtract, best, values["here"])),
        class_mix=loss(class_mix),
        separation=loss(combine(np.subtract, ranking, class_mix)),
    )


def check_policy(own: Scored | None, here: Scored, policy: Policy, *, num_draws: int = NUM_DRAWS) -> PolicyCheck | None:
    """Whether this set keeps the policy's bound; None for a policy without one, and for an empty set."""
    if policy.bound is None or not len(here):
        return None
    figure, promised = policy.bound.figure, policy.bound.value
    found = replicate(
        lambda weights: {figure: _figure(figure, here.cells, weights)},
        here.sample,
        num_draws=num_draws,
        seed=1,  # as in `fall.find_changes`
    )[figure]
    values = [found.estimate]
    if own is not None and len(own):
        values.append(float(_figure(figure, own.cells, own.sample.totals)[0]))
    value, own_value = (None if np.isnan(each) else each for each in [*values, np.nan][:2])
    return PolicyCheck(
        policy=policy,
        figure=figure,
        promised=promised,
        own=own_value,
        here=value,
        here_interval=found.telling_interval(),
        kept=None if value is None else value >= promised if policy.bound.sense == ">=" else value <= promised,
    )


@dataclass(frozen=True, kw_only=True)
class _Rates:
    """Shares of harmful and of safe videos under each of b weightings, at K thresholds and at the frozen ones."""

    recall: np.ndarray
    """(b,) share of harmful videos that are flagged at their thresholds."""
    false_positive_rate: np.ndarray
    """(b,) the same of safe videos."""
    recall_curve: np.ndarray
    """(b, K) the same with each of the K distinct scores as the threshold, the highest first."""
    false_positive_rate_curve: np.ndarray
    """(b, K)"""
    share_harmful: np.ndarray
    """(b,) of all videos."""

    @classmethod
    def of(cls, cells: Cells, weights: np.ndarray) -> "_Rates":
        """Count C cells under `weights` (b, C); NaN where a class has no weight."""
        counts = WeightedCounts.of(cells.scores, cells.labels, cells.thresholds, weights)
        harmful, safe = counts.num_harmful, counts.num_safe
        with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0: undefined, NaN
            return cls(
                recall=counts.true_positive / harmful,
                false_positive_rate=counts.false_positive / safe,
                recall_curve=counts.recall_curve,
                false_positive_rate_curve=counts.false_positive_curve / safe[:, None],
                share_harmful=harmful / (harmful + safe),
            )

    def at_thresholds(self, share: np.ndarray, beta: float) -> np.ndarray:
        """(b,) F-beta at the frozen thresholds, where `share` (b,) of the videos are harmful."""
        return _f_beta(self.recall, self.false_positive_rate, share, beta)

    def best(self, share: np.ndarray, beta: float, whole: "_Rates") -> tuple[np.ndarray, np.ndarray]:
        """(b,) the highest F-beta of all thresholds, and (b,) F-beta at the same thresholds in `whole`, with b = 1."""
        curve = _f_beta(self.recall_curve, self.false_positive_rate_curve, share[:, None], beta)
        chosen = curve.argmax(axis=1)
        on_whole = _f_beta(whole.recall_curve[0, chosen], whole.false_positive_rate_curve[0, chosen], share, beta)
        return np.take_along_axis(curve, chosen[:, None], axis=1)[:, 0], on_whole


def _f_beta(recall: np.ndarray, false_positive_rate: np.ndarray, share: np.ndarray, beta: float) -> np.ndarray:
    """F-beta from the two rates, where `share` of the videos are harmful; arrays that broadcast."""
    with np.errstate(invalid="ignore", divide="ignore"):  # a draw without harmful videos: undefined, NaN
        odds = (1 - share) / share
        value: np.ndarray = (1 + beta**2) * recall / (recall + odds * false_positive_rate + beta**2)
    return value


def _figure(figure: str, cells: Cells, weights: np.ndarray) -> np.ndarray:
    """(b,) `precision`, `recall` or `false_positive_rate` of C cells under `weights` (b, C), NaN where undefined."""
    flagged, harmful = predict(cells.scores, cells.thresholds) == 1, cells.labels == 1
    counted, among = {
        "precision": (flagged & harmful, flagged),
        "recall": (flagged & harmful, harmful),
        "false_positive_rate": (flagged & ~harmful, ~harmful),
    }[figure]
    with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0: undefined, NaN
        value: np.ndarray = (weights @ counted) / (weights @ among)
    return value
