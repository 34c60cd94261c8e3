"""Reads a cache: all its shards as one table of media, and one array for each dataset of features."""

from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from xxhash import xxh3_64_intdigest

from haechi.cache import schema
from haechi.cache.errors import CacheError, DamageError
from haechi.cache.location import SHARD_CACHE_GB, scheme_of
from haechi.cache.schema import Failure
from haechi.cache.shard import Shard
from haechi.cache.slices import Pin, shards_that_count
from haechi.cache.text import bullet_list, counted
from haechi.cache.threads import num_threads

# Less is read in one thread: starting others takes as long. Otherwise threads read pieces of this size.
PARALLEL_BYTES = 1 << 24
PIECE_BYTES = 1 << 23


@dataclass(frozen=True, kw_only=True)
class Cache:
    """The shards in one folder, all with the same fingerprint, in the order of their names.

    An id may occur in several shards. Its last row counts, whether it is a used video or a failure; earlier rows are
    superseded and left out everywhere.
    """

    path: Path
    shards: tuple[Shard, ...]
    location: str = ""
    """Where in an object store the cache is, if `path` is a copy of it."""

    @property
    def name(self) -> str:
        """What the user calls the cache."""
        return self.location or str(self.path)

    @classmethod
    def open(cls, path: Path | str, *, shard_cache_gb: float = SHARD_CACHE_GB) -> "Cache":
        """Open every shard without reading its rows. A cache in a store, such as `s3://bucket/cache`, is copied before.

        `shard_cache_gb`: what copies of caches in stores may use together, 1e9 bytes.

        Raises `CacheError` if there is no such folder, no shard in it, any shard that cannot be used (all are listed),
        or shards with different fingerprints.
        """
        if scheme_of(str(path)):
            from haechi.cache.local_copy import opened_copy  # only if there is a store

            with opened_copy(str(path), shard_cache_gb=shard_cache_gb) as (location, folder):
                return replace(cls.open(folder), location=str(location))
        path = Path(path)
        paths = existing_shard_paths(path)
        shards, problems = [], []
        for shard_path in paths:
            try:
                shards.append(Shard.open(shard_path))
            except CacheError as error:
                problems.append(str(error))
        if problems:
            number = f"{len(problems)} of {counted(len(paths), 'shard')}"
            raise CacheError(f"{path}: {number} cannot be used:\n{bullet_list(problems)}")
        for shard in shards[1:]:
            if shard.fingerprint != shards[0].fingerprint:
                differing = schema.differing_fields(shards[0].provenance.settings, shard.provenance.settings)
                lines = [f"{name}: {a!r} against {b!r}" for name, a, b in differing]
                raise CacheError(
                    f"{path}: {shards[0].path.name} and {shard.path.name} were made with different settings and "
                    f"cannot be used together:\n{bullet_list(lines)}"
                )
        return cls(path=path, shards=tuple(shards))

    @property
    def fingerprint(self) -> str:
        """Hash of everything that decides a feature's value: 64 hexadecimal digits."""
        return self.shards[0].fingerprint

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that the fingerprint is the hash of."""
        return self.shards[0].provenance.settings

    @property
    def weights(self) -> dict[str, str]:
        """Stream -> the weights as they were requested for the first shard: a name, a path, or `random:SEED`."""
        return self.shards[0].provenance.weights

    @property
    def untrained(self) -> list[str]:
        """The backbones with random weights, such as `["clip", "slowfast"]`."""
        return [stream for stream in schema.STREAMS if not self.settings[stream]["trained"]]

    @cached_property
    def locations(self) -> dict[str, tuple[int, str, int]]:
        """Id -> where the row that counts is: index of the shard, table (`media` or `failure`), row in that table."""
        last: dict[str, tuple[int, str, int]] = {}
        for i, shard in enumerate(self.shards):
            for table, ids in zip(("media", "failure"), shard.read("media/id", "failure/id"), strict=True):
                last.update((id, (i, table, row)) for row, id in enumerate(ids))
        return last

    @cached_property
    def live(self) -> list[dict[str, np.ndarray]]:
        """For each shard, which rows count: bool arrays `media` (N,) and `failure` (F,)."""
        tables = [(i, table) for i in range(len(self.shards)) for table in ("media", "failure")]
        masks = [
            {"media": np.ones(shard.num_items, bool), "failure": np.ones(shard.num_failures, bool)}
            for shard in self.shards
        ]
        # Ids with different hashes differ, and few ids occur twice: only those are compared as texts.
        hashes = [self._hashes(i, table) for i, table in tables]
        values, counts = np.unique(np.concatenate(hashes), return_counts=True)
        last: dict[bytes, tuple[int, str, int]] = {}
        if repeated := set(values[counts > 1].tolist()):
            for (i, table), found in zip(tables, hashes, strict=True):
                rows = [row for row, value in enumerate(found.tolist()) if value in repeated]
                if not rows:
                    continue
                (ids,) = self.shards[i].read_raw(f"{table}/id")
                for row in rows:
                    if before := last.get(ids[row]):
                        masks[before[0]][before[1]][before[2]] = False
                    last[ids[row]] = (i, table, row)
        return masks

    def _hashes(self, number: int, table: str) -> np.ndarray:
        """(N,) uint64: a hash of each id in a table of a shard."""
        (ids,) = self.shards[number].read_raw(f"{table}/id")
        return np.fromiter(map(xxh3_64_intdigest, ids.tolist()), np.uint64, len(ids))

    @cached_property
    def media(self) -> dict[str, np.ndarray]:
        """The columns of `schema.Media` for all N used videos, each of shape (N,)."""
        return self._table("media", schema.MEDIA_TYPES)

    def columns(self, *names: str) -> list[np.ndarray]:
        """Some of the columns of `media`, without reading the others."""
        return list(self._table("media", {name: schema.MEDIA_TYPES[name] for name in names}).values())

    @cached_property
    def failures(self) -> list[Failure]:
        """Every video that could not be used."""
        columns = self._table("failure", schema.FAILURE_TYPES)
        rows = zip(*(column.tolist() for column in columns.values()), strict=True)
        return [Failure(**dict(zip(columns, row, strict=True))) for row in rows]

    @property
    def failure_counts(self) -> dict[str, int]:
        """Reason, in alphabetical order -> number of videos that could not be used."""
        return dict(sorted(Counter(failure.reason for failure in self.failures).items()))

    def _table(self, table: str, types: dict[str, Any]) -> dict[str, np.ndarray]:
        names = [f"{table}/{column}" for column in types]
        masked = [
            [column[mask[table]] for column in shard.read(*names)]
            for shard, mask in zip(self.shards, self.live, strict=True)
        ]
        return {column: np.concatenate(columns) for column, *columns in zip(types, *masked, strict=True)}

    @cached_property
    def _ranges(self) -> dict[str, list[np.ndarray]]:
        """Stream -> for each shard, the row ranges of its n used videos that count: (n, 2) int64, start and stop."""
        ranges: dict[str, list[np.ndarray]] = {stream: [] for stream in schema.STREAMS}
        for shard, mask in zip(self.shards, self.live, strict=True):
            offsets = shard.read(*(f"{stream}/offset" for stream in ranges))
            for stream, offset in zip(ranges, offsets, strict=True):
                check_offset(offset, num_rows=shard.num_rows[stream], where=f"{shard.path}: /{stream}/offset")
                ranges[stream].append(np.stack([offset[:-1], offset[1:]], axis=1)[mask["media"]])
        return ranges

    def offset(self, stream: str) -> np.ndarray:
        """(N+1,) int64: video i has rows offset[i]:offset[i+1] in every array of the stream."""
        lengths = np.diff(np.concatenate(self._ranges[stream]), axis=1).ravel()
        return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)

    def rows(self, stream: str, name: str, *, videos: np.ndarray | None = None) -> np.ndarray:
        """`/{stream}/{name}` of used videos, concatenated: (ΣT, width) in the storage type, or (ΣT,) float32.

        `videos` (n,) are ascending indices into `media`; None means all N.
        """
        ranges = self._ranges[stream]
        if videos is None:
            return self._read(stream, name, list(zip(self.shards, ranges, strict=True)))
        bounds = np.concatenate([[0], np.cumsum([len(shard_ranges) for shard_ranges in ranges])])
        cuts = np.searchsorted(videos, bounds)
        return self._read(
            stream,
            name,
            [
                (self.shards[k], ranges[k][videos[cuts[k] : cuts[k + 1]] - bounds[k]])
                for k in np.flatnonzero(np.diff(cuts)).tolist()
            ],
        )

    def rows_by_shard(self, stream: str, name: str) -> Iterator[np.ndarray]:
        """The same rows as `rows`, one array for each shard: for caches larger than memory."""
        for number in range(len(self.shards)):
            yield self.rows_of_shard(number, stream, name)

    def rows_of_shard(self, number: int, stream: str, name: str) -> np.ndarray:
        """Those of the rows that are in one shard; `number` is its index in `shards`."""
        return self._read(stream, name, [(self.shards[number], self._ranges[stream][number])])

    def _read(self, stream: str, name: str, sources: list[tuple[Shard, np.ndarray]]) -> np.ndarray:
        """Rows from shards, each with its row ranges (n, 2), read directly into one array."""
        joined = [(shard, _joined(ranges)) for shard, ranges in sources]
        num_rows = sum(stop - start for _, ranges in joined for start, stop in ranges)
        if schema.STREAMS[stream][name] == 2:
            result = np.empty((num_rows, self.settings[stream]["widths"][name]), self.settings["store"])
        else:
            result = np.empty(num_rows, np.float32)
        if result.nbytes < PARALLEL_BYTES:
            done = 0
            for shard, ranges in joined:
                count = sum(stop - start for start, stop in ranges)
                shard.read_into(result[done : done + count], f"{stream}/{name}", ranges=ranges)
                done += count
            return result

        def read(piece: tuple[Shard, list[tuple[int, int]], slice]) -> None:
            shard, ranges, target = piece
            shard.read_into(result[target], f"{stream}/{name}", ranges=ranges)

        most = max(1, PIECE_BYTES * num_rows // result.nbytes)
        with ThreadPoolExecutor(num_threads(), thread_name_prefix="cache") as pool:
            list(pool.map(read, _pieces(joined, most)))
        return result


def shard_paths(path: Path) -> list[Path]:
    """The shards in a cache folder, in order. Raises `CacheError` if there is no such folder."""
    if not path.is_dir():
        what = "is a file, not a cache folder" if path.exists() else "no such cache folder"
        raise CacheError(f"{path}: {what}; make a cache with `haechi extract DATA --out {path}`")
    return shards_that_count(path, sorted(path.glob(schema.SHARD_PATTERN)))


def existing_shard_paths(path: Path) -> list[Path]:
    """The shards in a cache folder, at least one, in order. Raises `CacheError` if there is no folder or no shard."""
    paths = shard_paths(path)
    if not paths and (pin := Pin.read(path)) is not None:
        number = counted(pin.num_slices, "slice")
        raise CacheError(f"{path}: none of its {number} is finished; see `haechi status {path}`")
    if not paths:
        raise CacheError(f"{path}: no shards ({schema.SHARD_PATTERN}) in it; make them with `haechi extract`")
    return paths


def check_offset(offset: np.ndarray, *, num_rows: int, where: str) -> None:
    """Raise `DamageError` unless the offsets start at 0, never decrease, and end at `num_rows`."""
    # Compared, not subtracted: differences of hostile numbers overflow.
    if offset[0] != 0 or (offset[1:] < offset[:-1]).any() or offset[-1] != num_rows:
        raise DamageError(f"{where} does not run from 0 up to the number of rows; see `haechi verify`")


def _joined(ranges: np.ndarray) -> list[tuple[int, int]]:
    """Ascending row ranges (n, 2) as (start, stop) pairs, without empty ones and with adjacent ones merged."""
    ranges = ranges[ranges[:, 0] < ranges[:, 1]]
    breaks = np.flatnonzero(ranges[1:, 0] != ranges[:-1, 1]) + 1
    return [(int(block[0, 0]), int(block[-1, 1])) for block in np.split(ranges, breaks) if len(block)]


def _pieces(
    sources: Iterable[tuple[Shard, list[tuple[int, int]]]], most: int
) -> Iterator[tuple[Shard, list[tuple[int, int]], slice]]:
    """The row ranges of each shard in pieces of at most `most` rows, and where their rows stand among those of all."""
    done = 0
    for shard, ranges in sources:
        piece: list[tuple[int, int]] = []
        count = 0
        for start, stop in ranges:
            while start < stop:
                end = min(stop, start + most - count)
                piece.append((start, end))
                count, start = count + end - start, end
                if count == most:
                    yield shard, piece, slice(done, done + count)
                    done, piece, count = done + count, [], 0
        if piece:
            yield shard, piece, slice(done, done + count)
            done += count
