"""Finds the videos and images in a folder, and says what it passes over."""

import os
import stat
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from haechi.cache import schema
from haechi.cache.text import bullet_list, shown

VIDEO_SUFFIXES = frozenset(
    ".3gp .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv".split()  # noqa: SIM905
)
IMAGE_SUFFIXES = frozenset(".bmp .gif .jfif .jpeg .jpg .png .webp".split())  # noqa: SIM905
MEDIA_SUFFIXES = VIDEO_SUFFIXES | IMAGE_SUFFIXES


@dataclass(kw_only=True)
class Found:
    """What stands in a folder and its subfolders, those whose names begin with a dot left out."""

    media: list[tuple[str, Path]] = field(default_factory=list)
    """(id, path) of every file with the ending of a video or an image, sorted: ids are paths relative to the folder."""
    problems: list[str] = field(default_factory=list)
    """Folders that cannot be read, and names that cannot be ids."""
    num_other_files: int = 0
    links: list[str] = field(default_factory=list)
    """Symbolic links that were passed over, and why."""
    broken: list[str] = field(default_factory=list)
    """Symbolic links that lead nowhere. With such an ending they stand in `media` too, and will be missing."""

    @property
    def notices(self) -> list[str]:
        """What a user should know of it."""
        notices = []
        if self.num_other_files:
            notices.append(f"files passed over because their ending is no video's or image's: {self.num_other_files}")
        if self.links:
            notices.append(f"symbolic links passed over: {len(self.links)}\n{bullet_list(sorted(self.links))}")
        if self.broken:
            notices.append(f"broken symbolic links: {len(self.broken)}\n{bullet_list(sorted(self.broken))}")
        return notices


@dataclass(kw_only=True)
class _Search:
    root: Path
    """Without symbolic links."""
    follow_symlinks: bool
    found: Found = field(default_factory=Found)
    visited: set[tuple[int, int]] = field(default_factory=set)
    """(device, inode) of every folder."""
    links: deque[tuple[Path, str]] = field(default_factory=deque)
    """(path, id) of the symbolic links to folders that are still to be looked at."""


def find_media(root: Path, *, follow_symlinks: bool) -> Found:
    """Search a folder, which may itself be a symbolic link.

    A symbolic link to a file inside the folder is a file, one that leads out of it is passed over. Links to folders are
    passed over: what they lead to inside stands in its own place. With `follow_symlinks` all are followed. Either way
    a folder is visited once, in its own place if it has one inside, so that links in circles end.
    """
    search = _Search(root=Path(os.path.realpath(root)), follow_symlinks=follow_symlinks)
    _visit(search, root, "")
    while search.links:
        path, id = search.links.popleft()
        state = path.stat()
        if (state.st_dev, state.st_ino) in search.visited:
            search.found.links.append(f"{shown(id)}: its folder is searched in another place")
        elif follow_symlinks:
            _visit(search, path, f"{id}/")
        else:
            search.found.links.append(f"{shown(id)}: leads to a hidden folder (--follow-symlinks)")
    search.found.media.sort()
    return search.found


def _visit(search: _Search, folder: Path, prefix: str) -> None:
    """Search a folder and all real folders in it; `prefix` is what the ids of its files begin with."""
    found, waiting = search.found, [(folder, prefix)]
    while waiting:
        folder, prefix = waiting.pop()
        try:
            state = folder.stat()
            if (state.st_dev, state.st_ino) in search.visited:
                continue
            search.visited.add((state.st_dev, state.st_ino))
            with os.scandir(folder) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            found.problems.append(f"{shown(str(folder))}: cannot be read ({error.strerror})")
            continue
        for entry in entries:
            id = prefix + entry.name
            is_folder = entry.is_dir(follow_symlinks=False)
            if entry.name.startswith("."):
                found.num_other_files += not is_folder
            elif is_folder:
                waiting.append((Path(entry.path), f"{id}/"))
            elif not entry.is_symlink() or _leads_to_file(search, Path(entry.path), id):
                _add(found, Path(entry.path), id)


def _leads_to_file(search: _Search, path: Path, id: str) -> bool:
    """Whether a symbolic link is to be taken as a file; otherwise it is noted."""
    target = os.path.realpath(path)
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except OSError as error:
        search.found.broken.append(f"{shown(id)}: leads to {shown(target)} ({error.strerror})")
        return _is_media(id)
    if not search.follow_symlinks and not Path(target).is_relative_to(search.root):
        if is_folder or _is_media(id):
            told = f"leads out of the folder, to {shown(target)} (--follow-symlinks)"
            search.found.links.append(f"{shown(id)}: {told}")
            return False
    elif is_folder:
        search.links.append((path, id))
    return not is_folder


def _add(found: Found, path: Path, id: str) -> None:
    if not _is_media(id):
        found.num_other_files += 1
    elif flaw := schema.id_problem(id):
        found.problems.append(f"{shown(id)}: its name {flaw}")
    else:
        found.media.append((id, path))


def _is_media(name: str) -> bool:
    return Path(name).suffix.lower() in MEDIA_SUFFIXES
