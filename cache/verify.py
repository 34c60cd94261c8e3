"""Checks every byte of a cache: seals, structure, checksums, and whether the numbers mean what they should."""

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cache import schema
from cache.errors import CacheError
from cache.reader import check_offset, shard_paths
from cache.schema import Seal
from cache.shard import HDF5_ERRORS, dataset, open_hdf5, read_attributes, read_seal, structure_problems
from cache.writer import TEMPORARY_PREFIX


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong with a shard."""

    shard: str
    """The shard's file name."""
    dataset: str = ""
    """Such as `/clip/features`; empty: the whole shard."""
    video: str = ""
    """The id of the video it is about; empty: none in particular."""
    what: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """What `verify` found."""

    path: Path
    num_shards: int
    num_videos: int
    """Rows of `/media` in all shards, superseded ones too."""
    num_failures: int
    num_bytes: int
    problems: list[Problem]
    notes: list[str]
    """What is worth a word and breaks no rule."""


def verify(path: Path) -> Report:
    """Read every byte of every shard and return all that is wrong; one bad shard hides nothing of another.

    Raises `CacheError` only where there is nothing to check: no such directory, or no shards in it.
    """
    paths = shard_paths(path)
    if not paths:
        raise CacheError(f"{path}: no shards ({schema.SHARD_PATTERN}) in it; make them with `haechi extract`")
    checks = [_ShardCheck(shard) for shard in paths]
    for check in checks:
        check.run()
    known = [check for check in checks if check.settings is not None]
    for check in known[1:]:
        if differing := schema.differing_fields(known[0].settings or {}, check.settings or {}):
            fields = ", ".join(f"{field} {a!r} against {b!r}" for field, a, b in differing)
            check.note(f"made with other settings than {known[0].path.name}: {fields}")
    leftovers = sorted(path.glob(TEMPORARY_PREFIX + schema.SHARD_PATTERN))
    return Report(
        path=path,
        num_shards=len(checks),
        num_videos=sum(check.num_rows.get("media", 0) for check in checks),
        num_failures=sum(check.num_rows.get("failure", 0) for check in checks),
        num_bytes=sum(shard.stat().st_size for shard in paths if shard.is_file()),
        problems=[problem for check in checks for problem in check.problems],
        notes=[f"{file.name} was left by an interrupted run; `haechi extract` removes it" for file in leftovers],
    )


class _ShardCheck:
    """The check of one shard: one dataset in memory at a time, and the ids and offsets that name videos."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[Problem] = []
        self.settings: dict[str, Any] | None = None
        self.num_rows: dict[str, int] = {}  # of the tables `media` and `failure`

    def note(self, what: str, *, name: str = "", video: str = "") -> None:
        self.problems.append(Problem(shard=self.path.name, dataset=f"/{name}" if name else "", video=video, what=what))

    def run(self) -> None:
        try:
            seal = read_seal(self.path)
            self.check_digest(seal)  # and go on where it is wrong: HDF5's checksums tell where
            with open_hdf5(self.path) as file:
                provenance, _ = read_attributes(file, self.path)
                self.settings = provenance.settings
                broken = structure_problems(file, provenance.settings, num_bytes=seal.num_bytes)
                for name, what in broken:
                    self.note(what, name=name)
                readable = _dataset_names() - {name for name, _ in broken}
                ids = self.check_tables(file, readable)
                for stream in schema.STREAMS:
                    self.check_stream(file, stream, readable, ids)
        except CacheError as error:
            self.note(str(error).removeprefix(f"{self.path}: ").removesuffix("; see `haechi verify`"))

    def check_digest(self, seal: Seal) -> None:
        try:
            with self.path.open("rb") as file:
                file.seek(schema.USER_BLOCK_BYTES)
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            self.note(f"cannot be read ({error.strerror})")
            return
        if digest != seal.sha256:
            self.note("altered: its bytes do not have the SHA-256 that its seal names")

    def read(self, file: h5py.File, name: str, owner: Callable[[slice], list[str]]) -> np.ndarray | None:
        """One dataset whole, or None where some of it is lost; then the videos that `owner` gives for the lost rows."""
        found = dataset(file, name)
        assert isinstance(found, h5py.Dataset), "structure_problems lets nothing else pass"
        try:
            values: np.ndarray = found[:]
            return values
        except HDF5_ERRORS:
            step = found.chunks[0]
        for start in range(0, len(found), step):
            rows = slice(start, min(start + step, len(found)))
            try:
                found[rows]
            except HDF5_ERRORS:
                for video in owner(rows) or [""]:
                    self.note(
                        f"damaged: the checksum of rows {rows.start}:{rows.stop} does not match", name=name, video=video
                    )
        return None

    def check_tables(self, file: h5py.File, readable: set[str]) -> list[str] | None:
        """Check `/media` and `/failure`; the ids of the used videos, or None where they are lost."""
        first_place: dict[str, str] = {}
        ids: dict[str, list[str] | None] = {"media": None, "failure": None}
        for table, types, rules in (
            ("media", schema.MEDIA_TYPES, MEDIA_RULES),
            ("failure", schema.FAILURE_TYPES, FAILURE_RULES),
        ):
            for column, dtype in types.items():
                name = f"{table}/{column}"
                if name not in readable:
                    continue
                known = ids[table]
                values = self.read(file, name, lambda rows, known=known: (known or [])[rows])  # type: ignore[misc]
                if values is None:
                    continue
                if column == "id":
                    self.num_rows[table] = len(values)
                cells = self.texts(name, values, known) if dtype is str else values.tolist()
                if column == "id":
                    ids[table] = ["" if cell is None else cell for cell in cells]
                    self.check_ids(name, cells, first_place)
                elif column in rules:
                    expected, holds = rules[column]
                    for row, cell in enumerate(cells):
                        if cell is not None and not holds(cell):
                            self.note(f"{cell!r:.80} is not {expected}", name=name, video=_at(known, row))
        return ids["media"]

    def texts(self, name: str, values: np.ndarray, ids: list[str] | None) -> list[str | None]:
        """Decode a column (N,) of bytes; None where a value is not UTF-8."""
        cells: list[str | None] = []
        for row, value in enumerate(values.tolist()):
            try:
                cells.append(value.decode())
            except UnicodeDecodeError:
                self.note(f"row {row} is not UTF-8", name=name, video=_at(ids, row))
                cells.append(None)
        return cells

    def check_ids(self, name: str, ids: Iterable[str | None], first_place: dict[str, str]) -> None:
        for row, id in enumerate(ids):
            if id is None:
                continue
            if problem := schema.id_problem(id):
                self.note(f"row {row}: the id {problem}", name=name, video=id)
            place = f"/{name} row {row}"
            if first_place.setdefault(id, place) != place:
                self.note(f"row {row}: the id stands at {first_place[id]} already", name=name, video=id)

    def check_stream(self, file: h5py.File, stream: str, readable: set[str], ids: list[str] | None) -> None:
        """Check one stream's offsets, and each of its arrays against them."""
        offset: np.ndarray | None = None  # (N+1,)
        if f"{stream}/offset" in readable:
            offset = self.read(file, f"{stream}/offset", lambda rows: [])
        if offset is not None and f"{stream}/features" in readable:
            num_rows = len(file[f"{stream}/features"])
            try:
                check_offset(offset, num_rows=num_rows, where="it")
            except CacheError:
                self.note(f"does not run from 0 up to the {num_rows} rows of the stream", name=f"{stream}/offset")
                offset = None
        if stream == "clip" and offset is not None:
            for i in np.flatnonzero(np.diff(offset) == 0).tolist():
                self.note("has no rows; every used video has at least one", name="clip/offset", video=_at(ids, i))

        def owners(rows: Iterable[int]) -> list[str]:
            """The ids of the videos that own the rows, in order, each once; none where they cannot be told."""
            if offset is None or ids is None:
                return []
            found = np.unique(np.searchsorted(offset, list(rows), side="right") - 1)
            return [_at(ids, i) for i in found.tolist()]

        def check_rows(bad: np.ndarray, what: str, name: str) -> None:
            """Note each video that owns a row where `bad` (rows,) is set."""
            rows = np.flatnonzero(bad).tolist()
            for video in owners(rows) or [""] * bool(rows):
                self.note(what, name=name, video=video)

        start_seconds: np.ndarray | None = None
        for array, num_axes in schema.STREAMS[stream].items():
            name = f"{stream}/{array}"
            if name not in readable:
                continue
            values = self.read(file, name, lambda rows: owners(range(rows.start, rows.stop)))
            if values is None:
                continue
            if num_axes == 2:
                finite = np.isfinite(values).all(axis=1)  # (rows,)
                check_rows(~finite, "holds NaN or infinite values", name)
                check_rows(finite & ~values.any(axis=1), "holds rows that are all zero", name)
                continue
            check_rows(~np.isfinite(values), "holds NaN or infinite times", name)
            falls = np.zeros(len(values), bool)
            falls[1:] = values[1:] < values[:-1]
            if offset is not None:
                falls[offset[:-1][offset[:-1] < len(falls)]] = False  # a video's first row follows no other
                check_rows(falls, "holds times that go backwards", name)
            if array == "start_seconds":
                start_seconds = values
            elif array == "end_seconds" and start_seconds is not None and len(start_seconds) == len(values):
                check_rows(values < start_seconds, "holds windows that end before they start", name)


def _dataset_names() -> set[str]:
    """Every dataset that a shard must hold."""
    names = {f"media/{column}" for column in schema.MEDIA_TYPES}
    names |= {f"failure/{column}" for column in schema.FAILURE_TYPES}
    for stream, arrays in schema.STREAMS.items():
        names |= {f"{stream}/offset"} | {f"{stream}/{array}" for array in arrays}
    return names


def _at(ids: list[str] | None, row: int) -> str:
    """The id in a row; empty where it cannot be told."""
    return ids[row] if ids is not None and row < len(ids) else ""


# Column -> what its values are, and whether a value is that.
Rules = dict[str, tuple[str, Callable[[Any], bool]]]

MEDIA_RULES: Rules = {
    "kind": (f"one of {', '.join(schema.KINDS)}", lambda kind: kind in schema.KINDS),
    "sha256": ("64 lower-case hexadecimal digits", lambda text: re.fullmatch("[0-9a-f]{64}", text) is not None),
    "size_bytes": ("a size", lambda size: size >= 0),
    "label": (f"one of {', '.join(map(str, schema.LABEL_NAMES))}", lambda label: label in schema.LABEL_NAMES),
    "split": (f"one of {', '.join(schema.SPLITS)}, or empty", lambda split: split in ("", *schema.SPLITS)),
    "duration_seconds": ("a duration", lambda seconds: 0 <= seconds < float("inf")),
    "fps": ("a frame rate", lambda fps: 0 <= fps < float("inf")),
    "num_frames": ("a number of frames", lambda number: number >= 1),
    "width": ("a number of pixels", lambda pixels: pixels >= 1),
    "height": ("a number of pixels", lambda pixels: pixels >= 1),
}
FAILURE_RULES: Rules = {
    "stage": ("the name of a stage", bool),
    "reason": ("a reason code", bool),
    "message": (
        f"a message of at most {schema.MAX_MESSAGE_BYTES} bytes",
        lambda text: len(text.encode()) <= schema.MAX_MESSAGE_BYTES,
    ),
    "size_bytes": ("a size", lambda size: size >= 0),
}
