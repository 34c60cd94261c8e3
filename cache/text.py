"""Makes texts of unknown origin safe to print, and lists of them short."""

import os
import re
import unicodedata
from collections.abc import Iterable

MAX_NAMED = 20
MAX_BULLETS = 20

# Spreadsheets run cells of CSV files that start with one of these characters. Apostrophes in front belong to the
# pattern, so that `from_harmless` takes back exactly what `harmless` has added.
FORMULA_START = re.compile(r"'*[=+\-@\t\r\n]")


def visible(text: str) -> str:
    """`text` on one line, safe for a terminal: control characters are printed as escapes, such as `\\x1b`.

    Line breaks, changes of writing direction and bytes that were not UTF-8 become escapes too. Letters of every script
    and all spaces stay.
    """
    return "".join(
        c if c.isprintable() or unicodedata.category(c) == "Zs" else c.encode("unicode_escape").decode() for c in text
    )


def bullet_list(lines: list[str], *, limit: int = MAX_BULLETS, total: int | None = None) -> str:
    """`lines` as a list for an error's text, one `- line` each; after `limit` lines only the number of the rest.

    `total`: how many there are in all, if `lines` are only the first `limit`.
    """
    bullets = [f"  - {line}" for line in lines[:limit]]
    if (total := len(lines) if total is None else total) > limit:
        bullets.append(f"  - … and {total - limit} more")
    return "\n".join(bullets)


def shown(text: str) -> str:
    """A text of unknown origin in quotes, cut to 80 characters, with control characters printed as escapes."""
    return f"'{visible(text[:80])}'"


def named(names: list[str]) -> str:
    """The first `MAX_NAMED` texts, each as by `shown`, separated by commas; `nothing` if there is none."""
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return (", ".join(map(shown, names[:MAX_NAMED])) or "nothing") + more


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun, such as `1 video` and `1,234 videos`; `plural` if it is not the noun with an s."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def harmless(text: str) -> str:
    """A text of unknown origin as a cell of a CSV file; `'` is put before a text that a spreadsheet would run.

    It is put before such a text with apostrophes in front too: `-1` becomes `'-1`, and `'-1` becomes `''-1`.
    """
    return "'" + text if FORMULA_START.match(text) else text


def from_harmless(cell: str) -> str:
    """The text that `harmless` made a cell of: `'-1` becomes `-1`. Other cells stay, such as `'90s.mp4`."""
    return cell[1:] if cell.startswith("'") and FORMULA_START.match(cell) else cell


def one_or_more(items: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[str]:
    """The texts or paths as a list of texts. A single text or path is one item, not a sequence of letters."""
    return [os.fspath(item) for item in ([items] if isinstance(items, str | os.PathLike) else items)]
