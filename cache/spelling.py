"""Finds what a name in a manifest may mean where nothing has exactly this name: `clips\\a.mp4` for `clips/a.mp4`."""

import os
import posixpath
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from haechi.cache.text import shown


def _with_slashes(text: str) -> str:
    return posixpath.normpath(re.sub(r"[\\/]+", "/", text))


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _without_end_spaces(text: str) -> str:
    return "/".join(part.strip() for part in text.split("/"))


# What may differ between two spellings of a name, and the function that removes the difference.
DIFFERENCES: dict[str, Callable[[str], str]] = {
    "use / in paths": _with_slashes,
    "another Unicode form of the same letters (NFC, NFD)": _composed,
    "other capital letters": str.casefold,
    "a space at the start or end of a name": _without_end_spaces,
    "an apostrophe in front (in CSV twice, before = + - @)": lambda text: re.sub(r"(^|/)'+", r"\1", text),
}


def _without_differences(text: str) -> str:
    """The same text for all spellings of a name."""
    for remove in DIFFERENCES.values():
        text = remove(text)
    return _composed(text)


def hint(written: str, found: str) -> str:
    """Where `written` is and how it differs: `there as 'clips/a.mp4': use / in paths`."""
    if _without_differences(written) != _without_differences(found):
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
        self._exact = set(names)
        self._by_common_text = {_without_differences(name): name for name in self._exact}

    def find(self, written: str) -> str | None:
        """The known name `written`, or the one that it is another spelling of."""
        return written if written in self._exact else self._by_common_text.get(_without_differences(written))


class Files:
    """Files on disk, to look up in another spelling. Each folder is looked up and listed once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folders: dict[str, str | None] = {}
        """Folder as written -> as it is on disk with a slash at its end; None: not there."""
        self._listings: dict[str, Names] = {}

    def find(self, written: str) -> str | None:
        """The path of an existing file that `written`, relative to the root, is another spelling of.

        Of a Windows path with a drive, such as `C:\\data\\clips\\a.mp4`, the longest end that is below the root.
        """
        candidates = _candidates(_with_slashes(written))
        return next((found for each in candidates if (found := self._find(each)) is not None), None)

    def _find(self, written: str) -> str | None:
        start, slash, name = written.rpartition("/")
        if (above := start + slash) not in self._folders:
            self._folders[above] = self._walk(above)
        folder = self._folders[above]
        found = None if folder is None else self._listing(folder).find(name)
        return None if found is None else f"{folder}{found}"

    def _walk(self, written: str) -> str | None:
        folder = "/" if written.startswith("/") else ""
        for part in filter(None, written.split("/")):
            found = part if part == ".." else self._listing(folder).find(part)
            if found is None:
                return None
            folder += f"{found}/"
        return folder

    def _listing(self, folder: str) -> Names:
        if folder not in self._listings:
            try:
                names = os.listdir(self._root / folder)  # noqa: PTH208 (names, not paths)
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
