"""What is to be judged: files, folders, manifests, and paths on standard input, to a list of entries."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from haechi.cache import manifest_file, schema
from haechi.cache.errors import HaechiError
from haechi.cache.text import bullet_list, shown
from haechi.extract.folder import find_media
from haechi.extract.manifest import Entry, read_manifest


def gather(media: Iterable[str], *, follow_symlinks: bool = False) -> tuple[list[Entry], list[str]]:
    """The entries that `media` name, and what a user should know of them. A file that two of them name is judged once.

    A folder stands for all videos and images in it, a file that ends like a manifest (.csv, .jsonl) for its rows, else
    a name stands for itself, be it there or not. Ids are the paths as given, below a folder joined to it, or those of
    a manifest.

    Raises `HaechiError` that lists every name that is unfit, and every id of two files; and where there is nothing to
    judge.
    """
    found: dict[str, Entry] = {}
    paths: set[Path] = set()
    notices: list[str] = []
    problems: list[str] = []
    for name in media:
        path = Path(name)
        if not name:
            problems.append("an empty name stands for no file")
            continue
        if path.suffix.lower() in manifest_file.SUFFIXES and path.is_file():
            manifest = read_manifest(path)
            notices += manifest.notices
            entries = list(manifest.entries)
        elif path.is_dir():
            inside = find_media(path, follow_symlinks=follow_symlinks)
            notices += inside.notices
            problems += inside.problems
            entries = [_entry(str(path / id), file) for id, file in inside.media]
        elif flaw := schema.id_problem(name):
            problems.append(f"{shown(name)}: its name {flaw}")
            continue
        else:
            entries = [_entry(name, path)]
        new = [replace(entry, line=0) for entry in entries if entry.path not in paths]
        problems += [_clash(found[entry.id], entry) for entry in new if entry.id in found]
        found |= {entry.id: entry for entry in new}
        paths |= {entry.path for entry in new}
    if problems:
        raise HaechiError(f"wrong in {len(problems)} places:\n{bullet_list(problems, limit=100)}")
    if not found:
        raise HaechiError("\n".join(["nothing to judge: no videos or images there", *notices]))
    return list(found.values()), notices


def _clash(one: Entry, other: Entry) -> str:
    files = " and of ".join(shown(str(entry.path)) for entry in (one, other))
    return f"{shown(one.id)}: the id of {files}; give one of them another id, or judge them apart"


def lines(source: Iterable[bytes]) -> Iterator[str]:
    """The paths on standard input, one a line; blank lines are none. Bytes that are no UTF-8 are kept, as in a path."""
    for line in source:
        if path := line.rstrip(b"\r\n"):
            yield os.fsdecode(path)


def _entry(id: str, path: Path) -> Entry:
    return Entry(
        id=id,
        path=Path(os.path.abspath(path)),  # noqa: PTH100 (resolve() would follow links)
        label=schema.UNLABELLED,
        split="",
        group="",
        line=0,
    )
