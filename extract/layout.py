"""What a folder's subfolders mean: classes, splits with class folders in them, and the metadata files beside them."""

import difflib
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from haechi.cache import schema
from haechi.cache.labels import folded, positive_problems
from haechi.cache.manifest_file import FILE_NAME, column_names
from haechi.cache.text import named, shown, visible

# Names of folders in any case -> the split. Those that ImageFolder, Kinetics, UCF-Crime and RWF-2000 use, and the usual
# other words.
SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
CLASS_FOLDERS = {"harmful": schema.HARMFUL, "safe": schema.SAFE}

# The files in which Hugging Face's ImageFolder and VideoFolder keep labels.
METADATA_FILES = ("metadata.csv", "metadata.jsonl")
# What such a file must say something about to be used.
METADATA_COLUMNS = frozenset({"label", "split", "group"})


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The meaning of the folders on the first level, or on the first two."""

    splits: Mapping[str, str]
    """Folder on the first level -> split. Empty if that level holds the classes."""
    classes: Mapping[str, int]
    """Class folder -> 1 harmful, 0 safe."""

    @classmethod
    def of(cls, ids: Iterable[str], *, positive: Sequence[str] = ()) -> tuple["Layout", list[str]]:
        """The layout of the files `ids`, which are paths below the folder, and what is wrong with it.

        If all folders on the first level are named as in `SPLIT_FOLDERS`, they are splits and hold the class folders:
        `train/Fight/a.mp4`. Otherwise they are the classes. `positive`: names of the harmful classes in any case; all
        others are safe. Without any, the classes must be called harmful and safe, in any case.
        """
        parents = {_folders(id) for id in ids}
        first = sorted({parts[0] for parts in parents if parts})
        splits = splits_of(first)
        level = 1 if splits else 0
        names = sorted({parts[level] for parts in parents if len(parts) > level})
        problems = _depth_problems(first, parents) if not splits else []
        if not problems and (problems := _name_problems(names, splits, positive)) and not splits:
            problems += _deeper_folders(names, parents)
        known = {folded(name): 1 for name in positive} if positive else CLASS_FOLDERS
        classes = {name: known.get(folded(name), schema.SAFE) for name in names}
        return cls(splits=splits, classes=classes), problems

    def split_of(self, id: str) -> str:
        """The split of a file; empty if the folder says nothing."""
        return self.splits.get(next(iter(_folders(id)), ""), "")

    def label_of(self, id: str) -> int:
        """1 harmful, 0 safe; -1 for a file that is in no class folder."""
        parts = _folders(id)
        level = 1 if self.splits else 0
        return self.classes[parts[level]] if len(parts) > level else schema.UNLABELLED


def _folders(id: str) -> tuple[str, ...]:
    """The folders of a file, the first level first; none if the file, which a metadata file names, lies elsewhere."""
    return () if id.startswith(("/", "../")) else tuple(id.split("/")[:-1])


def splits_of(folders: Collection[str]) -> dict[str, str]:
    """The split of each folder if all are named like splits; else nothing."""
    splits = {name: split for name in folders if (split := SPLIT_FOLDERS.get(folded(name)))}
    return splits if len(splits) == len(folders) else {}


def _depth_problems(first: Sequence[str], parents: set[tuple[str, ...]]) -> list[str]:
    """Folders named like splits in places where they are not read as splits."""
    named_so = [name for name in first if folded(name) in SPLIT_FOLDERS]
    if named_so:
        others = [name for name in first if name not in named_so]
        near = {name: difflib.get_close_matches(folded(name), SPLIT_FOLDERS, 1, 0.75) for name in others}
        typing = [f"; did you mean {match[0]!r} by {shown(name)}?" for name, match in near.items() if match]
        return [
            f"folders named like splits, {named(named_so)}, stand beside {named(others)}: a folder holds either splits "
            f"with the same class folders in each (train/CLASS), or class folders alone{''.join(typing)}"
        ]
    if len(first) == 1:
        second = {parts[1] for parts in parents if len(parts) > 1}
        if splits_of(second) and any(len(parts) > 2 for parts in parents):
            return [
                f"{shown(first[0])} is the only folder, and the split folders {named(sorted(second))} stand in it: "
                f"give that folder itself, .../{visible(first[0][:80])}"
            ]
    return []


def _deeper_folders(names: Sequence[str], parents: set[tuple[str, ...]]) -> list[str]:
    """Advice if the only class folder has folders in it, which may be what the user means by classes."""
    inner = sorted({parts[1] for parts in parents if len(parts) > 1})
    if len(names) != 1 or not inner:
        return []
    return [
        f"{shown(names[0])} is the only folder, and {named(inner)} stand in it: if they are the classes, give that "
        f"folder itself, .../{visible(names[0][:80])}"
    ]


def _name_problems(names: Sequence[str], splits: Mapping[str, str], positive: Sequence[str]) -> list[str]:
    """Classes whose label is not known, and names in `positive` that are no class."""
    if not positive:
        unknown = [name for name in names if folded(name) not in CLASS_FOLDERS]
        return [
            f"class folders {named(unknown)} are not called harmful or safe; "
            "name the harmful one with --positive NAME (all others are safe then; repeat it for several)"
            for _ in unknown[:1]
        ]
    there = {folded(name) for name in splits} - {folded(name) for name in names}
    problems = [
        f"--positive {name}: {shown(name)} is a split and not a class, and all its files would be harmful; "
        f"the classes in it are: {named(list(names))}"
        for name in dict.fromkeys(positive)
        if folded(name) in there
    ]
    rest = [name for name in positive if folded(name) not in there]
    return problems + positive_problems(rest, names, flag="--positive", lacking="no class folder {} with media")


def find_metadata(folder: Path, *, follow_symlinks: bool) -> tuple[dict[Path, str], list[str], list[str]]:
    """The metadata files of Hugging Face in a folder or in each of its split folders, problems and notices.

    A file counts if it has the column `file_name` and one of `METADATA_COLUMNS`. Returns each such file -> the folder
    that it stands in, relative to `folder` (empty for `folder` itself).
    """
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
        below = [
            entry.name
            for entry in entries
            if folded(entry.name) in SPLIT_FOLDERS and entry.is_dir(follow_symlinks=follow_symlinks)
        ]
    except OSError:
        return {}, [], []  # the scan for media reports it
    found: dict[Path, str] = {}
    notices = []
    for name in ["", *below]:
        for file in (folder / name / metadata for metadata in METADATA_FILES):
            columns = column_names(file)
            if FILE_NAME in columns and columns & METADATA_COLUMNS:
                found[file] = name
            elif FILE_NAME in columns:
                notices.append(
                    f"{shown(str(file.relative_to(folder)))} is not used: it has no column label, split or group"
                )
    places = [str(file.relative_to(folder)) for file in found]
    if len(set(found.values())) < len(found) or ("" in found.values() and len(found) > 1):
        return {}, [f"several metadata files for the same files: {named(places)}; keep one of them"], notices
    return found, [], notices
