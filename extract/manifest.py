"""Reads what to extract, from a CSV or JSON Lines file or from a folder of class folders, as a list of entries."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from haechi.cache import manifest_file, schema
from haechi.cache.manifest_file import ManifestError
from haechi.cache.text import bullet_list, named, shown
from haechi.extract.folder import MEDIA_SUFFIXES, find_media

CLASS_FOLDERS = {"harmful": schema.HARMFUL, "safe": schema.SAFE}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row of the manifest."""

    id: str
    path: Path
    """Absolute, so that no decoder takes it for a network address."""
    label: int
    """1 harmful, 0 safe, -1 unlabelled."""
    split: str
    group: str
    line: int
    """Line in the manifest, counted from 1; 0 for a folder."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The entries, in the order of the file or of their paths in the folder."""

    entries: tuple[Entry, ...]
    notices: tuple[str, ...]
    """What a user should know before work starts."""


def read_manifest(
    data: Path, *, root: Path | None = None, positive: str | None = None, follow_symlinks: bool = False
) -> Manifest:
    """Read a manifest file, or scan a folder whose subfolders are the classes.

    `root`: folder that relative paths of a file start from; None: the file's own folder. `positive`: name of the
    harmful class folder; all others are safe then. Without it the class folders must be called `harmful` and `safe`.
    `haechi.extract.folder.find_media` says which symbolic links in a folder are followed; paths in a file always are.

    Missing files are not an error: each becomes a failure row, and a notice lists them. One `ManifestError` lists all
    other problems: duplicate ids, unknown labels or splits, unreadable rows, an empty manifest.
    """
    if not data.exists():
        raise ManifestError(f"{data}: no such manifest or folder")
    if data.is_dir():
        if root is not None:
            raise ManifestError(f"{data}: --root is for a manifest file, and this is a folder")
        return _scan_folder(data, positive, follow_symlinks=follow_symlinks)
    if positive is not None:
        raise ManifestError(f"{data}: --positive is for a folder of class folders, and this is a file")
    if follow_symlinks:
        raise ManifestError(f"{data}: --follow-symlinks is for a folder; the paths in a file are always followed")
    return _read_file(data, root if root is not None else data.parent)


def _read_file(data: Path, root: Path) -> Manifest:
    read = manifest_file.read_manifest_file(data, keys=("path",))
    entries = [
        Entry(
            id=row.id,
            path=Path(os.path.abspath(root / row.path)),  # noqa: PTH100 (resolve() would follow links)
            label=row.label,
            split=row.split,
            group=row.group,
            line=row.line,
        )
        for row in read.rows
    ]
    return Manifest(entries=tuple(entries), notices=(*read.notices, *_missing_notice(entries)))


def _scan_folder(data: Path, positive: str | None, *, follow_symlinks: bool) -> Manifest:
    found = find_media(data, follow_symlinks=follow_symlinks)
    problems = list(found.problems)
    class_names = {id: id.split("/")[0] if "/" in id else "" for id, _ in found.media}
    classes = sorted(set(class_names.values()) - {""})
    labels = CLASS_FOLDERS if positive is None else {name: int(name == positive) for name in classes}
    if positive is not None and positive not in classes:
        problems.append(f"no class folder {shown(positive)} with media; there are: {named(classes)}")
    if unknown := [name for name in classes if name not in labels]:
        problems.append(
            f"class folders {named(unknown)} are not called harmful or safe; "
            "name the harmful one with --positive NAME (all others are safe then)"
        )
        manifests = sorted(p.name for p in data.iterdir() if p.suffix.lower() in manifest_file.SUFFIXES)
        problems += [f"or use the manifest in this folder: {shown(name)}" for name in manifests]
    if problems:
        raise ManifestError("\n".join([str(ManifestError.of(data, problems)), *found.notices]))
    if not found.media:
        kinds = ", ".join(sorted(MEDIA_SUFFIXES))
        raise ManifestError(
            "\n".join([f"{data}: no videos or images in this folder (known suffixes: {kinds})", *found.notices])
        )
    entries = [
        Entry(
            id=id,
            path=Path(os.path.abspath(path)),  # noqa: PTH100 (resolve() would follow links)
            label=labels.get(class_names[id], schema.UNLABELLED),
            split="",
            group="",
            line=0,
        )
        for id, path in found.media
    ]
    return Manifest(entries=tuple(entries), notices=tuple(found.notices))


def _missing_notice(entries: Sequence[Entry]) -> Iterator[str]:
    missing = [f"line {entry.line}: {shown(entry.id)}" for entry in entries if not os.path.exists(entry.path)]  # noqa: PTH110 (Path.exists raises for names too long)
    if missing:
        yield f"missing files: {len(missing)} (failures, unless the cache holds them already)\n{bullet_list(missing)}"
