"""Groups from ids by a regular expression."""

import time

import pytest

from haechi.cache import groups
from haechi.cache.errors import SettingsError
from haechi.cache.groups import GroupRule, group_clashes, group_summary

IDS = ["train/Fight/fi1_xvid.avi", "val/Fight/fi12_xvid.avi", "no3.avi"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (r"fi\d+", ["fi1", "fi12", ""]),
        (r"fi(\d+)", ["1", "12", ""]),
        (r"(?:fi(\d+)|no(\d+))", ["1", "12", "3"]),
        (r"(?P<source>[a-z]+\d+)_", ["fi1", "fi12", ""]),
        (r"([^/]*)_xvid|$", ["fi1", "fi12", ""]),
        (r"^.*/", ["train/Fight/", "val/Fight/", ""]),
    ],
)
def test_the_first_capture_group_or_the_whole_match(pattern: str, expected: list[str]) -> None:
    assert GroupRule.parse(pattern).groups(IDS) == expected


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("fi(", "at character 4:\n    fi(\n       ^"),
        ("a[z-a]", "^"),
        ("a\tb(", "a\\tb(\n         ^"),
        ("", "expected a regular expression"),
        ("(" * 490 + ")" * 490, "has too many brackets inside each other"),
        ("a" * 1001, "has 1001 characters, at most 1000"),
    ],
)
def test_a_mistake_is_shown_at_its_place(pattern: str, expected: str) -> None:
    with pytest.raises(SettingsError) as caught:
        GroupRule.parse(pattern)
    assert expected in str(caught.value)


def test_an_expression_that_matches_nothing_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"matches none of the ids; one is 'train/Fight/fi1_xvid.avi'"):
        GroupRule.parse("camera").groups(IDS)
    assert GroupRule.parse("camera").groups([]) == []


def test_an_expression_that_calls_itself_is_refused() -> None:
    """The package stops at 1.3 GB, which is too much for a test."""

    class Greedy:
        def search(self, *_: object, **__: object) -> None:
            raise MemoryError

    with pytest.raises(SettingsError, match=r"'\(\?R\)' needs too much memory for 'a'"):
        GroupRule(pattern="(?R)", compiled=Greedy()).groups(["a"])


def test_a_search_that_would_not_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "MAX_SECONDS", 0.2)
    started = time.monotonic()
    with pytest.raises(SettingsError, match=r"takes more than 0.2 s; it was stopped at the id 'aaaa"):
        GroupRule.parse(r"^(a|aa)+$").groups(["a", "a" * 60 + "b", "c"])
    assert time.monotonic() - started < 5


def test_summary_and_clashes() -> None:
    assert (
        group_summary(["b", "a", "a", "", ""]) == "2 groups; largest: 'a' 2 files, 'b' 1 file; 2 files without a group"
    )
    assert group_summary([f"g{i}" for i in range(9)]).endswith("'g4' 1 file, …")
    assert group_summary(["\x1b"]) == r"1 group; largest: '\x1b' 1 file"
    assert group_clashes([("line 2", "a", "b"), ("line 3", "", "b"), ("line 4", "a", ""), ("line 5", "a", "a")]) == [
        "line 2: group is 'a', and group_by gives 'b'; remove one of them"
    ]
