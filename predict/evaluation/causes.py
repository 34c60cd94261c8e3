"""Why F1 fell: other proportions of the classes, scores that separate them worse, a threshold that no longer fits."""

from dataclasses import dataclass

from haechi.predict.evaluation.scored import Scored
from haechi.train.evaluate.bootstrap import Interval
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
    """The part of `ranking` that comes from the share of harmful videos alone."""
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


def find_causes(own: Scored, here: Scored, policy: Policy) -> Causes | None:
    """The causes of the fall; None where F1 is undefined on one side or one side lacks a class."""
    raise NotImplementedError


def check_policy(own: Scored | None, here: Scored, policy: Policy) -> PolicyCheck | None:
    """Whether this set keeps the policy's bound; None for a policy without one."""
    raise NotImplementedError
