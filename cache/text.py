"""Texts of unknown origin, made safe to print, and lists of them made short."""

import os
import unicodedata
from collections.abc import Iterable

MAX_NAMED = 20

# CSV files are opened in spreadsheets, which run cells that look like formulas.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def visible(text: str) -> str:
    """`text` on one line, safe for a terminal: what would act instead of being seen is spelled out, as in `\\x1b`.

    Control characters, line breaks, changes of writing direction and bytes that were no UTF-8 are spelled out; letters
    of every script and all spaces stay.
    """
    return "".join(
        c if c.isprintable() or unicodedata.category(c) == "Zs" else c.encode("unicode_escape").decode() for c in text
    )


def bullet_list(lines: list[str], *, limit: int = 20) -> str:
    """Join offenders for an error's text, one a line; beyond `limit` only their number is told."""
    shown = [f"  - {line}" for line in lines[:limit]]
    if len(lines) > limit:
        shown.append(f"  - … and {len(lines) - limit} more")
    return "\n".join(shown)


def shown(text: str) -> str:
    """A text from outside, cut and quoted, so that nothing in it acts."""
    return f"'{visible(text[:80])}'"


def named(names: list[str]) -> str:
    """Texts from outside one after the other, the first `MAX_NAMED` of them."""
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return (", ".join(map(shown, names[:MAX_NAMED])) or "nothing") + more


def counted(number: int, noun: str, plural: str = "") -> str:
    """As in `1 video` and `1,234 videos`; `plural`: where it is not the noun with an s."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def harmless(text: str) -> str:
    """A text from outside as a cell of a CSV: what a spreadsheet would run as a formula gets a `'` in front."""
    return "'" + text if text.startswith(FORMULA_STARTS) else text


def one_or_more(items: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[str]:
    """The texts or paths as a list of texts. A single text or path is one item, not a sequence of letters."""
    return [os.fspath(item) for item in ([items] if isinstance(items, str | os.PathLike) else items)]
