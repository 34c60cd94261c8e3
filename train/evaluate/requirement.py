"""Requirements for pipelines, such as `f1>=0.75`: met by the lower end of the interval, or by the figure itself."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from haechi.cache.errors import SettingsError
from haechi.train.evaluate.bootstrap import Interval
from haechi.train.evaluate.metrics import METRICS, Figures

# Exit status of a command whose requirements are not met.
NOT_MET = 4

SYNTAX = re.compile(r"(?P<metric>\w+)>=(?P<least>\d+(?:\.\d*)?|\.\d+)")


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """The least value of a metric."""

    text: str
    """As the user wrote it."""
    metric: str
    """Name of a metric in `metrics.METRICS`."""
    least: float
    """0 to 1."""

    def judge(self, figures: Figures, intervals: Mapping[str, Interval | None], *, by_point: bool) -> "Verdict":
        """Whether figures with these 95 % intervals meet it; `by_point`: the figure itself counts."""
        value, interval = figures[self.metric], intervals.get(self.metric)
        compared = value if by_point else interval[0] if interval else None
        return Verdict(
            requirement=self,
            value=value,
            interval=interval,
            by_point=by_point,
            met=compared is not None and compared >= self.least,
        )


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a requirement is met."""

    requirement: Requirement
    value: float | None
    """The figure; None: undefined."""
    interval: Interval | None
    by_point: bool
    """Whether the figure itself counts, and not the lower end of its interval."""
    met: bool

    @property
    def sentence(self) -> str:
        """One sentence, such as `f1>=0.75 is not met: F1 is 0.780, 95 % interval 0.710 to 0.850`."""
        metric = next(each for each in METRICS if each.name == self.requirement.metric)
        claim = f"{self.requirement.text} is {'met' if self.met else 'not met'}"
        if self.value is None:
            return f"{claim}: {metric.title} is undefined on these videos"
        if self.by_point:
            return f"{claim}: {metric.title} is {self.value:.3f}"
        if self.interval is None:
            return (
                f"{claim}: {metric.title} is {self.value:.3f}, and its 95 % interval is undefined, since all bootstrap "
                "draws give the same value or too few define one; --point compares the figure itself"
            )
        low, high = self.interval
        return f"{claim}: {metric.title} is {self.value:.3f}, 95 % interval {low:.3f} to {high:.3f}"

    def record(self) -> dict[str, Any]:
        """This verdict as JSON holds it."""
        return {
            "requirement": self.requirement.text,
            "metric": self.requirement.metric,
            "least": self.requirement.least,
            "value": self.value,
            "interval": self.interval,
            "by_point": self.by_point,
            "met": self.met,
        }


def parse_requirements(texts: Iterable[str]) -> list[Requirement]:
    """Read requirements from their texts, such as `f1>=0.75`. Raises `SettingsError` that lists all that are wrong."""
    found, problems = [], []
    names = [metric.name for metric in METRICS]
    for text in texts:
        match = SYNTAX.fullmatch(text.replace(" ", ""))
        if match is None or match["metric"] not in names or not 0 <= float(match["least"]) <= 1:
            is_cut = text in names
            hint = "; use quotes, since the shell takes > as a redirection" if is_cut else ""
            problems.append(
                f"requirement {text!r}: expected METRIC>=VALUE with a value from 0 to 1, where METRIC is one of "
                f"{', '.join(names)}{hint}"
            )
        else:
            found.append(Requirement(text=text, metric=match["metric"], least=float(match["least"])))
    if problems:
        raise SettingsError(problems)
    return found
