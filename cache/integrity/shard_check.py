"""Checks every byte of one shard: seal, structure, checksums and values."""

import enum
import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from haechi.cache import schema
from haechi.cache.errors import CacheError, DamageError
from haechi.cache.kinds import KINDS
from haechi.cache.reader import check_offset
from haechi.cache.shard import (
    count_rows,
    dataset,
    open_hdf5,
    read_attributes,
    read_errors,
    read_seal,
    structure_problems,
)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong with a shard."""

    shard: str
    """The shard's file name."""
    dataset: str = ""
    """Such as `/clip/features`; empty if the problem is about the whole shard."""
    video: str = ""
    """The id of the video; empty if the problem is about no single video."""
    what: str


class Condition(enum.Enum):
    """What can be done with a shard, given its problems."""

    SOUND = "sound"
    ROWS = "rows"
    """All rows except the bad ones can be kept. If no row is bad, the damage is outside the rows."""
    LOST = "lost"
    """The shard is too damaged to read its rows."""
    NOT_DAMAGE = "not damage"
    """The problem is not damage and a repair changes nothing: no permission, I/O error, another version or settings."""


class ShardCheck:
    """The check of one shard. Keeps one dataset at a time in memory, and the ids and offsets that name its videos."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[Problem] = []
        self.settings: dict[str, Any] | None = None
        self.num_rows: dict[str, int] = {}
        """Table (`media` or `failure`) -> its number of rows."""
        self.ids: dict[str, list[str] | None] = {"media": None, "failure": None}
        """Table -> the ids in it, an id that is not UTF-8 as an empty text; None if they cannot be read."""
        self.bad_rows: dict[str, set[int]] = {"media": set(), "failure": set()}
        """Table -> numbers of the rows that have a problem."""
        self._is_lost = False
        self._is_not_damage = False

    @property
    def condition(self) -> Condition:
        if self._is_not_damage:
            return Condition.NOT_DAMAGE
        if self._is_lost:
            return Condition.LOST
        return Condition.ROWS if self.problems else Condition.SOUND

    def run(self) -> None:
        """Read the whole shard and note every problem."""
        seal_is_whole = False
        try:
            seal_is_whole = self.check_seal()
            with open_hdf5(self.path) as file:
                provenance, _ = read_attributes(file, self.path)
                self.settings = provenance.settings
                with read_errors(self.path):
                    num_bytes = self.path.stat().st_size - schema.USER_BLOCK_BYTES
                broken = structure_problems(file, self.path, provenance.settings, num_bytes=num_bytes)
                for name, what in broken:
                    self.note(what, name=name)
                    self._is_lost = True
                readable = _dataset_names() - {name for name, _ in broken}
                self.check_tables(file, readable)
                for stream in schema.STREAMS:
                    self.check_stream(file, stream, readable)
        except DamageError as error:
            self._is_lost = True
            if seal_is_whole:  # a broken seal is already noted, and the likely cause of this error
                self.note_error(error)
        except CacheError as error:
            self._is_not_damage = True
            self.note_error(error)

    def refuse(self, what: str) -> None:
        """Note that the shard does not belong to this cache, whether it is sound or not."""
        self._is_not_damage = True
        self.note(what)

    def note(self, what: str, *, name: str = "", video: str = "") -> None:
        self.problems.append(Problem(shard=self.path.name, dataset=f"/{name}" if name else "", video=video, what=what))

    def note_error(self, error: CacheError) -> None:
        self.note(str(error).removeprefix(f"{self.path}: ").removesuffix("; see `haechi verify`"))

    def note_rows(self, what: str, *, name: str, table: str, rows: Iterable[int]) -> None:
        """Note a problem with rows of a table: once for each id, or once without an id if no row or no id is known."""
        bad = list(rows)
        self.bad_rows[table].update(bad)
        for video in dict.fromkeys(_at(self.ids[table], row) for row in bad) or [""]:
            self.note(what, name=name, video=video)

    def check_seal(self) -> bool:
        """Note problems with the seal. Returns whether the seal can be read and the file has the size that it gives.

        Raises `CacheError` if the file cannot be read.
        """
        try:
            seal = read_seal(self.path)
        except DamageError as error:
            self.note_error(error)
            return False
        with read_errors(self.path), self.path.open("rb") as file:
            file.seek(schema.USER_BLOCK_BYTES)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != seal.sha256:  # the check goes on: HDF5's checksums show where
            self.note("altered: its bytes do not have the SHA-256 that its seal gives")
        return True

    def read(
        self, file: h5py.File, name: str, table: str, owners: Callable[[range], Iterable[int]]
    ) -> np.ndarray | None:
        """All rows of one dataset, or None if some are damaged.

        `owners` returns the rows of `table` that the given damaged rows belong to.
        """
        with read_errors(self.path):
            found = dataset(file, name)
            assert isinstance(found, h5py.Dataset), "structure_problems refuses everything else"
            length, step = len(found), found.chunks[0]
        try:
            with read_errors(self.path):
                values: np.ndarray = found[:]
            return values
        except DamageError:
            pass
        for start in range(0, length, step):
            rows = range(start, min(start + step, length))
            try:
                with read_errors(self.path):
                    found[rows.start : rows.stop]
            except DamageError:
                what = f"damaged: the checksum of rows {rows.start}:{rows.stop} does not match"
                self.note_rows(what, name=name, table=table, rows=owners(rows))
        return None

    def check_tables(self, file: h5py.File, readable: set[str]) -> None:
        """Check `/media` and `/failure`."""
        first_place: dict[str, tuple[str, int]] = {}
        for table, types, rules in (
            ("media", schema.MEDIA_TYPES, MEDIA_RULES),
            ("failure", schema.FAILURE_TYPES, FAILURE_RULES),
        ):
            for column, dtype in types.items():
                name = f"{table}/{column}"
                if name not in readable:
                    continue
                if column == "id":
                    self.num_rows[table] = count_rows(file, name, self.path)
                values = self.read(file, name, table, lambda rows: rows)
                if values is None:
                    continue
                cells = self.texts(name, table, values) if dtype is str else values.tolist()
                if column == "id":
                    self.check_ids(table, cells, first_place)
                elif column in rules:
                    expected, holds = rules[column]
                    for row, cell in enumerate(cells):
                        if cell is not None and not holds(cell):
                            self.note_rows(f"{cell!r:.80} is not {expected}", name=name, table=table, rows=[row])

    def texts(self, name: str, table: str, values: np.ndarray) -> list[str | None]:
        """A column (N,) of bytes, decoded; None for each value that is not UTF-8."""
        cells: list[str | None] = []
        for row, value in enumerate(values.tolist()):
            try:
                cells.append(value.decode())
            except UnicodeDecodeError:
                self.note_rows(f"row {row} is not UTF-8", name=name, table=table, rows=[row])
                cells.append(None)
        return cells

    def check_ids(self, table: str, ids: list[str | None], first_place: dict[str, tuple[str, int]]) -> None:
        """Check the ids of a table. `first_place`: id -> (table, row) where it was found first in the shard."""
        self.ids[table] = ["" if id is None else id for id in ids]
        for row, id in enumerate(ids):
            if id is None:
                continue
            if problem := schema.id_problem(id):
                self.note_rows(f"row {row}: the id {problem}", name=f"{table}/id", table=table, rows=[row])
            first_table, first_row = first_place.setdefault(id, (table, row))
            if (first_table, first_row) != (table, row):
                what = f"row {row}: the id is already in /{first_table}/id row {first_row}"
                self.note_rows(what, name=f"{table}/id", table=table, rows=[row])
                self.bad_rows[first_table].add(first_row)  # it is not known which of the two is the video's

    def check_stream(self, file: h5py.File, stream: str, readable: set[str]) -> None:
        """Check one stream's offsets, and each of its arrays against them."""
        offset: np.ndarray | None = None  # (N+1,)
        if f"{stream}/offset" in readable:
            offset = self.read(file, f"{stream}/offset", "media", lambda rows: [])
        if offset is not None and f"{stream}/features" in readable:
            length = count_rows(file, f"{stream}/features", self.path)
            try:
                check_offset(offset, num_rows=length, where="it")
            except CacheError:
                self.note(f"does not run from 0 up to the {length} rows of the stream", name=f"{stream}/offset")
                offset = None
        if offset is None:
            self.bad_rows["media"].update(range(self.num_rows.get("media", 0)))  # the rows of each video are unknown
        elif stream == "clip" and (empty := np.flatnonzero(np.diff(offset) == 0).tolist()):
            what = "has no rows; every used video has at least one"
            self.note_rows(what, name="clip/offset", table="media", rows=empty)

        def owners(rows: Iterable[int]) -> list[int]:
            """The rows of `/media` that own the given rows of the stream, ascending; none if offsets are unknown."""
            if offset is None:
                return []
            found: list[int] = np.unique(np.searchsorted(offset, list(rows), side="right") - 1).tolist()
            return found

        def check_rows(bad: np.ndarray, what: str, name: str) -> None:
            """Note a problem for each video that has a row where `bad` (rows,) is true."""
            if bad.any():
                self.note_rows(what, name=name, table="media", rows=owners(np.flatnonzero(bad).tolist()))

        start_seconds: np.ndarray | None = None
        for array, num_axes in schema.STREAMS[stream].items():
            name = f"{stream}/{array}"
            if name not in readable:
                continue
            values = self.read(file, name, "media", owners)
            if values is None:
                continue
            finite = np.isfinite(values)
            if num_axes == 2:
                finite = finite.all(axis=1)  # (rows,)
                check_rows(~finite, "holds NaN or infinite values", name)
                check_rows(finite & schema.zero_rows(values), "holds rows that are all zero", name)
                continue
            check_rows(~finite, "holds NaN or infinite times", name)
            far = finite & (np.abs(values) > schema.MAX_SECONDS)
            check_rows(far, f"holds times more than {schema.MAX_SECONDS:,} s from 0", name)
            decreases = np.zeros(len(values), bool)
            decreases[1:] = values[1:] < values[:-1]
            if offset is not None:
                decreases[offset[:-1][offset[:-1] < len(decreases)]] = False  # the first row of a video
                check_rows(decreases, "holds times that go backwards", name)
            if array == "start_seconds":
                start_seconds = values
            elif array == "end_seconds" and start_seconds is not None and len(start_seconds) == len(values):
                check_rows(values < start_seconds, "holds windows that end before they start", name)


def _dataset_names() -> set[str]:
    """The names of all datasets that a shard must have."""
    names = {f"media/{column}" for column in schema.MEDIA_TYPES}
    names |= {f"failure/{column}" for column in schema.FAILURE_TYPES}
    for stream, arrays in schema.STREAMS.items():
        names |= {f"{stream}/offset"} | {f"{stream}/{array}" for array in arrays}
    return names


def _at(ids: list[str] | None, row: int) -> str:
    """The id in a row; empty if it is not known."""
    return ids[row] if ids is not None and row < len(ids) else ""


# Column -> what is expected, in words, and a function that returns whether a value is that.
Rules = dict[str, tuple[str, Callable[[Any], bool]]]

MEDIA_RULES: Rules = {
    "kind": (f"one of {', '.join(KINDS)}", lambda kind: kind in KINDS),
    "sha256": ("64 lower-case hexadecimal digits", lambda text: re.fullmatch("[0-9a-f]{64}", text) is not None),
    "size_bytes": ("a size", lambda size: size >= 0),
    "label": (f"one of {', '.join(map(str, schema.LABEL_NAMES))}", lambda label: label in schema.LABEL_NAMES),
    "split": (f"one of {', '.join(schema.SPLITS)}, or empty", lambda split: split in ("", *schema.SPLITS)),
    "duration_seconds": ("a duration", lambda seconds: 0 <= seconds <= schema.MAX_SECONDS),
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
