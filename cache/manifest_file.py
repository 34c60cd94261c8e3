"""What a file says of videos: a manifest (CSV or JSON Lines) to rows of path, id, label, split and group."""

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
from haechi.cache.text import bullet_list, named, shown

COLUMNS = ("path", "label", "split", "group", "id")
LABELS = {"1": schema.HARMFUL, "harmful": schema.HARMFUL, "0": schema.SAFE, "safe": schema.SAFE, "": schema.UNLABELLED}
JSON_SUFFIXES = frozenset({".jsonl", ".ndjson"})
SUFFIXES = JSON_SUFFIXES | {".csv"}

# Bounds on what a stranger's file may ask for. It is read whole: a million rows of a kilobyte.
MAX_FILE_BYTES = 1 << 30
MAX_LINE_CHARACTERS = 1 << 20
MAX_FIELD_CHARACTERS = 1 << 16
MAX_COLUMNS = 1000
MAX_DIGITS = 20


class ManifestError(HaechiError):
    """A manifest that cannot be used; the text lists everything wrong in it with line numbers."""

    @classmethod
    def of(cls, where: Path, problems: list[str]) -> "ManifestError":
        """All that is wrong in one file or folder."""
        places = f"{len(problems)} place{'s' if len(problems) > 1 else ''}"
        return cls(f"{where}: wrong in {places}:\n{bullet_list(problems, limit=100)}")


@dataclass(frozen=True, kw_only=True)
class Row:
    """What a file says of one video."""

    id: str
    """That of the `id` column, else the path, normalised where it is relative."""
    path: str
    """As it stands in the file; empty: not said."""
    label: int
    """1 harmful, 0 safe, -1 unlabelled."""
    split: str
    group: str
    line: int
    """Line in the file, from 1."""


@dataclass(frozen=True, kw_only=True)
class Labels:
    """A file's rows, of different ids, in their order."""

    rows: tuple[Row, ...]
    columns: frozenset[str]
    """Those of `COLUMNS` that it has."""
    sha256: str
    """Of its bytes."""
    notices: tuple[str, ...]
    """What a user should know."""


def read_labels(file: Path, *, keys: tuple[str, ...]) -> Labels:
    """Read a manifest. In every row at least one of the columns `keys` must be filled: `path`, or `path` and `id`.

    Raises one `ManifestError` for everything that is wrong: not a regular file, not UTF-8, rows that cannot be read,
    duplicate ids, unknown labels or splits, no rows.
    """
    content = _content(file)
    text = _text(file, content)
    is_json = file.suffix.lower() in JSON_SUFFIXES
    problems: list[str] = []
    rows: list[Row] = []
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
            wrong.append(f"id {shown(row.id)} stands on line {before} already")
        problems += [f"line {line}: {text}" for text in wrong]
        if row is not None and not wrong:
            rows.append(row)
    if problems:
        raise ManifestError.of(file, problems)
    if not rows:
        raise ManifestError(
            f"{file}: holds no rows; one row a video is needed, with at least the column {_either(keys)}"
        )
    unused = sorted(names - set(COLUMNS))
    return Labels(
        rows=tuple(rows),
        columns=frozenset(names & set(COLUMNS)),
        sha256=hashlib.sha256(content).hexdigest(),
        notices=(f"columns not used: {named(unused)}",) if unused else (),
    )


def _content(file: Path) -> bytes:
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # opening a named pipe would wait for a writer
            raise ManifestError(f"{file}: not a regular file (a folder, pipe or device), which a manifest must be")
        with file.open("rb") as opened:
            content = opened.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ManifestError(f"{file}: cannot be read ({error.strerror})") from error
    if len(content) > MAX_FILE_BYTES:
        raise ManifestError(f"{file}: larger than {MAX_FILE_BYTES:,} bytes, which no manifest is")
    return content


def _text(file: Path, content: bytes) -> str:
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
    """(line, row) of every row that is not blank; a row that cannot be read is told as text."""
    csv.field_size_limit(MAX_FIELD_CHARACTERS)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise ManifestError(f"{file}, line 1: {error}") from error
    if problems := _header_problems(header, keys):
        raise ManifestError.of(file, [f"line 1: {problem}" for problem in problems])
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


def _header_problems(header: list[str], keys: tuple[str, ...]) -> list[str]:
    if len(header) > MAX_COLUMNS:
        return [f"{len(header)} columns, at most {MAX_COLUMNS} are allowed"]
    problems = []
    if not set(keys) & set(header):
        others = ", ".join(name for name in COLUMNS if name not in keys)
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
    """A JSON object. The standard's library lets the last of two equal keys win without a word."""
    if twice := sorted(key for key, count in Counter(key for key, _ in pairs).items() if count > 1):
        raise ValueError(f"keys that stand twice in an object: {named(twice)}")
    return dict(pairs)


def _whole_number(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _misspelt(names: Iterable[str]) -> list[str]:
    return [
        f"unknown column {shown(name)}; did you mean {near[0]!r}?"
        for name in names
        if name not in COLUMNS
        and len(name) <= 20
        and (near := difflib.get_close_matches(name.lower(), COLUMNS, 1, 0.75))
    ]


def _row(source: dict[str, Any], line: int, keys: tuple[str, ...]) -> tuple[Row | None, list[str]]:
    """One row, with what is wrong in it. None where there is no usable id."""
    wrong: list[str] = []
    texts: dict[str, str] = {}
    for column in COLUMNS:
        value = source.get(column)
        texts[column] = ""
        if isinstance(value, str) or (column != "path" and type(value) is int):
            texts[column] = str(value).strip()
        elif value is not None:
            told = f"a {type(value).__name__}" if isinstance(value, list | dict) else shown(str(value))
            wrong.append(f"{column} is {told}, text is expected")
        if texts[column] and (flaw := schema.id_problem(texts[column])):
            wrong.append(f"{column} {flaw}")
    label = LABELS.get(texts["label"].lower())
    if label is None:
        wrong.append(f"label is {shown(texts['label'])}, expected 1 or harmful, 0 or safe, or empty")
    if texts["split"] not in ("", *schema.SPLITS):
        wrong.append(f"split is {shown(texts['split'])}, expected {', '.join(schema.SPLITS)}, or empty")
    if not any(texts[key] for key in keys):
        wrong.append(f"{' and '.join(keys)} {'is' if len(keys) == 1 else 'are'} empty")
        return None, wrong
    path = texts["path"]
    row = Row(
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
