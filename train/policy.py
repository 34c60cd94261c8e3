"""The policy for choosing a threshold, as the user writes it: `f1`, `fbeta:2`, `precision>=0.9`, `cost:1,10` …"""

import math
import re
from dataclasses import dataclass

from haechi.train.errors import TrainError

FORMS = {
    "f1": "the best F1",
    "fbeta:B": "the best F-beta; with B above 1, recall counts more than precision",
    "precision>=P": "the highest recall with at least this precision",
    "recall>=R": "the highest precision with at least this recall",
    "fpr<=X": "the highest recall with at most this false positive rate",
    "cost:FP,FN": "the lowest total cost, where a false positive costs FP and a false negative FN",
}

NUMBER = r"\d+(?:\.\d*)?(?:[eE]-?\d+)?|\.\d+"
SYNTAX = re.compile(
    rf"(?P<f1>f1)|fbeta:(?P<fbeta>{NUMBER})|(?P<bounded>precision>=|recall>=|fpr<=)(?P<bound>{NUMBER})"
    rf"|cost:(?P<fp>{NUMBER}),(?P<fn>{NUMBER})"
)


@dataclass(frozen=True, kw_only=True)
class Bound:
    """A limit that the threshold must keep."""

    figure: str
    """`precision`, `recall` or `false_positive_rate`."""
    sense: str
    """`>=` or `<=`."""
    value: float
    """0 to 1."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """One of `FORMS`."""

    text: str
    """As the user wrote it."""
    beta: float | None = None
    bound: Bound | None = None
    costs: tuple[float, float] | None = None
    """Cost of a false positive, and of a false negative."""

    @classmethod
    def parse(cls, text: str) -> "Policy":
        """Read a policy from its text. Raises `TrainError` that lists the forms."""
        match = SYNTAX.fullmatch(text.replace(" ", ""))
        policy = None
        if match is None:
            pass
        elif match["f1"]:
            policy = cls(text=text, beta=1.0)
        elif match["fbeta"] and 0 < float(match["fbeta"]) < math.inf:
            policy = cls(text=text, beta=float(match["fbeta"]))
        elif match["bound"] and 0 <= float(match["bound"]) <= 1:
            figure, sense = match["bounded"][:-2], match["bounded"][-2:]
            figure = {"fpr": "false_positive_rate"}.get(figure, figure)
            policy = cls(text=text, bound=Bound(figure=figure, sense=sense, value=float(match["bound"])))
        elif match["fp"] and 0 < float(match["fp"]) + float(match["fn"]) < math.inf:
            policy = cls(text=text, costs=(float(match["fp"]), float(match["fn"])))
        if policy is None:
            forms = "\n".join(f"  {form}: {meaning}" for form, meaning in FORMS.items())
            is_cut = text in {"precision", "recall", "fpr"}
            hint = "; use quotes, since the shell takes > and < as redirections" if is_cut else ""
            raise TrainError(f"threshold policy {text!r}: expected one of\n{forms}\nwith P, R and X from 0 to 1{hint}")
        return policy

    @property
    def goal(self) -> str:
        """What it aims at, such as "for the best F1", to follow "was chosen"."""
        if self.bound is not None:
            value = self.bound.value
            return {
                "precision": f"for the highest recall with a precision of at least {value:g}",
                "recall": f"for the highest precision with a recall of at least {value:g}",
                "false_positive_rate": f"for the highest recall with at most {value:.4g} of the safe videos flagged",
            }[self.bound.figure]
        if self.costs is not None:
            false_alarm, miss = self.costs
            return f"for the lowest cost: {false_alarm:g} for each false positive, {miss:g} for each missed video"
        assert self.beta is not None, f"no goal for {self.text}"
        if self.beta != 1:
            return f"for the best F-beta with beta {self.beta:g}; above 1, recall counts more than precision"
        return "for the best F1"

    @property
    def needs_harmful(self) -> bool:
        """Whether it is undefined without a harmful video."""
        return self.costs is None

    @property
    def needs_safe(self) -> bool:
        """Whether it is undefined without a safe video."""
        return self.bound is not None and self.bound.figure == "false_positive_rate"
