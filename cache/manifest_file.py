"""Reads a manifest file (CSV or JSON Lines) into rows of path, id, label, split and group."""

import codecs
import contextlib
import csv
import difflib
import hashlib
import io
import json
import math
import posixpath
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from haechi.cache import schema
from haechi.cache.annotations import read_export
from haechi.cache.errors import HaechiError
from haechi.cache.garbage import no_collection
from haechi.cache.labels import EXPECTED, LabelRule, understood
from haechi.cache.location import scheme_of, without_secrets
from haechi.cache.text import bullet_list, counted, from_harmless, named, shown

MANIFEST_COLUMNS = ("path", "label", "split", "group", "id")
# The name of the column `path` in the metadata files of Hugging Face's ImageFolder and VideoFolder.
FILE_NAME = "file_name"
JSON_SUFFIXES = frozenset({".jsonl", ".ndjson"})
SUFFIXES = JSON_SUFFIXES | {".csv", ".tsv"}
# Of the export of a labelling tool.
EXPORT_SUFFIX = ".json"
# Separators of columns other than the comma, and their names in messages.
SEPARATORS = {";": "';'", "\t": "tab", "|": "'|'"}

# Limits for files from strangers. A file is read into memory whole; this is enough for a million rows of a kilobyte.
MAX_FILE_BYTES = 1 << 30
MAX_LINE_CHARACTERS = 1 << 20
MAX_FIELD_CHARACTERS = 1 << 16
MAX_COLUMNS = 1000
MAX_DIGITS = 20
ROWS_IN_BATCH = 1000
# An export is one JSON document. Parsed it takes up to 8 times its size in numbers, and 64 bytes for each list or
# object; 100,000 tasks with an annotation each are about 135 MB and 3.4 million lists and objects.
MAX_EXPORT_BYTES = 1 << 28
MAX_EXPORT_BRACKETS = 20_000_000


class ManifestError(HaechiError):
    """A manifest that cannot be used; the text lists every problem with its line number."""

    @classmethod
    def of(cls, where: object, problems: list[str]) -> "ManifestError":
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
    """Line in the file, from 1; in the export of a labelling tool, number of the task or sample."""
    file: str = ""
    """The file, if several are read as one."""
    extra: Mapping[str, str] = field(default_factory=dict)
    """The columns `extra` of `read_manifest_file` and their texts; empty where the row has none."""
    unit: str = "line"
    """What `line` counts: `line`, `task` or `sample`."""

    @property
    def place(self) -> str:
        """Where it is, for messages: `line 3`, or `train/metadata.csv, line 3`."""
        return _place(self.file, self.line, self.unit)


def _place(file: str, line: int, unit: str) -> str:
    return f"{file}, {unit} {line}" if file else f"{unit} {line}"


@dataclass(frozen=True, kw_only=True)
class ManifestFile:
    """The content of a manifest file, or of several."""

    rows: tuple[ManifestRow, ...]
    """In the order of the file; no id occurs twice."""
    columns: frozenset[str]
    """The names in `MANIFEST_COLUMNS` that the file has; `path` also for `file_name`."""
    labels: dict[str, int]
    """Each label that occurs, as written -> 1, 0 or -1."""
    sha256: str
    """SHA-256 of the file's bytes, in hexadecimal."""
    notices: tuple[str, ...]
    """Sentences for the user, such as which columns are not used."""


@dataclass(kw_only=True)
class _Reading:
    """What is known of the rows so far."""

    keys: tuple[str, ...]
    columns: tuple[str, ...]
    extra: tuple[str, ...]
    rule: LabelRule
    exports: bool
    unit: str = "line"
    rows: list[ManifestRow] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    """Of all columns."""
    labels: dict[str, int | None] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    """Label -> number of rows."""
    first: dict[str, ManifestRow] = field(default_factory=dict)
    """Id -> the first row with it."""
    hashed: Any = field(default_factory=hashlib.sha256)


def read_manifest_file(
    file: Path,
    *,
    keys: tuple[str, ...],
    columns: tuple[str, ...] = MANIFEST_COLUMNS,
    extra: tuple[str, ...] = (),
    rule: LabelRule | None = None,
    exports: bool = False,
) -> ManifestFile:
    """Read a manifest. Every row must fill at least one of the columns `keys`: `path`, or `path` and `id`.

    The column `file_name` counts as `path` where there is none. `columns`: those that are read; the others in
    `MANIFEST_COLUMNS` may hold anything. `extra`: columns of the user that are kept as texts; each must be in the file.
    `rule`: what the labels mean; None: `LabelRule()`.

    `exports`: a file that ends in .json is the export of a labelling tool (`haechi.cache.annotations`).

    In CSV, `haechi.cache.text.harmless` is taken back, so that the ids in Haechi's own CSV files are read as they were.

    Raises one `ManifestError` that lists every problem: not a regular file, not UTF-8, rows that cannot be read,
    duplicate ids, unknown labels or splits, no rows.
    """
    return read_manifest_files(file, {file: ""}, keys=keys, columns=columns, extra=extra, rule=rule, exports=exports)


def read_manifest_files(
    where: Path,
    files: Mapping[Path, str],
    *,
    keys: tuple[str, ...],
    columns: tuple[str, ...] = MANIFEST_COLUMNS,
    extra: tuple[str, ...] = (),
    rule: LabelRule | None = None,
    exports: bool = False,
) -> ManifestFile:
    """Read several manifests as one, as `read_manifest_file` does.

    `files`: each file -> the folder below `where` that its relative paths start from, empty for `where` itself.
    """
    reading = _Reading(keys=keys, columns=columns, extra=extra, rule=rule or LabelRule(), exports=exports)
    with no_collection():
        for file, folder in files.items():
            _read_rows(reading, file, folder=folder, name=f"{folder}/{file.name}" if len(files) > 1 else "")
    problems = reading.problems
    unknown = [name for name, label in reading.labels.items() if label is None]
    if "label" in columns:
        problems += reading.rule.problems(list(reading.labels))
    if missing := [name for name in extra if name not in reading.names]:
        others = sorted(reading.names - set(MANIFEST_COLUMNS))
        problems.append(f"no column {named(missing)}; the columns of your own in it are: {named(others)}")
    if problems:
        error = ManifestError.of(where, problems)
        raise ManifestError(f"{error}\n{_label_advice(reading.counts)}") if unknown else error
    if not reading.rows:
        raise ManifestError(
            f"{where}: holds no rows; it needs one row for each video, with at least the column {_either(keys)}"
        )
    aliases = set() if "path" in reading.names else {FILE_NAME}
    known = reading.names & set(MANIFEST_COLUMNS) | ({"path"} if reading.names & aliases else set())
    if unused := sorted(reading.names - set(MANIFEST_COLUMNS) - aliases - set(extra)):
        reading.notices.append(f"columns not used: {named(unused)}")
    labels = {name: label for name, label in reading.labels.items() if label is not None}
    if reading.rule.positive:
        reading.notices.append(
            understood(
                {name: label for name, label in labels.items() if label != schema.UNLABELLED},
                ("label", "labels"),
                labels=[row.label for row in reading.rows],
                splits=[row.split for row in reading.rows],
            )
        )
    return ManifestFile(
        rows=tuple(reading.rows),
        columns=frozenset(known),
        labels=labels,
        sha256=reading.hashed.hexdigest(),
        notices=tuple(reading.notices),
    )


def column_names(file: Path) -> frozenset[str]:
    """The names in the header of a CSV file, or the keys in the first row of JSON Lines; none if it cannot be read."""
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            return frozenset()
        with file.open("rb") as handle:
            text = handle.read(MAX_LINE_CHARACTERS).decode("utf-8-sig", errors="replace")
    except OSError:
        return frozenset()
    if file.suffix.lower() in JSON_SUFFIXES:
        _, row = next(_json_rows(text), (1, ""))
        return frozenset(row if isinstance(row, dict) else ())
    return frozenset(_header(text, _separator(text)))


def _read_rows(reading: _Reading, file: Path, *, folder: str, name: str) -> None:
    """Read the rows of a file into `reading`. `name` stands in messages if it is not empty."""
    suffix = file.suffix.lower()
    is_export = reading.exports and suffix == EXPORT_SUFFIX
    content = _read_bytes(file, limit=MAX_EXPORT_BYTES if is_export else MAX_FILE_BYTES)
    reading.hashed.update(content)
    text = _decode(file, content)
    if is_export:
        rows = _export_rows(file, text, reading)
    else:
        rows = _json_rows(text) if suffix in JSON_SUFFIXES else _csv_rows(file, text, reading)
    for line, source in rows:
        if isinstance(source, str):
            reading.problems.append(f"{_place(name, line, reading.unit)}: {source}")
            continue
        row, wrong = _row(reading, source, line, folder=folder, file=name)
        if not source.keys() <= reading.names:
            wrong += _misspelt([name for name in source if name not in reading.names], reading.columns)
            reading.names.update(source)
        if row is not None and (before := reading.first.setdefault(row.id, row)) is not row:
            wrong.append(f"id {shown(row.id)} is already on {before.place}")
        if wrong:
            reading.problems += [f"{_place(name, line, reading.unit)}: {text}" for text in wrong]
        elif row is not None:
            reading.rows.append(row)


def _label_advice(counts: Counter[str]) -> str:
    """What to do if labels are unknown."""
    found = [f"{shown(name) if name else 'empty'} {counted(count, 'row')}" for name, count in counts.most_common(20)]
    more = f" and {len(counts) - 20} more" if len(counts) > 20 else ""
    return (
        f"labels in the file: {', '.join(found)}{more}\n"
        "name each harmful label with --positive-label NAME; all others are safe then, and empty ones unlabelled"
    )


def _read_bytes(file: Path, *, limit: int) -> bytes:
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # opening a named pipe would wait for a writer
            raise ManifestError(f"{file}: not a regular file but a folder, pipe or device")
        with file.open("rb") as handle:
            content = handle.read(limit + 1)
    except OSError as error:
        raise ManifestError(f"{file}: cannot be read ({error.strerror})") from error
    if len(content) > limit:
        raise ManifestError(f"{file}: larger than {limit:,} bytes, the limit for a manifest")
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


def _csv_rows(file: Path, text: str, reading: _Reading) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Yield (line, row) for every row that is not blank, or (line, reason) for a row that cannot be read."""
    try:
        separator = _separator(text)
        reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator)
        header = [name.strip() for name in _next_values(reader) or []]
    except csv.Error as error:
        raise ManifestError(f"{file}, line 1: {error}") from error
    if problems := _header_problems(header, separator, reading):
        raise ManifestError.of(file, [f"line 1: {problem}" for problem in problems])
    if separator != ",":
        reading.notices.append(f"the columns of {shown(file.name)} are separated by {SEPARATORS[separator]}")
    for line, values in _many_values(reader):
        if isinstance(values, csv.Error):
            yield line, f"not readable as CSV ({values})"
        elif not (text := "".join(values).strip()):
            continue
        elif len(values) != len(header):
            yield line, f"{counted(len(values), 'field')}, expected {len(header)} as in the header"
        else:
            cells = map(from_harmless, values) if "'" in text else values
            yield line, dict(zip(header, cells, strict=True))


def _separator(text: str) -> str:
    """The separator of the columns: a comma, or another one if only that gives the header a known name."""
    others = [separator for separator in SEPARATORS if _knows(_header(text, separator))]
    return others[0] if len(others) == 1 and not _knows(_header(text, ",")) else ","


def _header(text: str, separator: str) -> list[str]:
    """The names in the first row of a CSV text; empty if it cannot be read with this separator."""
    reader = csv.reader(io.StringIO(text[:MAX_LINE_CHARACTERS], newline=""), strict=True, delimiter=separator)
    try:
        return [name.strip() for name in _next_values(reader) or []]
    except csv.Error:
        return []


def _knows(header: list[str]) -> bool:
    return not {*MANIFEST_COLUMNS, FILE_NAME}.isdisjoint(header)


def _next_values(reader: Iterator[list[str]]) -> list[str] | None:
    """The next row of a CSV reader; None after the last. Raises `csv.Error` for a field that is too long."""
    with _field_limit():
        return next(reader, None)


def _many_values(reader: Any) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """Yield (line, row) for every row of a CSV reader. A row that cannot be read is an error, and the last one."""
    is_going_on = True
    while is_going_on:
        batch: list[tuple[int, list[str] | csv.Error]] = []
        with _field_limit():
            while is_going_on and len(batch) < ROWS_IN_BATCH:
                line = reader.line_num + 1
                try:
                    batch.append((line, next(reader)))
                except StopIteration:
                    is_going_on = False
                except csv.Error as error:
                    batch.append((line, error))
                    is_going_on = False
        yield from batch


@contextlib.contextmanager
def _field_limit() -> Iterator[None]:
    """csv has one field limit for the whole process, so it is changed only while some rows are read."""
    process_limit = csv.field_size_limit(MAX_FIELD_CHARACTERS)
    try:
        yield
    finally:
        csv.field_size_limit(process_limit)


def _header_problems(header: list[str], separator: str, reading: _Reading) -> list[str]:
    if len(header) > MAX_COLUMNS:
        return [f"{len(header)} columns, at most {MAX_COLUMNS} are allowed"]
    mixed = [
        name
        for other, name in {",": "','", **SEPARATORS}.items()
        if any(other in column and _knows([part.strip() for part in column.split(other)]) for column in header)
    ]
    if mixed:
        used = [{",": "','", **SEPARATORS}[separator]] if len(header) > 1 else []
        return [f"the columns in the header are separated by {' and '.join(used + mixed)}: use commas alone"]
    problems, keys = [], reading.keys
    if not {*keys, *([FILE_NAME] if "path" in keys else [])} & set(header):
        others = ", ".join(name for name in MANIFEST_COLUMNS if name not in keys)
        problems.append(f"the header must name the column {_either(keys)} (and may name {others}); got {named(header)}")
    if twice := sorted(name for name, count in Counter(header).items() if count > 1):
        problems.append(f"columns named twice: {named(twice)}")
    return problems + _misspelt(header, reading.columns)


def _json_rows(text: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    for line, source in enumerate(text.split("\n"), start=1):
        if not source.strip():
            continue
        if len(source) > MAX_LINE_CHARACTERS:
            yield line, f"{len(source)} characters long, at most {MAX_LINE_CHARACTERS} are allowed"
            continue
        try:
            row = _parsed(source)
        except (ValueError, RecursionError) as error:
            yield line, f"not readable as JSON ({error})"
            continue
        if not isinstance(row, dict):
            yield line, f"a JSON object is expected, got {type(row).__name__}"
        elif len(row) > MAX_COLUMNS:
            yield line, f"{len(row)} keys, at most {MAX_COLUMNS} are allowed"
        else:
            yield line, row


def _export_rows(file: Path, text: str, reading: _Reading) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Yield (number, row) for every task or sample of an export, or (number, reason) for one that cannot be used."""
    if (num_brackets := text.count("{") + text.count("[")) > MAX_EXPORT_BRACKETS:
        raise ManifestError(f"{file}: {num_brackets:,} lists and objects, at most {MAX_EXPORT_BRACKETS:,} are allowed")
    try:
        export = read_export(_parsed(text))
    except json.JSONDecodeError as error:
        hint = "; JSON Lines need the ending .jsonl" if error.msg == "Extra data" else ""
        raise ManifestError(f"{file}: not readable as JSON ({error}){hint}") from error
    except RecursionError as error:
        raise ManifestError(f"{file}: lists and objects inside each other too deeply") from error
    except ValueError as error:
        raise ManifestError(f"{file}: {error}") from error
    reading.unit = export.unit
    reading.notices.append(export.notice)
    yield from export.rows


def _parsed(text: str) -> Any:
    """The value of a JSON text. Raises `ValueError`, or `RecursionError` if it is nested too deeply."""
    return json.loads(text, object_pairs_hook=_object, parse_int=_whole_number)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Python's json would silently keep the last of two equal keys."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = sorted(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"keys that occur twice in an object: {named(twice)}")
    return found


def _whole_number(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _misspelt(names: Iterable[str], columns: tuple[str, ...]) -> list[str]:
    return [
        f"unknown column {shown(name)}; did you mean {near[0]!r}?"
        for name in names
        if name not in MANIFEST_COLUMNS
        and len(name) <= 20
        and (near := difflib.get_close_matches(name.lower(), columns, 1, 0.75))
    ]


def _row(
    reading: _Reading, source: dict[str, Any], line: int, *, folder: str, file: str
) -> tuple[ManifestRow | None, list[str]]:
    """One row, or None if it has neither id nor path; and its problems."""
    wrong: list[str] = []
    texts = dict.fromkeys(MANIFEST_COLUMNS, "")
    for column in reading.columns:
        name = FILE_NAME if column == "path" and "path" not in source else column
        if (value := source.get(name)) is None:
            continue
        text = value.strip() if type(value) is str else _text(value, column)
        if text is None:
            got = f"a {type(value).__name__}" if isinstance(value, list | dict) else shown(str(value))
            wrong.append(f"{name} is {got}, text is expected")
        elif text and (flaw := schema.id_problem(text)):
            wrong.append(f"{name} {flaw}")
        texts[column] = text or ""
    label = _label(reading, texts["label"], wrong)
    if texts["split"] not in ("", *schema.SPLITS):
        wrong.append(f"split is {shown(texts['split'])}, expected {', '.join(schema.SPLITS)}, or empty")
    keys = reading.keys
    if not [key for key in keys if texts[key]]:
        wrong.append(f"{' and '.join(keys)} {'is' if len(keys) == 1 else 'are'} empty")
        return None, wrong
    path = texts["path"]
    if path and folder and not scheme_of(path):
        path = posixpath.join(folder, path)
    row = ManifestRow(
        id=_id_of(texts["id"], path),
        path=path,
        label=label,
        split=texts["split"],
        group=texts["group"],
        line=line,
        file=file,
        extra={name: _extra_text(source.get(name)) for name in reading.extra} if reading.extra else {},
        unit=reading.unit,
    )
    return row, wrong


def _id_of(id: str, path: str) -> str:
    """The id of a row: as it is given, or its path. One that names the file in a store has no signature."""
    if scheme_of(path):
        location = without_secrets(path)
        return location if not id or without_secrets(id) == location else id
    return id or (path if posixpath.isabs(path) else posixpath.normpath(path))


def _extra_text(value: Any) -> str:
    """A value of a column of the user, as text."""
    return "" if value is None else value.strip() if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _text(value: Any, column: str) -> str | None:
    """A cell of a CSV file or a value of JSON as text; None if that value cannot stand in this column."""
    if isinstance(value, str) or (column != "path" and type(value) is int):
        return str(value).strip()
    if column == "label" and isinstance(value, bool):
        return str(value).lower()
    if column == "label" and isinstance(value, float) and math.isfinite(value):
        return str(value)
    return None


def _label(reading: _Reading, text: str, wrong: list[str]) -> int:
    """The label of a row. The first row with an unknown label gets a problem, the others are only counted."""
    reading.counts[text] += 1
    is_new = text not in reading.labels
    if is_new:
        reading.labels[text] = reading.rule.label_of(text)
    label = reading.labels[text]
    if label is None and is_new:
        wrong.append(f"label is {shown(text)}, expected {EXPECTED}")
    return schema.UNLABELLED if label is None else label


def _either(names: Iterable[str]) -> str:
    return " or ".join(map(repr, names))
