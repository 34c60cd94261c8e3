"""Reads a manifest file (CSV or JSON Lines) into rows of path, id, label, split and group."""

import codecs
import csv
import difflib
import hashlib
import io
import json
import posixpath
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haechi.cache import schema
from haechi.cache.errors import HaechiError
from haechi.cache.text import bullet_list, counted, named, shown

MANIFEST_COLUMNS = ("path", "label", "split", "group", "id")
LABEL_SPELLINGS = {
    "1": schema.HARMFUL,
    "harmful": schema.HARMFUL,
    "0": schema.SAFE,
    "safe": schema.SAFE,
    "": schema.UNLABELLED,
}
JSON_SUFFIXES = frozenset({".jsonl", ".ndjson"})
SUFFIXES = JSON_SUFFIXES | {".csv"}

# Limits for files from strangers. A file is read into memory whole; this is enough for a million rows of a kilobyte.
MAX_FILE_BYTES = 1 << 30
MAX_LINE_CHARACTERS = 1 << 20
MAX_FIELD_CHARACTERS = 1 << 16
MAX_COLUMNS = 1000
MAX_DIGITS = 20


class ManifestError(HaechiError):
    """A manifest that cannot be used; the text lists every problem with its line number."""

    @classmethod
    def of(cls, where: Path, problems: list[str]) -> "ManifestError":
        """One error for all problems of a file or folder."""
        return cls(f"{where}: wrong in {counted(len(problems), 'place')}:\n{bullet_list(problems, limit=100)}")


@dataclass(frozen=True, kw_only=True)
class ManifestRow:
    """One video in a manifest file."""

    id: str
    """The `id` column, or if that is empty the path, normalised if it is relative."""
    path: str
    """As written in the file; empty if it is not given."""
    label: int
    """1 harmful, 0 safe, -1 unlabelled."""
    split: str
    group: str
    line: int
    """Line in the file, from 1."""


@dataclass(frozen=True, kw_only=True)
class ManifestFile:
    """The content of a manifest file."""

    rows: tuple[ManifestRow, ...]
    """In the order of the file; no id occurs twice."""
    columns: frozenset[str]
    """The names in `MANIFEST_COLUMNS` that the file has."""
    sha256: str
    """SHA-256 of the file's bytes, in hexadecimal."""
    notices: tuple[str, ...]
    """Sentences for the user, such as which columns are not used."""


def read_manifest_file(file: Path, *, keys: tuple[str, ...]) -> ManifestFile:
    """Read a manifest. Every row must fill at least one of the columns `keys`: `path`, or `path` and `id`.

    Raises one `ManifestError` that lists every problem: not a regular file, not UTF-8, rows that cannot be read,
    duplicate ids, unknown labels or splits, no rows.
    """
    content = _read_bytes(file)
    text = _decode(file, content)
    is_json = file.suffix.lower() in JSON_SUFFIXES
    problems: list[str] = []
    rows: list[ManifestRow] = []
    names: set[str] = set()
    first_line: dict[str, int] = {}
    for line, source in _json_rows(text) if is_json else _csv_rows(file, text, keys):
        if isinstance(source, str):
            problems.append(f"line {line}: {source}")
            continue
        new_names = [name for name in source if name not in names]
        row, wrong = _row(source, line, keys)
        wrong += _misspelt(new_names)
        names.update(new_names)
        if row is not None and (before := first_line.setdefault(row.id, line)) != line:
            wrong.append(f"id {shown(row.id)} is already on line {before}")
        problems += [f"line {line}: {text}" for text in wrong]
        if row is not None and not wrong:
            rows.append(row)
    if problems:
        raise ManifestError.of(file, problems)
    if not rows:
        raise ManifestError(
            f"{file}: holds no rows; it needs one row for each video, with at least the column {_either(keys)}"
        )
    unused = sorted(names - set(MANIFEST_COLUMNS))
    return ManifestFile(
        rows=tuple(rows),
        columns=frozenset(names & set(MANIFEST_COLUMNS)),
        sha256=hashlib.sha256(content).hexdigest(),
        notices=(f"columns not used: {named(unused)}",) if unused else (),
    )


def _read_bytes(file: Path) -> bytes:
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # opening a named pipe would wait for a writer
            raise ManifestError(f"{file}: not a regular file but a folder, pipe or device")
        with file.open("rb") as handle:
            content = handle.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ManifestError(f"{file}: cannot be read ({error.strerror})") from error
    if len(content) > MAX_FILE_BYTES:
        raise ManifestError(f"{file}: larger than {MAX_FILE_BYTES:,} bytes, the limit for a manifest")
    return content


def _decode(file: Path, content: bytes) -> str:
    advice = "save the manifest as UTF-8"
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ManifestError(f"{file}, line 1: not UTF-8 but UTF-16; {advice}")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        lines = enumerate(content.splitlines(), start=1)
        raise ManifestError.of(
            file, [f"line {n}: not UTF-8; {advice}" for n, line in lines if not _is_utf8(line)]
        ) from error
    if "\0" in text:
        lines = enumerate(content.splitlines(), start=1)
        raise ManifestError.of(file, [f"line {n}: holds NUL bytes; {advice}" for n, line in lines if b"\0" in line])
    return text


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _csv_rows(file: Path, text: str, keys: tuple[str, ...]) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Yield (line, row) for every row that is not blank, or (line, reason) for a row that cannot be read."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in _next_values(reader) or []]
    except csv.Error as error:
        raise ManifestError(f"{file}, line 1: {error}") from error
    if problems := _header_problems(header, keys):
        raise ManifestError.of(file, [f"line 1: {problem}" for problem in problems])
    while True:
        line = reader.line_num + 1
        try:
            values = _next_values(reader)
        except csv.Error as error:
            yield line, f"not readable as CSV ({error})"
            return
        if values is None:
            return
        if not any(value.strip() for value in values):
            continue
        if len(values) != len(header):
            yield line, f"{counted(len(values), 'field')}, expected {len(header)} as in the header"
            continue
        yield line, dict(zip(header, values, strict=True))


def _next_values(reader: Iterator[list[str]]) -> list[str] | None:
    """The next row of a CSV reader; None after the last. Raises `csv.Error` for a field that is too long.

    csv has one field limit for the whole process, so it is changed only while this row is read.
    """
    process_limit = csv.field_size_limit(MAX_FIELD_CHARACTERS)
    try:
        return next(reader, None)
    finally:
        csv.field_size_limit(process_limit)


def _header_problems(header: list[str], keys: tuple[str, ...]) -> list[str]:
    if len(header) > MAX_COLUMNS:
        return [f"{len(header)} columns, at most {MAX_COLUMNS} are allowed"]
    problems = []
    if not set(keys) & set(header):
        others = ", ".join(name for name in MANIFEST_COLUMNS if name not in keys)
        problems.append(f"the header must name the column {_either(keys)} (and may name {others}); got {named(header)}")
    if twice := sorted(name for name, count in Counter(header).items() if count > 1):
        problems.append(f"columns named twice: {named(twice)}")
    return problems + _misspelt(header)


def _json_rows(text: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    for line, source in enumerate(text.split("\n"), start=1):
        if not source.strip():
            continue
        if len(source) > MAX_LINE_CHARACTERS:
            yield line, f"{len(source)} characters long, at most {MAX_LINE_CHARACTERS} are allowed"
            continue
        try:
            row = json.loads(source, object_pairs_hook=_object, parse_int=_whole_number)
        except (ValueError, RecursionError) as error:
            yield line, f"not readable as JSON ({error})"
            continue
        if not isinstance(row, dict):
            yield line, f"a JSON object is expected, got {type(row).__name__}"
        elif len(row) > MAX_COLUMNS:
            yield line, f"{len(row)} keys, at most {MAX_COLUMNS} are allowed"
        else:
            yield line, row


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Python's json would silently keep the last of two equal keys."""
    if twice := sorted(key for key, count in Counter(key for key, _ in pairs).items() if count > 1):
        raise ValueError(f"keys that occur twice in an object: {named(twice)}")
    return dict(pairs)


def _whole_number(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _misspelt(names: Iterable[str]) -> list[str]:
    return [
        f"unknown column {shown(name)}; did you mean {near[0]!r}?"
        for name in names
        if name not in MANIFEST_COLUMNS
        and len(name) <= 20
        and (near := difflib.get_close_matches(name.lower(), MANIFEST_COLUMNS, 1, 0.75))
    ]


def _row(source: dict[str, Any], line: int, keys: tuple[str, ...]) -> tuple[ManifestRow | None, list[str]]:
    """One row, or None if it has neither id nor path; and its problems."""
    wrong: list[str] = []
    texts: dict[str, str] = {}
    for column in MANIFEST_COLUMNS:
        value = source.get(column)
        texts[column] = ""
        if isinstance(value, str) or (column != "path" and type(value) is int):
            texts[column] = str(value).strip()
        elif value is not None:
            got = f"a {type(value).__name__}" if isinstance(value, list | dict) else shown(str(value))
            wrong.append(f"{column} is {got}, text is expected")
        if texts[column] and (flaw := schema.id_problem(texts[column])):
            wrong.append(f"{column} {flaw}")
    label = LABEL_SPELLINGS.get(texts["label"].lower())
    if label is None:
        wrong.append(f"label is {shown(texts['label'])}, expected 1 or harmful, 0 or safe, or empty")
    if texts["split"] not in ("", *schema.SPLITS):
        wrong.append(f"split is {shown(texts['split'])}, expected {', '.join(schema.SPLITS)}, or empty")
    if not any(texts[key] for key in keys):
        wrong.append(f"{' and '.join(keys)} {'is' if len(keys) == 1 else 'are'} empty")
        return None, wrong
    path = texts["path"]
    row = ManifestRow(
        id=texts["id"] or (path if posixpath.isabs(path) else posixpath.normpath(path)),
        path=path,
        label=schema.UNLABELLED if label is None else label,
        split=texts["split"],
        group=texts["group"],
        line=line,
    )
    return row, wrong


def _either(names: Iterable[str]) -> str:
    return " or ".join(map(repr, names))
