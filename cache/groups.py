"""Groups from the ids of videos by a regular expression: clips of one recording often share a part of their name."""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from haechi.cache.errors import SettingsError
from haechi.cache.text import counted, shown, visible

MAX_PATTERN_CHARACTERS = 1000
MAX_SHOWN = 5

# A regular expression can take longer than the age of the universe for an id of 40 letters. Ours: a million ids with an
# ordinary expression take a few seconds.
MAX_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class GroupRule:
    """A regular expression that finds the group in an id."""

    pattern: str
    compiled: Any
    """The pattern, compiled by the package `regex`, which can stop a search after a time and `re` cannot."""

    @classmethod
    def parse(cls, pattern: str) -> "GroupRule":
        """Raises `SettingsError` that shows the place of a mistake."""
        import regex

        if not isinstance(pattern, str) or not pattern:
            raise SettingsError([f"group_by is {pattern!r}, expected a regular expression"])
        if len(pattern) > MAX_PATTERN_CHARACTERS:
            raise SettingsError(
                [f"group_by has {len(pattern)} characters, at most {MAX_PATTERN_CHARACTERS} are allowed"]
            )
        try:
            return cls(pattern=pattern, compiled=regex.compile(pattern))
        except RecursionError as error:
            raise SettingsError([f"group_by {shown(pattern)} has too many brackets inside each other"]) from error
        except regex.error as error:
            place = len(visible(pattern[: error.pos or 0]))
            raise SettingsError(
                [
                    f"group_by is not a regular expression: {error.msg} at character {(error.pos or 0) + 1}:\n"
                    f"    {visible(pattern)}\n    {' ' * place}^"
                ]
            ) from error

    def groups(self, ids: Sequence[str]) -> list[str]:
        """The group of each id: the first capture group that took part in the first match, or the whole match if the
        expression has no capture groups. Empty where nothing matches.

        Raises `SettingsError` if no id matches, or if the search takes more than `MAX_SECONDS` in all.
        """
        end = time.monotonic() + MAX_SECONDS
        groups = []
        for id in ids:
            try:
                match = self.compiled.search(id, timeout=max(end - time.monotonic(), 1e-3))
            except MemoryError as error:  # an expression that calls itself without end, such as (?R)
                raise SettingsError(
                    [f"group_by {shown(self.pattern)} needs too much memory for {shown(id)}"]
                ) from error
            except TimeoutError as error:
                raise SettingsError(
                    [
                        f"group_by {shown(self.pattern)} takes more than {MAX_SECONDS:g} s; it was stopped at the id "
                        f"{shown(id)}: use a simpler expression, without one repetition inside another such as (a+)+"
                    ]
                ) from error
            found = (match.groups() or (match[0],)) if match else ()
            groups.append(next((text for text in found if text is not None), "").strip())
        if ids and not any(groups):
            raise SettingsError([f"group_by {shown(self.pattern)} matches none of the ids; one is {shown(ids[0])}"])
        return groups


def group_summary(groups: Iterable[str]) -> str:
    """The number of groups and the largest ones, on one line: `412 groups; largest: 'fi1' 38 files, 'fi2' 30 files`."""
    counts = Counter(groups)
    without = counts.pop("", 0)
    order = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    largest = [f"{shown(name)} {counted(count, 'file')}" for name, count in order[:MAX_SHOWN]]
    if len(order) > MAX_SHOWN:
        largest.append("…")
    text = f"{counted(len(counts), 'group')}; largest: {', '.join(largest)}" if counts else "no groups"
    return text + (f"; {counted(without, 'file')} without a group" if without else "")


def group_clashes(rows: Iterable[tuple[str, str, str]]) -> list[str]:
    """One problem for each row (place, its own group, group by the rule) whose two groups differ."""
    return [
        f"{place}: group is {shown(own)}, and group_by gives {shown(ruled)}; remove one of them"
        for place, own, ruled in rows
        if own and ruled and own != ruled
    ]
