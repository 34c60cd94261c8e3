"""Reads a cache: all its shards as one table of videos and one array a stream."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from haechi.cache import schema
from haechi.cache.errors import CacheError
from haechi.cache.schema import Failure
from haechi.cache.shard import Shard
from haechi.cache.text import bullet_list


@dataclass(frozen=True, kw_only=True)
class Cache:
    """The shards of one directory, of one fingerprint, in the order of their names.

    An id may occur in several shards: the last one counts, as a used video or as a failure. Rows that are superseded
    so are not shown.
    """

    path: Path
    shards: tuple[Shard, ...]

    @classmethod
    def open(cls, path: Path | str) -> "Cache":
        """Open every shard's head; reads no features.

        Raises `CacheError`: no such directory, no shards in it, any shard damaged (all are named), or shards of
        different fingerprints.
        """
        path = Path(path)
        paths = shard_paths(path)
        if not paths:
            raise CacheError(f"{path}: no shards ({schema.SHARD_PATTERN}) in it; make them with `haechi extract`")
        shards, problems = [], []
        for shard_path in paths:
            try:
                shards.append(Shard.open(shard_path))
            except CacheError as error:
                problems.append(str(error))
        if problems:
            raise CacheError(f"{path}: {len(problems)} of {len(paths)} shards are unusable:\n{bullet_list(problems)}")
        for shard in shards[1:]:
            if shard.fingerprint != shards[0].fingerprint:
                differing = schema.differing_fields(shards[0].provenance.settings, shard.provenance.settings)
                lines = [f"{name}: {a!r} against {b!r}" for name, a, b in differing]
                raise CacheError(
                    f"{path}: {shards[0].path.name} and {shard.path.name} were made with different settings and "
                    f"never mix:\n{bullet_list(lines)}"
                )
        return cls(path=path, shards=tuple(shards))

    @property
    def fingerprint(self) -> str:
        """64 hexadecimal digits: the hash of all that decides a feature's value."""
        return self.shards[0].fingerprint

    @property
    def settings(self) -> dict[str, Any]:
        """What the fingerprint hashes."""
        return self.shards[0].provenance.settings

    @property
    def untrained(self) -> list[str]:
        """The backbones whose weights are random, such as `["clip", "slowfast"]`."""
        return [stream for stream in schema.STREAMS if not self.settings[stream]["trained"]]

    @cached_property
    def places(self) -> dict[str, tuple[int, str, int]]:
        """Where each id's row that counts stands: shard's index, table (`media` or `failure`), row in the table."""
        last: dict[str, tuple[int, str, int]] = {}
        for i, shard in enumerate(self.shards):
            for table, ids in zip(("media", "failure"), shard.read("media/id", "failure/id"), strict=True):
                last.update((id, (i, table, row)) for row, id in enumerate(ids))
        return last

    @cached_property
    def _live(self) -> list[dict[str, np.ndarray]]:
        """A shard's rows that count: masks over its items, `media` (N,), and over its failures, `failure` (F,)."""
        live = [
            {"media": np.zeros(shard.num_items, bool), "failure": np.zeros(shard.num_failures, bool)}
            for shard in self.shards
        ]
        for i, table, row in self.places.values():
            live[i][table][row] = True
        return live

    @cached_property
    def media(self) -> dict[str, np.ndarray]:
        """The columns of `schema.Media` over all N used videos, each (N,)."""
        return self._table("media", schema.MEDIA_TYPES)

    @cached_property
    def failures(self) -> list[Failure]:
        """Every video that could not be used."""
        columns = self._table("failure", schema.FAILURE_TYPES)
        rows = zip(*(column.tolist() for column in columns.values()), strict=True)
        return [Failure(**dict(zip(columns, row, strict=True))) for row in rows]

    def _table(self, table: str, types: dict[str, Any]) -> dict[str, np.ndarray]:
        names = [f"{table}/{column}" for column in types]
        parts = [shard.read(*names) for shard in self.shards]
        masked = [[column[live[table]] for column in part] for part, live in zip(parts, self._live, strict=True)]
        return {column: np.concatenate(columns) for column, *columns in zip(types, *masked, strict=True)}

    @cached_property
    def _rows(self) -> dict[str, list[np.ndarray]]:
        """Stream -> for each shard, (n, 2) int64: first and after-last row of its used videos that count."""
        rows: dict[str, list[np.ndarray]] = {stream: [] for stream in schema.STREAMS}
        for shard, live in zip(self.shards, self._live, strict=True):
            offsets = shard.read(*(f"{stream}/offset" for stream in rows))
            for stream, offset in zip(rows, offsets, strict=True):
                check_offset(offset, num_rows=shard.num_rows[stream], where=f"{shard.path}: /{stream}/offset")
                rows[stream].append(np.stack([offset[:-1], offset[1:]], axis=1)[live["media"]])
        return rows

    def offset(self, stream: str) -> np.ndarray:
        """(N+1,) int64: video i owns rows offset[i]:offset[i+1] of every array of the stream."""
        lengths = np.diff(np.concatenate(self._rows[stream]), axis=1).ravel()
        return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)

    def rows(self, stream: str, name: str, *, videos: np.ndarray | None = None) -> np.ndarray:
        """`/{stream}/{name}` of used videos, one after another: (ΣT, width) in the storage type, or (ΣT,).

        `videos` (n,) are ascending indices into `media`; None: all N.
        """
        of_shards = self._rows[stream]
        if videos is None:
            return self._read(stream, name, list(zip(self.shards, of_shards, strict=True)))
        bounds = np.concatenate([[0], np.cumsum([len(of_shard) for of_shard in of_shards])])
        cuts = np.searchsorted(videos, bounds)
        return self._read(
            stream,
            name,
            [
                (self.shards[k], of_shards[k][videos[cuts[k] : cuts[k + 1]] - bounds[k]])
                for k in np.flatnonzero(np.diff(cuts)).tolist()
            ],
        )

    def parts(self, stream: str, name: str) -> Iterator[np.ndarray]:
        """What `rows` joins, a shard at a time: for caches larger than memory."""
        for place in zip(self.shards, self._rows[stream], strict=True):
            yield self._read(stream, name, [place])

    def _read(self, stream: str, name: str, places: list[tuple[Shard, np.ndarray]]) -> np.ndarray:
        """Rows of some shards, each with (n, 2) first and after-last ones, straight into one array."""
        counts = [int((rows[:, 1] - rows[:, 0]).sum()) for _, rows in places]
        if schema.STREAMS[stream][name] == 2:
            result = np.empty((sum(counts), self.settings[stream]["widths"][name]), self.settings["store"])
        else:
            result = np.empty(sum(counts), np.float32)
        start = 0
        for (shard, rows), count in zip(places, counts, strict=True):
            shard.read_into(result[start : start + count], f"{stream}/{name}", runs=_runs(rows))
            start += count
        return result


def shard_paths(path: Path) -> list[Path]:
    """The shards in a cache's directory, in order. Raises `CacheError` where there is no such directory."""
    if not path.is_dir():
        what = "is a file, not a cache directory" if path.exists() else "no such cache directory"
        raise CacheError(f"{path}: {what}; make a cache with `haechi extract DATA --out {path}`")
    return sorted(path.glob(schema.SHARD_PATTERN))


def check_offset(offset: np.ndarray, *, num_rows: int, where: str) -> None:
    """Raise `CacheError` unless offsets start at 0, never fall, and end at `num_rows`."""
    # Compared, not subtracted: differences of hostile numbers overflow.
    if offset[0] != 0 or (offset[1:] < offset[:-1]).any() or offset[-1] != num_rows:
        raise CacheError(f"{where} does not run from 0 up to the number of rows; see `haechi verify`")


def _runs(rows: np.ndarray) -> list[tuple[int, int]]:
    """(n, 2) first and after-last rows, ascending, as the fewest such pairs: what stands side by side is one."""
    rows = rows[rows[:, 0] < rows[:, 1]]
    breaks = np.flatnonzero(rows[1:, 0] != rows[:-1, 1]) + 1
    return [(int(run[0, 0]), int(run[-1, 1])) for run in np.split(rows, breaks) if len(run)]
