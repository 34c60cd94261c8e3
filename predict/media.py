"""From the names that a user gives (files, folders, manifests) to the list of media to judge."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from haechi.cache import manifest_file, schema
from haechi.cache.errors import HaechiError
from haechi.cache.location import scheme_of
from haechi.cache.stores.location import Location, LocationError, refused_hint
from haechi.cache.text import bullet_list, counted, shown
from haechi.extract.folder import find_media
from haechi.extract.manifest import Entry, read_manifest_paths


def gather(
    names: Iterable[str], *, follow_symlinks: bool = False, allow_https: bool = False
) -> tuple[list[Entry], list[str]]:
    """The media under these names, each file once, and notices for the user.

    A folder gives all videos and images in it, a manifest (.csv, .jsonl) its rows, any other name itself, whether or
    not there is such a file. The id of a file is its path as given, in a folder the folder's name joined with the path
    below it, in a manifest the id there. A name with a scheme, such as `s3://bucket/a.mp4`, is a file in a store; with
    `allow_https` it may be one of a web server.

    Raises `HaechiError` that lists all names that cannot be used and all ids that two files share, or if there are no
    media.
    """
    found: dict[str, Entry] = {}
    paths: set[str | Location] = set()
    notices: list[str] = []
    problems: list[str] = []
    for name in names:
        path = Path(name)
        if not name:
            problems.append("an empty name, expected the path of a file or folder")
            continue
        if scheme_of(name):
            try:
                location = Location.parse(name, allow_https=allow_https)
            except LocationError as error:
                problems.append(f"{error}; {refused_hint()}")
                continue
            entries = [_entry(str(location), location)]
        elif path.suffix.lower() in manifest_file.SUFFIXES and path.is_file():
            manifest = read_manifest_paths(path, allow_https=allow_https)
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
        new = [replace(entry, line=0) for entry in entries if entry.file not in paths]
        problems += [_clash(found[entry.id], entry) for entry in new if entry.id in found]
        found |= {entry.id: entry for entry in new}
        paths |= {entry.file for entry in new}
    if problems:
        raise HaechiError(
            f"{counted(len(problems), 'problem')} with the given media:\n{bullet_list(problems, limit=100)}"
        )
    if not found:
        raise HaechiError("\n".join(["nothing to judge: no videos or images found", *notices]))
    return list(found.values()), notices


def _clash(one: Entry, other: Entry) -> str:
    files = " and ".join(shown(str(entry.file)) for entry in (one, other))
    return f"{shown(one.id)}: two files have this id, {files}; change one of the ids, or judge the files separately"


def read_paths(source: Iterable[bytes]) -> Iterator[str]:
    """One path from each line; blank lines are skipped. Bytes that are not UTF-8 are kept, as in the system's paths."""
    for line in source:
        if path := line.rstrip(b"\r\n"):
            yield os.fsdecode(path)


def _entry(id: str, path: Path | Location) -> Entry:
    return Entry(
        id=id,
        file=path if isinstance(path, Location) else os.path.abspath(path),  # noqa: PTH100 (resolve() would follow links)
        label=schema.UNLABELLED,
        split="",
        group="",
        line=0,
    )
