"""What to extract: a CSV or JSON Lines file, or a folder of class folders, to a list of entries."""

import csv
import difflib
import io
import json
import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache import schema
from cache.errors import HaechiError, bullet_list, visible

COLUMNS = ("path", "label", "split", "group", "id")
CLASS_FOLDERS = {"harmful": schema.HARMFUL, "safe": schema.SAFE}
LABELS = {"1": schema.HARMFUL, "harmful": schema.HARMFUL, "0": schema.SAFE, "safe": schema.SAFE, "": schema.UNLABELLED}

VIDEO_SUFFIXES = frozenset(
    ".3gp .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv".split()  # noqa: SIM905
)


class ManifestError(HaechiError):
    """A manifest that cannot be used; the text lists everything wrong in it with line numbers."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row of the manifest."""

    id: str
    path: Path
    """Absolute, so that no decoder takes it for a protocol."""
    label: int
    """1 harmful, 0 safe, -1 unlabelled."""
    split: str
    group: str
    line: int
    """Line in the manifest, from 1; 0 in a folder."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The entries in their order, with what a user should know of them before work starts."""

    entries: tuple[Entry, ...]
    notices: tuple[str, ...]


def read_manifest(data: Path, *, root: Path | None = None, positive: str | None = None) -> Manifest:
    """Read a manifest file, or scan a folder whose subfolders are the classes.

    `root` is where relative paths of a file start (its own folder otherwise). `positive` names the class folder that
    is harmful; all others are safe then. Without it they must be called `harmful` and `safe`.

    Missing files are no error: each becomes a failure row, and a notice tells of them. Everything else that is wrong
    raises one `ManifestError`: duplicate ids, unknown labels or splits, unreadable rows, an empty manifest.
    """
    if not data.exists():
        raise ManifestError(f"{data}: no such manifest or folder")
    if data.is_dir():
        if root is not None:
            raise ManifestError(f"{data}: --root goes with a manifest file, and this is a folder")
        return _scan_folder(data, positive)
    if positive is not None:
        raise ManifestError(f"{data}: --positive goes with a folder of class folders, and this is a file")
    return _read_file(data, root if root is not None else data.parent)


def _read_file(data: Path, root: Path) -> Manifest:
    try:
        content = data.read_bytes()
    except OSError as error:
        raise ManifestError(f"{data}: cannot be read ({error.strerror})") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ManifestError(f"{data}, line {line}: not UTF-8; save the manifest as UTF-8") from error
    rows = _json_rows(text) if data.suffix.lower() in {".jsonl", ".ndjson"} else _csv_rows(text, data)

    problems: list[str] = []
    entries: list[Entry] = []
    ignored: set[str] = set()
    first_line: dict[str, int] = {}
    for line, row in rows:
        if isinstance(row, str):
            problems.append(f"line {line}: {row}")
            continue
        ignored |= row.keys() - set(COLUMNS)
        entry, wrong = _entry(row, line, root)
        if entry is not None and (before := first_line.setdefault(entry.id, line)) != line:
            wrong.append(f"id {_shown(entry.id)} stands on line {before} already")
        problems += [f"line {line}: {text}" for text in wrong]
        if entry is not None and not wrong:
            entries.append(entry)
    if problems:
        raise ManifestError(f"{data}: wrong in {len(problems)} places:\n{bullet_list(problems, limit=100)}")
    if not entries:
        raise ManifestError(f"{data}: holds no rows; one row a video is needed, with at least the column 'path'")
    notices = [f"columns not used: {', '.join(sorted(map(_shown, ignored)))}"] if ignored else []
    return Manifest(entries=tuple(entries), notices=(*notices, *_missing_notice(entries)))


def _csv_rows(text: str, data: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """(line, row) of every row that is not blank; a row that cannot be read is told as text."""
    csv.field_size_limit(1 << 16)  # a path has at most 4096 bytes
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise ManifestError(f"{data}, line 1: {error}") from error
    if "path" not in header:
        raise ManifestError(
            f"{data}, line 1: the header must name the column 'path' (and may name {', '.join(COLUMNS[1:])}); "
            f"got {', '.join(map(_shown, header)) or 'nothing'}"
        )
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise ManifestError(f"{data}, line 1: columns named twice: {', '.join(map(_shown, twice))}")
    for name in header:
        if name not in COLUMNS and (near := difflib.get_close_matches(name.lower(), COLUMNS, 1, 0.75)):
            raise ManifestError(f"{data}, line 1: unknown column {_shown(name)}; did you mean {near[0]!r}?")
    while True:
        line = reader.line_num + 1
        try:
            values = next(reader, None)
        except csv.Error as error:
            yield line, f"not readable as CSV ({error})"
            return
        if values is None:
            return
        if not any(value.strip() for value in values):
            continue
        if len(values) != len(header):
            yield line, f"{len(values)} fields, expected {len(header)} as in the header"
            continue
        yield line, dict(zip(header, values, strict=True))


def _json_rows(text: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    for line, source in enumerate(text.split("\n"), start=1):
        if not source.strip():
            continue
        try:
            row = json.loads(source)
        except (ValueError, RecursionError) as error:
            yield line, f"not readable as JSON ({error})"
            continue
        yield line, row if isinstance(row, dict) else f"a JSON object is expected, got {type(row).__name__}"


def _entry(row: dict[str, Any], line: int, root: Path) -> tuple[Entry | None, list[str]]:
    """The entry of one row, with what is wrong in it. No entry where there is no usable id."""
    wrong: list[str] = []
    texts: dict[str, str] = {}
    for column in COLUMNS:
        value = row.get(column)
        if value is None:
            texts[column] = ""
        elif isinstance(value, str) or (column != "path" and type(value) is int):
            texts[column] = str(value).strip()
        else:
            wrong.append(f"{column} is {_shown(str(value))}, text is expected")
            texts[column] = ""
        if texts[column] and (flaw := schema.id_problem(texts[column])):
            wrong.append(f"{column} {flaw}")
    label = LABELS.get(texts["label"].lower())
    if label is None:
        wrong.append(f"label is {_shown(texts['label'])}, expected 1 or harmful, 0 or safe, or empty")
    if texts["split"] not in ("", *schema.SPLITS):
        wrong.append(f"split is {_shown(texts['split'])}, expected {', '.join(schema.SPLITS)}, or empty")
    if not texts["path"]:
        wrong.append("path is empty")
        return None, wrong
    path = Path(texts["path"])
    id = texts["id"] or (texts["path"] if path.is_absolute() else posixpath.normpath(texts["path"]))
    entry = Entry(
        id=id,
        path=Path(os.path.abspath(root / path)),  # noqa: PTH100 (resolve() would follow links)
        label=schema.UNLABELLED if label is None else label,
        split=texts["split"],
        group=texts["group"],
        line=line,
    )
    return entry, wrong


def _scan_folder(data: Path, positive: str | None) -> Manifest:
    found: list[tuple[str, Path]] = []
    problems: list[str] = []
    other_files, links = 0, []

    def unreadable(error: OSError) -> None:
        problems.append(f"{_shown(str(error.filename))}: cannot be read ({error.strerror})")

    for folder, subfolders, files in os.walk(data, onerror=unreadable):
        links += [str(path) for name in subfolders if (path := Path(folder, name)).is_symlink()]
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(files):
            path = Path(folder, name)
            id = path.relative_to(data).as_posix()
            if name.startswith(".") or path.suffix.lower() not in VIDEO_SUFFIXES:
                other_files += 1
            elif flaw := schema.id_problem(id):
                problems.append(f"{_shown(id)}: its name {flaw}")
            else:
                found.append((id, path))
    found.sort()
    class_of = {id: id.split("/")[0] if "/" in id else "" for id, _ in found}
    classes = sorted(set(class_of.values()) - {""})
    labels = CLASS_FOLDERS if positive is None else {name: int(name == positive) for name in classes}
    if positive is not None and positive not in classes:
        problems.append(f"no class folder {_shown(positive)} with videos; there are: {', '.join(classes) or 'none'}")
    if unknown := [name for name in classes if name not in labels]:
        problems.append(
            f"class folders {', '.join(map(_shown, unknown))} are not called harmful or safe; "
            "say --positive NAME for the harmful one (all others are safe then)"
        )
        manifests = sorted(p.name for p in data.iterdir() if p.suffix.lower() in {".csv", ".jsonl", ".ndjson"})
        problems += [f"or give the manifest that lies in it: {_shown(str(data / name))}" for name in manifests]
    if problems:
        raise ManifestError(f"{data}: wrong in {len(problems)} places:\n{bullet_list(problems, limit=100)}")
    if not found:
        kinds = ", ".join(sorted(VIDEO_SUFFIXES))
        raise ManifestError(f"{data}: no videos in this folder ({other_files} other files; known endings: {kinds})")
    entries = [
        Entry(
            id=id,
            path=Path(os.path.abspath(path)),  # noqa: PTH100 (resolve() would follow links)
            label=labels.get(class_of[id], schema.UNLABELLED),
            split="",
            group="",
            line=0,
        )
        for id, path in found
    ]
    notices = [f"files passed over because their ending is no video's: {other_files}"] if other_files else []
    if links:
        shown = bullet_list([_shown(link) for link in sorted(links)])
        notices.append(f"folders passed over because they are symbolic links: {len(links)}\n{shown}")
    return Manifest(entries=tuple(entries), notices=tuple(notices))


def _missing_notice(entries: list[Entry]) -> Iterator[str]:
    missing = [f"line {entry.line}: {_shown(entry.id)}" for entry in entries if not os.path.exists(entry.path)]  # noqa: PTH110 (Path.exists raises for names too long)
    if missing:
        yield f"missing files: {len(missing)} (failures, unless the cache has them already)\n{bullet_list(missing)}"


def _shown(text: str) -> str:
    """A text from outside, cut and quoted, so that nothing in it acts."""
    return f"'{visible(text[:80])}'"
