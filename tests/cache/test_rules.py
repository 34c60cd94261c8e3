"""Each rule describes what it allows, and allows exactly that."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from haechi.cache.rules import DEVICE, NAME, Flag, Number, OneOf, Optional, Rule, Text, Whole, broken_rules, setting

NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("rule", "allowed", "refused"),
    [
        (Flag(), [True, False], [1, 0, None, "true"]),
        (Whole(2, 5), [2, 5], [1, 6, 2.0, True, "2", None]),
        (Number(least=0, below=1), [0, 0.5, 0.999], [1, -0.1, NAN, INFINITE, False, "0.5", None]),
        (Number(above=0), [1e-9, 10**9], [0, -1, NAN, INFINITE]),
        (Number(most=3), [-(10**9), 3], [3.1, -INFINITE]),
        (OneOf(("a", "b")), ["a", "b"], ["c", None, 1]),
        (Text(r"cpu|cuda(:\d+)?", "cpu or cuda:N"), ["cpu", "cuda:3"], ["cuda:", "tpu", 3, None]),
        (DEVICE, ["auto", "cpu", "cuda", "cuda:7"], ["gpu", "cuda:", "mps", 0, None]),
        (NAME, ["a", "a\nb"], ["", None, 3, Path("a")]),
        (Optional(Whole(1, 2), "none given"), [None, 1, 2], [0, 3, "1"]),
    ],
)
def test_rules(rule: Rule, allowed: list[Any], refused: list[Any]) -> None:
    assert [value for value in allowed if not rule.allows(value)] == []
    assert [value for value in refused if rule.allows(value)] == []


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (Flag(), "true or false"),
        (Whole(2, 5), "a whole number from 2 to 5"),
        (Whole(2, 5, "one is too few"), "a whole number from 2 to 5: one is too few"),
        (Number(least=0, below=1), "a number at least 0 and below 1"),
        (Number(above=0), "a number above 0"),
        (Number(), "a number"),
        (OneOf(("a", "b")), "one of a, b"),
        (Text("x+", "some x"), "some x"),
        (Optional(Number(above=0), "safe / harmful"), "a number above 0, or None (safe / harmful)"),
    ],
)
def test_rules_in_words(rule: Rule, text: str) -> None:
    assert rule.expected == text


@dataclass(frozen=True, kw_only=True)
class Example:
    frames: int = setting(32, Whole(1, 64))
    share: float = setting(0.5, Number(least=0, most=1))
    name: str = "free"


def test_every_broken_rule_has_a_line() -> None:
    assert broken_rules(Example()) == {}
    assert broken_rules(Example(frames=0, share=2, name="")) == {
        "frames": "frames is 0, expected a whole number from 1 to 64",
        "share": "share is 2, expected a number at least 0 and at most 1",
    }
