"""Reads what to extract, from a CSV or JSON Lines file or from a folder of class folders, as a list of entries."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from haechi.cache import manifest_file, schema
from haechi.cache.errors import SettingsError
from haechi.cache.garbage import no_collection
from haechi.cache.groups import GroupRule, group_clashes, group_summary
from haechi.cache.labels import LabelRule, understood
from haechi.cache.location import scheme_of, without_secrets
from haechi.cache.manifest_file import ManifestError, ManifestFile, ManifestRow
from haechi.cache.spelling import Files, hint
from haechi.cache.stores.location import WEB, Location, LocationError, refused_hint
from haechi.cache.text import MAX_BULLETS, bullet_list, counted, named, one_or_more, shown
from haechi.extract.folder import MEDIA_SUFFIXES, FolderScan, find_media
from haechi.extract.layout import METADATA_FILES, Layout, find_metadata
from haechi.extract.stores.listing import list_media

CLASSES, LABELS = ("class", "classes"), ("label", "labels")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row of the manifest."""

    id: str
    file: str | Location
    """On this machine: an absolute path, so that no decoder takes it for a network address. Else: where it is."""
    label: int
    """1 harmful, 0 safe, -1 unlabelled."""
    split: str
    group: str
    line: int
    """Line in the manifest, counted from 1; 0 for a folder."""

    @property
    def path(self) -> Path | Location:
        """The file. Made when it is asked for: a million paths take seconds, and most files need none."""
        return Path(self.file) if isinstance(self.file, str) else self.file


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The entries, in the order of the file or of their paths in the folder."""

    entries: tuple[Entry, ...]
    notices: tuple[str, ...]
    """What a user should know before work starts."""


def read_manifest(
    data: Path | Location,
    *,
    root: Path | None = None,
    positive: str | Iterable[str] | None = None,
    positive_labels: str | Iterable[str] | None = None,
    group_by: str | None = None,
    follow_symlinks: bool = False,
    allow_https: bool = False,
    is_needed: Callable[[str], bool] | None = None,
) -> Manifest:
    """Read a manifest file, or scan a folder, or a prefix in a store, whose subfolders are the classes.

    - `root`: folder that relative paths of a file start from; None: the file's own folder
    - `positive`: names of the harmful class folders, in any case; all others are safe then. Without any, the class
      folders must be called `harmful` and `safe`. `haechi.extract.layout` says which folders are classes and splits.
    - `positive_labels`: the same for the labels in a file
    - `group_by`: a regular expression that finds each file's group in its id (`haechi.cache.groups`)
    - `follow_symlinks`: `haechi.extract.folder.find_media` says which symbolic links in a folder are followed; paths in
      a file always are
    - `allow_https`: whether a file may name files of web servers
    - `is_needed`: only the files of ids for which it is true are looked for on disk; None: all. All are entries.

    A folder that holds metadata.csv or metadata.jsonl with the column `file_name`, itself or in each of its split
    folders, is read from these files, as a manifest.

    Missing files are not an error: each becomes a failure row, and a notice lists them. One `ManifestError` lists all
    other problems: duplicate ids, unknown labels or splits, unreadable rows, locations that are not read, an empty
    manifest. `SettingsError` for a `group_by` that cannot be used, `HaechiError` for a store that cannot be listed.
    """
    rule = None if group_by is None else GroupRule.parse(group_by)
    classes = tuple(one_or_more(() if positive is None else positive))
    labels = LabelRule(positive=tuple(one_or_more(() if positive_labels is None else positive_labels)))
    if isinstance(data, Location):
        if root is not None or follow_symlinks:
            raise ManifestError(
                f"{data}: --root is for a manifest file, --follow-symlinks for a folder on this machine"
            )
        manifest = _read_prefix(data, classes, labels)
    elif not data.exists():
        raise ManifestError(f"{data}: no such manifest or folder")
    elif data.is_dir():
        if root is not None:
            raise ManifestError(f"{data}: --root is for a manifest file, and this is a folder")
        manifest = _read_folder(data, classes, labels, follow_symlinks=follow_symlinks, is_needed=is_needed)
    else:
        if classes:
            raise ManifestError(
                f"{data}: --positive is for a folder of class folders, and this is a file; "
                "for the labels in a file there is --positive-label"
            )
        if follow_symlinks:
            raise ManifestError(f"{data}: --follow-symlinks is for a folder; the paths in a file are always followed")
        root = root if root is not None else data.parent
        manifest = _read_file(data, root, labels, allow_https=allow_https, is_needed=is_needed)
    return manifest if rule is None else grouped(data, manifest, rule)


def located(text: str | os.PathLike[str]) -> Path | Location:
    """A manifest or folder on this machine, or a prefix in a store. Raises `ManifestError` for one that is not read."""
    text = os.fspath(text)
    if scheme_of(text) == WEB:
        name = shown(without_secrets(text))
        raise ManifestError(f"{name}: a web server has no listing; name its files in a manifest")
    try:
        prefix = Location.parse(text) if scheme_of(text) else None
    except LocationError as error:
        raise ManifestError(f"{error}; {refused_hint()}") from error
    return Path(text) if prefix is None else prefix


def read_manifest_paths(file: Path, *, allow_https: bool = False) -> Manifest:
    """Read the ids and paths of a manifest file; its labels, splits and groups may be anything and are not read."""
    read = manifest_file.read_manifest_file(file, keys=("path",), columns=("path", "id"))
    entries = _entries(file, read.rows, file.parent, allow_https=allow_https)
    return Manifest(entries=tuple(entries), notices=(*read.notices, *_missing_notice(read, entries, file.parent)))


def _read_file(
    data: Path, root: Path, rule: LabelRule, *, allow_https: bool, is_needed: Callable[[str], bool] | None
) -> Manifest:
    read = manifest_file.read_manifest_file(data, keys=("path",), rule=rule)
    entries = _entries(data, read.rows, root, allow_https=allow_https)
    missing = _missing_notice(read, entries, root, is_needed)
    return Manifest(entries=tuple(entries), notices=(*read.notices, *missing))


def _entries(file: Path, rows: Iterable[ManifestRow], root: Path, *, allow_https: bool = False) -> list[Entry]:
    """Each row with its file, whose path starts from `root` if it is relative.

    Raises `ManifestError` that lists all locations that are not read.
    """
    base = os.path.abspath(root)  # noqa: PTH100 (resolve() would follow links)
    problems: list[str] = []
    with no_collection():
        entries = [
            Entry(
                id=row.id,
                file=_located(row, problems, allow_https=allow_https)
                if scheme_of(row.path)
                else os.path.normpath(os.path.join(base, row.path)),  # noqa: PTH118 (slower)
                label=row.label,
                split=row.split,
                group=row.group,
                line=row.line,
            )
            for row in rows
        ]
    if problems:
        number = counted(len(problems), "location")
        raise ManifestError(f"{file}: {number} that cannot be read; {refused_hint()}:\n{bullet_list(problems)}")
    return entries


def _located(row: ManifestRow, problems: list[str], *, allow_https: bool) -> str | Location:
    """Where a row's file is in a store; if it is not read, that is added to the problems."""
    try:
        return Location.parse(row.path, allow_https=allow_https)
    except LocationError as error:
        problems.append(f"{row.place}: {error}")
        return ""


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 (resolve() would follow links)


def _read_folder(
    data: Path,
    positive: tuple[str, ...],
    rule: LabelRule,
    *,
    follow_symlinks: bool,
    is_needed: Callable[[str], bool] | None,
) -> Manifest:
    metadata, problems, notices = find_metadata(data, follow_symlinks=follow_symlinks)
    if problems:
        raise ManifestError.of(data, problems)
    if metadata:
        return _read_metadata(
            data, metadata, positive, rule, notices, follow_symlinks=follow_symlinks, is_needed=is_needed
        )
    found = find_media(data, follow_symlinks=follow_symlinks)
    layout, wrong = Layout.of((id for id, _ in found.media), positive=positive)
    problems = found.problems + wrong
    if wrong and not positive:
        manifests = sorted(p.name for p in data.iterdir() if p.suffix.lower() in manifest_file.SUFFIXES)
        problems += [f"or use the manifest in this folder: {shown(name)}" for name in manifests]
    if rule.positive:
        problems.append("--positive-label is for the labels in a file; for class folders there is --positive")
    if problems:
        raise ManifestError("\n".join([str(ManifestError.of(data, problems)), *notices, *found.notices]))
    files: dict[str, Path | Location] = {id: _absolute(path) for id, path in found.media}
    return _laid_out(data, found, files, layout, notices)


def _read_prefix(data: Location, positive: tuple[str, ...], rule: LabelRule) -> Manifest:
    """The files below a prefix in a store. Metadata files there are not read."""
    found, states = list_media(data)
    layout, wrong = Layout.of((id for id, _ in found.media), positive=positive)
    problems = found.problems + wrong
    if rule.positive:
        problems.append("--positive-label is for the labels in a file; for class folders there is --positive")
    if problems:
        raise ManifestError("\n".join([str(ManifestError.of(data, problems)), *found.notices]))
    notices = [
        f"{shown(name)} is not read, since it lies in a store: copy it, with locations in its column path, and give "
        "the copy as the manifest"
        for name in states
        if name.rpartition("/")[2] in METADATA_FILES and name.count("/") <= 1
    ]
    files: dict[str, Path | Location] = {id: data.below(id, states[id]) for id, _ in found.media}
    return _laid_out(data, found, files, layout, notices)


def _laid_out(
    data: Path | Location, found: FolderScan, files: Mapping[str, Path | Location], layout: Layout, notices: list[str]
) -> Manifest:
    """The entries of a folder or prefix: id -> file, with the labels and splits of its subfolders."""
    if not files:
        kinds = ", ".join(sorted(MEDIA_SUFFIXES))
        raise ManifestError(
            "\n".join([f"{data}: no videos or images in this folder (known suffixes: {kinds})", *found.notices])
        )
    entries = [
        Entry(
            id=id,
            file=file if isinstance(file, Location) else str(file),
            label=layout.label_of(id),
            split=layout.split_of(id),
            group="",
            line=0,
        )
        for id, file in files.items()
    ]
    meaning = _understood(layout.classes, CLASSES, entries)
    return Manifest(entries=tuple(entries), notices=(*notices, *found.notices, meaning))


def _understood(names: Mapping[str, int], noun: tuple[str, str], entries: Sequence[Entry]) -> str:
    return understood(names, noun, labels=[entry.label for entry in entries], splits=[entry.split for entry in entries])


def _read_metadata(
    data: Path,
    metadata: dict[Path, str],
    positive: tuple[str, ...],
    rule: LabelRule,
    notices: list[str],
    *,
    follow_symlinks: bool,
    is_needed: Callable[[str], bool] | None,
) -> Manifest:
    """The rows of a folder's metadata files. Labels and splits that they do not give come from the folders."""
    read = manifest_file.read_manifest_files(data, metadata, keys=("path",), rule=rule)
    ids = ["/" if scheme_of(row.path) else os.path.normpath(row.path) for row in read.rows]  # "/": in no class folder
    has_labels = "label" in read.columns
    layout, problems = Layout.of(ids, positive=positive)
    if has_labels:
        layout, problems = Layout(splits=layout.splits, classes={}), []
        if positive:
            problems = ["--positive is for class folders, and the labels are in the metadata: use --positive-label"]
    if problems:
        raise ManifestError.of(data, problems)
    entries = [
        replace(
            entry,
            label=entry.label if has_labels else layout.label_of(path),
            split=entry.split or layout.split_of(path),
        )
        for entry, path in zip(_entries(data, read.rows, data), ids, strict=True)
    ]
    names = read.labels if has_labels else layout.classes
    files = named([str(file.relative_to(data)) for file in metadata])
    listed = {entry.file for entry in entries}
    media = find_media(data, follow_symlinks=follow_symlinks).media
    notices = [*notices, f"read from {files}", *read.notices]
    if not rule.positive:
        known = {name: label for name, label in names.items() if label != schema.UNLABELLED}
        notices.append(_understood(known, LABELS if has_labels else CLASSES, entries))
    if left_out := [shown(id) for id, path in media if str(_absolute(path)) not in listed]:
        notices.append(f"files without a row in {files}, left out: {len(left_out)}\n{bullet_list(left_out)}")
    return Manifest(entries=tuple(entries), notices=(*notices, *_missing_notice(read, entries, data, is_needed)))


def grouped(data: Path | Location, manifest: Manifest, rule: GroupRule) -> Manifest:
    """The manifest with the groups that a rule gives. Files without one keep the group of their row."""
    try:
        groups = rule.groups([entry.id for entry in manifest.entries])
    except SettingsError as error:
        raise ManifestError(f"{data}: {error}") from error
    pairs = list(zip(manifest.entries, groups, strict=True))
    if clashes := group_clashes(
        [(f"line {entry.line}, id {shown(entry.id)}", entry.group, group) for entry, group in pairs]
    ):
        raise ManifestError.of(data, clashes)
    entries = [replace(entry, group=group or entry.group) for entry, group in pairs]
    return Manifest(
        entries=tuple(entries), notices=(*manifest.notices, group_summary([entry.group for entry in entries]))
    )


def _missing_notice(
    read: ManifestFile, entries: Sequence[Entry], root: Path, is_needed: Callable[[str], bool] | None = None
) -> list[str]:
    files = Files(root)
    missing = [
        (row, files.find(row.path))
        for row, entry in zip(read.rows, entries, strict=True)
        if isinstance(entry.file, str) and (is_needed is None or is_needed(entry.id)) and not os.path.exists(entry.file)  # noqa: PTH110 (Path.exists raises for names too long)
    ]
    if not missing:
        return []
    num_found = sum(found is not None for _, found in missing)
    lines = [
        f"{row.place}: {shown(row.id)}" + (f" is {hint(row.path, found)}" if found else "")
        for row, found in missing[:MAX_BULLETS]
    ]
    others = f"; {counted(num_found, 'is', 'are')} there under another spelling" if num_found else ""
    notice = f"missing files: {len(missing)} (failures, unless the cache holds them already){others}"
    return [f"{notice}\n{bullet_list(lines, total=len(missing))}"]
