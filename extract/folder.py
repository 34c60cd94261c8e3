"""Finds the videos and images in a folder, and reports what it skips."""

import os
import stat
from collections import Counter, deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from haechi.cache import schema
from haechi.cache.text import MAX_NAMED, bullet_list, counted, shown, visible

VIDEO_SUFFIXES = frozenset(
    ".3gp .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv".split()  # noqa: SIM905
)
IMAGE_SUFFIXES = frozenset(
    ".avif .bmp .gif .heic .heif .hif .jfif .jpeg .jpg .png .webp".split()  # noqa: SIM905
)
MEDIA_SUFFIXES = VIDEO_SUFFIXES | IMAGE_SUFFIXES

# Images that are not read: those of `decoding.formats`, and others that a user may take for usable.
UNREAD_SUFFIXES = frozenset(
    ".3fr .arw .bpg .cr2 .cr3 .crw .dds .dng .eps .erf .exr .ico .iiq .j2c .j2k .jp2 .jpc .jpf .jpx .jxl .jxr .mrw "  # noqa: SIM905
    ".nef .nrw .orf .pbm .pcx .pef .pgm .pnm .ppm .psb .psd .qoi .raf .rw2 .sr2 .srf .srw .svg .tga .tif .tiff .x3f "
    ".xcf".split()
)
# Videos that may work where a manifest names them, since contents count there.
UNSEARCHED_SUFFIXES = frozenset(".asf .divx .dv .f4v .m2v .mxf .ogm .qt .rm .rmvb .vob".split())  # noqa: SIM905

MAX_SUFFIX_LETTERS = 10  # what follows the last dot of a longer name is no ending


@dataclass(kw_only=True)
class FolderScan:
    """What a folder and its subfolders contain; hidden files and folders are skipped."""

    media: list[tuple[str, Path]] = field(default_factory=list)
    """(id, path) of every file with the suffix of a video or an image, sorted. Ids are paths relative to the folder."""
    problems: list[str] = field(default_factory=list)
    """Folders that cannot be read, and names that cannot be ids."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Files that were skipped: suffix, in small letters, or empty -> their number."""
    num_hidden: int = 0
    """Hidden files, whatever their suffix. Those in hidden folders do not count."""
    links: list[str] = field(default_factory=list)
    """Symbolic links that were skipped, and why."""
    broken: list[str] = field(default_factory=list)
    """Symbolic links whose target is missing. Those with a media suffix are in `media` too, and become failures."""

    @property
    def notices(self) -> list[str]:
        """What a user should know about the skipped files."""
        notices = []
        if self.skipped or self.num_hidden:
            notices.append(f"files skipped: {', '.join(self._kinds_skipped())}")
        if unread := _ordered(self.skipped, UNREAD_SUFFIXES):
            notices.append(
                f"{_summed(unread, 'image')} of formats that Haechi does not read: {_listed(unread)}; "
                "convert them to JPEG or PNG to include them"
            )
        if unsearched := _ordered(self.skipped, UNSEARCHED_SUFFIXES):
            notices.append(
                f"{_summed(unsearched, 'video')} with endings that are not searched for: {_listed(unsearched)}; "
                "name them in a manifest to try them"
            )
        if self.links:
            notices.append(f"symbolic links skipped: {len(self.links)}\n{bullet_list(sorted(self.links))}")
        if self.broken:
            notices.append(f"broken symbolic links: {len(self.broken)}\n{bullet_list(sorted(self.broken))}")
        return notices

    def _kinds_skipped(self) -> list[str]:
        kinds = [f"{count:,} {visible(suffix) or 'without an ending'}" for suffix, count in _ordered(self.skipped)]
        if rest := _ordered(self.skipped)[MAX_NAMED:]:
            kinds[MAX_NAMED:] = [f"{sum(count for _, count in rest):,} with {len(rest):,} other endings"]
        return kinds + ([f"{self.num_hidden:,} hidden"] if self.num_hidden else [])


def _ordered(skipped: Counter[str], suffixes: Collection[str] | None = None) -> list[tuple[str, int]]:
    """The suffixes and their numbers, the most frequent first; only some if `suffixes` are given."""
    found = [(suffix, count) for suffix, count in skipped.items() if suffixes is None or suffix in suffixes]
    return sorted(found, key=lambda item: (-item[1], item[0]))


def _listed(counts: list[tuple[str, int]]) -> str:
    return ", ".join(f"{count:,} {suffix}" for suffix, count in counts)


def _summed(counts: list[tuple[str, int]], noun: str) -> str:
    return counted(sum(count for _, count in counts), noun)


@dataclass(kw_only=True)
class _Scan:
    root: Path
    """With all symbolic links resolved."""
    follow_symlinks: bool
    result: FolderScan = field(default_factory=FolderScan)
    visited: set[tuple[int, int]] = field(default_factory=set)
    """(device, inode) of every folder."""
    links: deque[tuple[Path, str]] = field(default_factory=deque)
    """(path, id) of the symbolic links to folders that are not visited yet."""


def find_media(root: Path, *, follow_symlinks: bool) -> FolderScan:
    """Search a folder, which may itself be a symbolic link.

    A symbolic link to a file inside the folder counts as a file. Links that lead out of the folder are skipped, and so
    are links to folders, because folders inside are searched anyway. With `follow_symlinks` all links are followed.
    Each folder is visited once, under its real path if that is inside, so that circular links end.
    """
    scan = _Scan(root=Path(os.path.realpath(root)), follow_symlinks=follow_symlinks)
    _visit(scan, root, "")
    while scan.links:
        path, id = scan.links.popleft()
        state = path.stat()
        if (state.st_dev, state.st_ino) in scan.visited:
            scan.result.links.append(f"{shown(id)}: its folder is searched under another path")
        elif follow_symlinks:
            _visit(scan, path, f"{id}/")
        else:
            scan.result.links.append(f"{shown(id)}: leads to a hidden folder (--follow-symlinks)")
    scan.result.media.sort()
    return scan.result


def scan_names(names: Iterable[str]) -> FolderScan:
    """The scan of names below a prefix of an object store, in order. Paths are the names: no file system has them."""
    result = FolderScan()
    for name in names:
        *folders, last = name.split("/")
        if any(folder.startswith(".") for folder in folders):
            continue
        if last.startswith("."):
            result.num_hidden += 1
        else:
            _add(result, Path(name), name)
    return result


def _visit(scan: _Scan, folder: Path, prefix: str) -> None:
    """Search a folder and all real folders in it. The ids of its files start with `prefix`."""
    result, waiting = scan.result, [(folder, prefix)]
    while waiting:
        folder, prefix = waiting.pop()
        try:
            state = folder.stat()
            if (state.st_dev, state.st_ino) in scan.visited:
                continue
            scan.visited.add((state.st_dev, state.st_ino))
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            result.problems.append(f"{shown(str(folder))}: cannot be read ({error.strerror})")
            continue
        for entry in entries:
            id = prefix + entry.name
            is_folder = entry.is_dir(follow_symlinks=False)
            if entry.name.startswith("."):
                result.num_hidden += not is_folder
            elif is_folder:
                waiting.append((Path(entry.path), f"{id}/"))
            elif not entry.is_symlink() or _leads_to_file(scan, Path(entry.path), id):
                _add(result, Path(entry.path), id)


def _leads_to_file(scan: _Scan, path: Path, id: str) -> bool:
    """Whether a symbolic link counts as a file; if not, it is recorded in the scan."""
    target = os.path.realpath(path)
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except OSError as error:
        scan.result.broken.append(f"{shown(id)}: leads to {shown(target)} ({error.strerror})")
        return _is_media(id)
    if not scan.follow_symlinks and not Path(target).is_relative_to(scan.root):
        if is_folder or _is_media(id):
            scan.result.links.append(f"{shown(id)}: leads out of the folder, to {shown(target)} (--follow-symlinks)")
            return False
    elif is_folder:
        scan.links.append((path, id))
    return not is_folder


def _add(result: FolderScan, path: Path, id: str) -> None:
    if not _is_media(id):
        result.skipped[_suffix(id)] += 1
    elif flaw := schema.id_problem(id):
        result.problems.append(f"{shown(id)}: its name {flaw}")
    else:
        result.media.append((id, path))


def _is_media(name: str) -> bool:
    return _suffix(name) in MEDIA_SUFFIXES


def _suffix(name: str) -> str:
    suffix = Path(name).suffix.lower()
    return suffix if len(suffix) <= 1 + MAX_SUFFIX_LETTERS and " " not in suffix else ""
