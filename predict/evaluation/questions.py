"""What a user asks of an evaluation."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from haechi.cache.errors import SettingsError
from haechi.cache.rules import Number, Whole
from haechi.train.evaluate.requirement import Requirement

PREVALENCE = Number(above=0, below=1)
BUDGET = Whole(1, 1 << 40)

SHARE = r"(?:\d+(?:\.\d*)?|\.\d+)(?:[eE]-?\d+)?%?"
RANGE = re.compile(rf"(?P<low>{SHARE})(?:-(?P<high>{SHARE}))?")


@dataclass(frozen=True, kw_only=True)
class Questions:
    """What to compute beside the figures, and what the figures must reach."""

    prevalences: Sequence[float] = ()
    """Shares of harmful videos in real traffic, above 0 and below 1."""
    budgets: Sequence[int] = ()
    """Numbers of videos that can be reviewed."""
    requirements: Sequence[Requirement] = ()
    by_point: bool = False
    """Whether requirements are met by the figure itself, and not by the lower end of its interval."""
    keep_overlap: bool = False
    """Whether videos that the head was trained or chosen on are evaluated too."""

    def __post_init__(self) -> None:
        problems = [
            f"{name} is {value!r}, expected {rule.expected}"
            for name, values, rule in (
                ("prevalence", self.prevalences, PREVALENCE),
                ("budget", self.budgets, BUDGET),
            )
            for value in values
            if not rule.allows(value)
        ]
        if problems:
            raise SettingsError(problems)


def parse_prevalences(text: str) -> list[float]:
    """`0.01` or `1%`, or a range such as `0.001-0.05`, which gives its ends and their geometric mean.

    Raises `SettingsError` for another text.
    """
    match = RANGE.fullmatch(text.replace(" ", ""))
    if match is None:
        raise SettingsError(
            [f"prevalence {text!r}: expected a share such as 0.01 or 1%, or a range such as 0.001-0.05"]
        )
    low, high = (_share(match[name]) for name in ("low", "high"))
    return [low] if math.isnan(high) else [low, math.sqrt(low * high), high]


def _share(text: str | None) -> float:
    if text is None:
        return math.nan
    return float(text.removesuffix("%")) / 100 if text.endswith("%") else float(text)
