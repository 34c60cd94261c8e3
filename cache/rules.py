"""Rules for the fields of a settings dataclass: written beside each field, checked in one place.

@dataclass(frozen=True, kw_only=True)
class Settings:
    frames: int = setting(32, Whole(1, 4096))

    def __post_init__(self) -> None:
        if broken := broken_rules(self):
            raise SettingsError([*broken.values()])
"""

import math
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, TypeVar

from haechi.cache.text import named

T = TypeVar("T")


class Rule(Protocol):
    """A rule for one value."""

    @property
    def expected(self) -> str:
        """The rule in words, to be written after "expected"."""

    def allows(self, value: Any) -> bool:
        """Whether the rule allows `value`, which may have any type."""


def setting(default: T, rule: Rule) -> T:
    """A field of a settings dataclass with its default and its rule."""
    result: T = field(default=default, metadata={"rule": rule})
    return result


def broken_rules(settings: Any) -> dict[str, str]:
    """Field -> problem, on one line, for each field of a settings dataclass whose value breaks its rule."""
    return {
        each.name: f"{each.name} is {value!r}, expected {rule.expected}"
        for each in fields(settings)
        if (rule := each.metadata.get("rule")) and not rule.allows(value := getattr(settings, each.name))
    }


def unknown_fields(settings_class: Any, names: Iterable[str]) -> list[str]:
    """The problem, on one line, if some of `names` are not fields of a settings dataclass; else an empty list."""
    known = [each.name for each in fields(settings_class)]
    unknown = [name for name in names if name not in known]
    return [f"no such settings: {named(unknown)}; the settings are {', '.join(known)}"] if unknown else []


@dataclass(frozen=True)
class Flag:
    """True or False."""

    @property
    def expected(self) -> str:
        return "true or false"

    def allows(self, value: Any) -> bool:
        return isinstance(value, bool)


@dataclass(frozen=True)
class Whole:
    """A whole number from `least` to `most`, both included."""

    least: int
    most: int
    why: str = ""
    """Reason for the least value, if it is not obvious."""

    @property
    def expected(self) -> str:
        return f"a whole number from {self.least} to {self.most}" + (f": {self.why}" if self.why else "")

    def allows(self, value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and self.least <= value <= self.most


@dataclass(frozen=True, kw_only=True)
class Number:
    """A finite number between bounds that are included (`least`, `most`) or excluded (`above`, `below`)."""

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    @property
    def expected(self) -> str:
        ends = [
            f"{word} {end:.12g}"
            for word, end in (
                ("at least", self.least),
                ("above", self.above),
                ("at most", self.most),
                ("below", self.below),
            )
            if math.isfinite(end)
        ]
        return " ".join(["a number", " and ".join(ends)]).strip()

    def allows(self, value: Any) -> bool:
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            return False
        return self.least <= value <= self.most and self.above < value < self.below


@dataclass(frozen=True)
class OneOf:
    """One of the given words."""

    words: Collection[str]

    @property
    def expected(self) -> str:
        return f"one of {', '.join(self.words)}"

    def allows(self, value: Any) -> bool:
        return isinstance(value, str) and value in self.words


@dataclass(frozen=True)
class Text:
    """A text that matches a pattern."""

    pattern: str
    """A regular expression for the whole text."""
    form: str
    """The pattern in words."""

    @property
    def expected(self) -> str:
        return self.form

    def allows(self, value: Any) -> bool:
        return isinstance(value, str) and re.fullmatch(self.pattern, value) is not None


NAME = Text(r"(?s).+", "a text that is not empty")

# Here and not in `haechi.device`, so that command lines can use it without importing torch.
DEVICE = Text(r"auto|cpu|cuda(:\d{1,3})?", "auto, cpu, cuda or cuda:N")


@dataclass(frozen=True)
class Optional:
    """None, or a value that `rule` allows."""

    rule: Rule
    meaning: str
    """What None means."""

    @property
    def expected(self) -> str:
        return f"{self.rule.expected}, or None ({self.meaning})"

    def allows(self, value: Any) -> bool:
        return value is None or self.rule.allows(value)
