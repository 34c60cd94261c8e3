"""Checks every byte of one shard: seal, structure, checksums and values."""

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from haechi.cache import schema
from haechi.cache.bad_rows import find_bad_rows
from haechi.cache.content import Content
from haechi.cache.errors import CacheError, DamageError
from haechi.cache.hdf5 import read_errors
from haechi.cache.indexed import BadRows, Index, read_index
from haechi.cache.integrity.hdf5_view import differences, find_index
from haechi.cache.kinds import KINDS
from haechi.cache.reader import check_offset
from haechi.cache.schema import Seal
from haechi.cache.shard import (
    PIECE_BYTES,
    open_content,
    read_attributes,
    read_seal,
    sealed_digest,
    sound_array,
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
    """The check of one shard. Keeps one column at a time in memory, and the ids and offsets that name its videos."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.version: int = schema.FORMAT_VERSION
        """Its format version, once it is known."""
        self.index: Index | None = None
        """Of a shard of version 2, if it can be read."""
        self.problems: list[Problem] = []
        self.settings: dict[str, Any] | None = None
        self.num_rows: dict[str, int] = {}
        """Table (`media` or `failure`) -> its number of rows."""
        self.ids: dict[str, list[str] | None] = {"media": None, "failure": None}
        """Table -> the ids in it, an id that is not UTF-8 as an empty text; None if they cannot be read."""
        self.bad_rows: dict[str, set[int]] = {"media": set(), "failure": set()}
        """Table -> numbers of the rows that have a problem."""
        self._num_bad = {"zero": 0, "nonfinite": 0}  # rows of features
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
        seal: Seal | None = None
        try:
            seal = self.check_seal()
            if not self.find_index(seal):
                seal = None
            with open_content(self.path, self.index) as content:
                provenance, _ = read_attributes(content, self.path, version=self.version)
                self.settings = provenance.settings
                with read_errors(self.path):
                    num_bytes = self.path.stat().st_size - schema.USER_BLOCK_BYTES
                broken, lengths = structure_problems(content, provenance.settings, num_bytes=num_bytes)
                for name, what in broken:
                    self.note(what, name=name)
                    self._is_lost = True
                self.check_tables(content, lengths)
                for stream in schema.STREAMS:
                    self.check_stream(content, stream, lengths)
            if self.index is not None:
                self.check_index(self.index)
        except DamageError as error:
            self._is_lost = True
            if seal is not None:  # a broken seal or index is already noted, and the likely cause of this error
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

    def check_seal(self) -> Seal | None:
        """Note problems with the seal. Returns it if it can be read and the file has the size that it gives.

        Raises `CacheError` if the file cannot be read.
        """
        try:
            seal = read_seal(self.path)
        except DamageError as error:
            self.note_error(error)
            return None
        if sealed_digest(self.path, seal.version) != seal.digest:  # the check goes on: the checksums show where
            name = {1: "SHA-256", 2: "XXH3"}[seal.version]
            self.note(f"altered: its bytes do not have the {name} that its seal gives")
        return seal

    def find_index(self, seal: Seal | None) -> bool:
        """Find out the version and, of version 2, the index; if seal or index are damaged, through HDF5.

        Returns whether seal and index are whole. Raises `DamageError` if there is no other way to find the index.
        """
        if seal is not None:
            self.version = seal.version
            try:
                self.index = read_index(self.path, *seal.index) if seal.version > 1 else None
            except DamageError as error:
                self.note_error(error)
            else:
                return True
        self.version, self.index = find_index(self.path)
        return False

    def check_index(self, index: Index) -> None:
        """Note what the index says otherwise than HDF5 does, or than the rows of features are."""
        for name, what in differences(self.path, index):
            self.note(what, name=name)
        given, found = index.bad_rows, BadRows(**self._num_bad)
        if not self.bad_rows["media"] and given != found:
            self.note(
                f"gives {given.zero} rows that are all zero and {given.nonfinite} that are not finite, "
                f"there are {found.zero} and {found.nonfinite}",
                name=schema.INDEX,
            )

    def read(
        self, content: Content, name: str, table: str, owners: Callable[[range], Iterable[int]]
    ) -> np.ndarray | None:
        """All rows of one dataset, or None if some are damaged.

        `owners` returns the rows of `table` that the given damaged rows belong to.
        """
        length = sound_array(content, name, self.path).shape[0]
        try:
            return content.read(name, 0, length)
        except DamageError:
            self.note_damaged(content, name, range(length), table, owners)
            return None

    def note_damaged(
        self, content: Content, name: str, rows: range, table: str, owners: Callable[[range], Iterable[int]]
    ) -> None:
        """Find and note the blocks among `rows` that are damaged; `rows` starts with a block."""
        step = sound_array(content, name, self.path).block_rows
        for start in range(rows.start, rows.stop, step):
            block = range(start, min(start + step, rows.stop))
            try:
                content.read(name, block.start, block.stop)
            except DamageError:
                what = f"damaged: the checksum of rows {block.start}:{block.stop} does not match"
                self.note_rows(what, name=name, table=table, rows=owners(block))

    def check_tables(self, content: Content, lengths: dict[str, int]) -> None:
        """Check `/media` and `/failure`."""
        first_place: dict[str, tuple[str, int]] = {}
        for table, types, rules in (
            ("media", schema.MEDIA_TYPES, MEDIA_RULES),
            ("failure", schema.FAILURE_TYPES, FAILURE_RULES),
        ):
            for column, dtype in types.items():
                name = f"{table}/{column}"
                if name not in lengths:
                    continue
                if column == "id":
                    self.num_rows[table] = lengths[name]
                values = self.read(content, name, table, lambda rows: rows)
                if values is None:
                    continue
                cells = self.texts(name, table, values) if dtype is str else values.tolist()
                if column == "id":
                    self.check_ids(table, cells, first_place)
                elif column in rules:
                    expected, holds = rules[column]
                    if not (wrong := {cell for cell in set(cells) if cell is not None and not holds(cell)}):
                        continue
                    for row, cell in enumerate(cells):
                        if cell in wrong:
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

    def check_stream(self, content: Content, stream: str, lengths: dict[str, int]) -> None:
        """Check one stream's offsets, and each of its arrays against them."""
        offset: np.ndarray | None = None  # (N+1,)
        if f"{stream}/offset" in lengths:
            offset = self.read(content, f"{stream}/offset", "media", lambda rows: [])
        if offset is not None and f"{stream}/features" in lengths:
            length = lengths[f"{stream}/features"]
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
            if name not in lengths:
                continue
            if num_axes == 2:
                nonfinite, zero = self.find_bad_rows(content, name, owners)
                check_rows(nonfinite, "holds NaN or infinite values", name)
                check_rows(zero, "holds rows that are all zero", name)
                continue
            values = self.read(content, name, "media", owners)
            if values is None:
                continue
            finite = np.isfinite(values)
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

    def find_bad_rows(
        self, content: Content, name: str, owners: Callable[[range], Iterable[int]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """As the function `find_bad_rows`, of all rows of a dataset. Damaged rows are noted, and are neither."""
        array = sound_array(content, name, self.path)
        length, step = array.shape[0], array.block_rows
        step *= max(1, PIECE_BYTES // max(1, step * array.shape[1] * array.dtype.itemsize))
        nonfinite, zero = np.zeros(length, bool), np.zeros(length, bool)
        buffer = np.empty((min(step, length), array.shape[1]), array.dtype)
        for start in range(0, length, step):
            rows = range(start, min(start + step, length))
            piece = buffer[: len(rows)]
            try:
                content.read_into(piece, name, [(rows.start, rows.stop)])
            except DamageError:
                self.note_damaged(content, name, rows, "media", owners)
                continue
            nonfinite[rows.start : rows.stop], zero[rows.start : rows.stop] = find_bad_rows(piece)
        self._num_bad["nonfinite"] += int(nonfinite.sum())
        self._num_bad["zero"] += int(zero.sum())
        return nonfinite, zero


def _at(ids: list[str] | None, row: int) -> str:
    """The id in a row; empty if it is not known."""
    return ids[row] if ids is not None and row < len(ids) else ""


# Column -> what is expected, in words, and a function that returns whether a value is that.
Rules = dict[str, tuple[str, Callable[[Any], bool]]]

MEDIA_RULES: Rules = {
    "kind": (f"one of {', '.join(KINDS)}", lambda kind: kind in KINDS),
    "sha256": ("64 lower-case hexadecimal digits", lambda text: len(text) == 64 and not text.strip("0123456789abcdef")),
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
