"""Finds what a name in a manifest may mean where nothing has exactly this name: `clips\\a.mp4` for `clips/a.mp4`."""

import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from haechi.cache.text import shown


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _without_end_spaces(text: str) -> str:
    return "/".join(part.strip() for part in text.split("/"))


# What may differ between two spellings of a name, and the function that removes the difference.
DIFFERENCES: dict[str, Callable[[str], str]] = {
    "use / in paths": lambda text: re.sub(r"[\\/]+", "/", text),
    "another Unicode form of the same letters (NFC, NFD)": _composed,
    "other capital letters": str.casefold,
    "a space at the start or end of a name": _without_end_spaces,
}


def folded(text: str) -> str:
    """The same text for all spellings of a name."""
    for remove in DIFFERENCES.values():
        text = remove(text)
    return _composed(text)


def hint(written: str, found: str) -> str:
    """Where `written` is and how it differs: `there as 'clips/a.mp4': use / in paths`."""
    if folded(written) != folded(found):
        return f"there as {shown(found)}: use relative paths"
    reasons = [why for why in DIFFERENCES if _all_but(why, written) != _all_but(why, found)]
    return f"there as {shown(found)}: {', '.join(reasons)}"


def _all_but(difference: str, text: str) -> str:
    """`text` without all differences but one."""
    for why, remove in DIFFERENCES.items():
        if why != difference:
            text = remove(text)
    return text


class Names:
    """Known names, to look up in another spelling."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = {folded(name): name for name in names}

    def find(self, written: str) -> str | None:
        """The known name that `written` is another spelling of."""
        return self._names.get(folded(written))


class Files:
    """Files on disk, to look up in another spelling. Each folder is listed once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._listings: dict[str, Names] = {}

    def find(self, written: str) -> str | None:
        """The path of an existing file that `written`, relative to the root, is another spelling of.

        Of a Windows path with a drive, such as `C:\\data\\clips\\a.mp4`, the longest end that is below the root.
        """
        return next(filter(None, map(self._find, _candidates(written.replace("\\", "/")))), None)

    def _find(self, written: str) -> str | None:
        found = "/" if written.startswith("/") else ""
        for part in filter(None, written.split("/")):
            folder = os.path.join(self._root, found)  # noqa: PTH118 (millions of paths: Path is slow)
            name = part if part in (".", "..") or os.path.lexists(os.path.join(folder, part)) else None  # noqa: PTH118
            if name is None and (name := self._listing(folder).find(part)) is None:
                return None
            found += name + "/"
        return found[:-1] or None

    def _listing(self, folder: str) -> Names:
        if folder not in self._listings:
            try:
                names = os.listdir(folder)  # noqa: PTH208
            except (OSError, ValueError):
                names = []
            self._listings[folder] = Names(names)
        return self._listings[folder]


def _candidates(written: str) -> Iterator[str]:
    """`written`, or all ends of a path with a drive, the longest first."""
    if not re.match(r"[A-Za-z]:/", written):
        yield written
        return
    parts = [part for part in written.split("/")[1:] if part]
    yield from ("/".join(parts[i:]) for i in range(min(len(parts), 64)))
