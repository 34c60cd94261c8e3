"""Compares what the cache holds with what is asked for: which entries remain, and whether the settings agree."""

import copy
import os
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from haechi.cache import schema
from haechi.cache.errors import HaechiError, SettingsConflictError
from haechi.cache.file_state import MISSING, FileState
from haechi.cache.integrity.repair import DAMAGED_SUFFIX
from haechi.cache.reader import Cache, shard_paths
from haechi.cache.schema import conflict_list, fingerprint_of
from haechi.cache.slices import Pin, unfinished_slices
from haechi.cache.stores.location import Location
from haechi.cache.text import named
from haechi.extract import pixel_aspect
from haechi.extract.backbones.weights import QUICKGELU, WEIGHTS_FLAGS, Weights, model_identity
from haechi.extract.decoding.files import sha256_of
from haechi.extract.decoding.reasons import Reason
from haechi.extract.manifest import Entry, Manifest
from haechi.extract.settings import ExtractSettings
from haechi.extract.stores.states import current_states


class Made(Protocol):
    """Features that were made before: a cache, or the pin of one with slices."""

    @property
    def path(self) -> Path: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def settings(self) -> dict[str, Any]: ...

    @property
    def weights(self) -> dict[str, str]: ...


@dataclass(frozen=True, kw_only=True)
class Known:
    """What the cache holds of one id."""

    state: FileState
    sha256: str
    """Empty for a failure."""
    reason: str
    """Empty for a used video."""


class _Columns:
    """What the cache holds of all ids. To make a `Known` of each of a million would take seconds."""

    def __init__(self, cache: Cache | None) -> None:
        ids, sizes, times = [list[Any]()] * 3
        if cache is not None:
            ids, sizes, times = (column.tolist() for column in cache.columns("id", "size_bytes", "mtime_ns"))
        failed = cache.failures if cache is not None else []
        self._cache, self._num_used = cache, len(ids)
        self.rows: dict[str, int] = {id: row for row, id in enumerate([*ids, *(row.id for row in failed)])}
        self.sizes: list[int] = [*sizes, *(row.size_bytes for row in failed)]
        self.times: list[int] = [*times, *(row.mtime_ns for row in failed)]
        self.reasons: list[str] = [*[""] * len(ids), *(row.reason for row in failed)]

    def has_state(self, row: int, file: str) -> bool:
        """Whether a file is there and has the size and time of a row. (To make a `FileState` takes as long again.)"""
        try:
            found = os.stat(file)  # noqa: PTH116 (a Path takes longer)
        except OSError:
            return False
        return found.st_size == self.sizes[row] and found.st_mtime_ns == self.times[row]

    def at(self, row: int) -> Known:
        """One row."""
        return Known(
            state=FileState(size_bytes=self.sizes[row], mtime_ns=self.times[row], etag=self._etags[row]),
            sha256=self._sha256[row] if row < self._num_used else "",
            reason=self.reasons[row],
        )

    @cached_property
    def _etags(self) -> list[str]:
        assert self._cache is not None
        return [*self._cache.columns("etag")[0].tolist(), *(failure.etag for failure in self._cache.failures)]

    @cached_property
    def _sha256(self) -> list[str]:
        assert self._cache is not None
        found: list[str] = self._cache.columns("sha256")[0].tolist()
        return found


@dataclass(frozen=True, kw_only=True)
class Remaining:
    """What the manifest asks for and the cache does not hold."""

    entries: list[Entry]
    num_changed: int
    """How many of the entries are files whose bytes changed since they were extracted."""
    touched: dict[str, int]
    """Id -> modification time now (ns), of files in the cache whose bytes are the same and whose time is another."""
    num_not_listed: int
    """Ids in the cache that are not in the manifest; they stay in the cache."""
    readable: frozenset[str]
    """Ids of those entries whose files exist and can be read."""
    answering: dict[str, Location]
    """Store -> a file in it that could be read now, of those that the cache holds."""


def refuse_strangers(out: Path) -> None:
    """Raise `HaechiError` if `out` is a file, or a folder that holds other things than a cache."""
    if not out.exists() or Pin.read(out) is not None or shard_paths(out):
        return
    ours = (".*", schema.SHARD_PATTERN + DAMAGED_SUFFIX + "*")  # `haechi verify --repair` keeps damaged shards
    if strangers := sorted(p.name for p in out.iterdir() if not any(fnmatch(p.name, pattern) for pattern in ours)):
        raise HaechiError(
            f"{out}: not empty and holds no shards, but {named(strangers[:5])}; name a new folder with --out"
        )


def refuse_unfinished_slices(out: Path) -> None:
    """Raise `HaechiError` if `out` is a cache with slices that are not finished: their rows would be done twice."""
    if unfinished := unfinished_slices(out):
        raise HaechiError(f"{out}: {unfinished}; run `haechi extract` with --slice for each of them first")


def open_existing(out: Path) -> Cache | None:
    """The cache in the folder `out`; None if there are no shards yet. Raises `CacheError` if a shard is damaged."""
    return Cache.open(out) if shard_paths(out) else None


def continued(settings: ExtractSettings, cache: Made) -> ExtractSettings:
    """The settings with the cache's choice for pixels that are not square: an old cache goes on in its own way.

    Another choice than the default was made by the user and stays.
    """
    if settings.pixel_aspect != pixel_aspect.DISPLAY:
        return settings
    return settings.changed(pixel_aspect=pixel_aspect.of_settings(cache.settings))


def remaining(manifest: Manifest, cache: Cache | None, *, retry: frozenset[Reason] = frozenset()) -> Remaining:
    """Subtract finished work from the manifest.

    An entry is finished if the cache holds it, as a used video or as a failure, and its file did not change since. If
    only the modification time of a file is different, the file is hashed to find out. A file in a store changed if its
    size or its ETag did. Failures whose reason is in `retry` are tried again.
    """
    known = _Columns(cache)
    entries, num_changed, touched = [], 0, {}
    stored = current_states(
        entry.file for entry in manifest.entries if isinstance(entry.file, Location) and entry.id in known.rows
    )
    for entry in manifest.entries:
        row = known.rows.get(entry.id)
        if row is None or known.reasons[row] in retry:
            entries.append(entry)
            continue
        if isinstance(entry.file, Location):
            if _is_another(stored[entry.file], known.at(row)):
                num_changed += 1
                entries.append(entry)
            continue
        if known.has_state(row, entry.file):
            continue
        path, old = Path(entry.file), known.at(row)
        now = FileState.of(path)  # before it is hashed: a change in between is seen by the next run
        if _is_changed(path, old, now):
            num_changed += 1
            entries.append(entry)
        elif old.sha256 and now not in (old.state, MISSING):
            touched[entry.id] = now.mtime_ns
    listed = {entry.id for entry in manifest.entries}
    return Remaining(
        entries=entries,
        num_changed=num_changed,
        touched=touched,
        num_not_listed=len(known.rows.keys() - listed),
        answering={file.store: file for file, state in stored.items() if state not in (None, MISSING)},
        readable=frozenset(
            e.id
            for e in entries
            if isinstance(e.file, str) and os.path.isfile(e.file) and os.access(e.file, os.R_OK)  # noqa: PTH113 (Path.is_file raises for names too long)
        ),
    )


def _is_another(now: FileState | None, old: Known) -> bool:
    """Whether a file in a store is another one than before; not if the store does not tell."""
    if now is None or (now == MISSING and not old.reason):
        return False  # of a used video: its features stay valid
    if now.etag and old.state.etag:
        return (now.size_bytes, now.etag) != (old.state.size_bytes, old.state.etag)
    return now != old.state


def _is_changed(path: Path, old: Known, now: FileState) -> bool:
    if now == old.state:
        return False
    if now == MISSING and not old.reason:
        return False  # the file of a used video is gone: its features stay valid
    if now.size_bytes == old.state.size_bytes and old.sha256:
        try:
            return sha256_of(path) != old.sha256
        except OSError:
            return True  # extraction will record why it cannot be read
    return True


def refuse_other_settings(ours: dict[str, Any], cache: Made) -> None:
    """Raise `SettingsConflictError` that names every field in which a cache's settings differ from ours."""
    if conflicts := conflict_list(cache.settings, ours):
        raise SettingsConflictError(
            f"{cache.path}: made with other settings; features of different settings cannot be mixed "
            f"(fingerprint {cache.fingerprint[:12]} in the cache, {fingerprint_of(ours)[:12]} here):\n"
            f"{conflicts}\n"
            "  Extract into a new folder, or use the settings of the cache."
        )


def refuse_other_request(settings: ExtractSettings, cache: Made) -> None:
    """As `refuse_other_settings`, with what is known before a model is loaded."""
    refuse_other_settings(requested(settings, cache), cache)


def requested(settings: ExtractSettings, cache: Made) -> dict[str, Any]:
    """The settings that decide a feature's value, with what is known before a model is loaded.

    Weights with the same name as those of the cache count as equal until they are loaded and hashed.
    """
    held = cache.settings
    ours = copy.deepcopy(held)
    ours["store"] = settings.store
    ours["sampling"] = settings.sampler.settings
    if settings.pixel_aspect == pixel_aspect.STORED:
        ours.pop(pixel_aspect.KEY, None)
    for stream, model in settings.models.items():
        name = model_identity(model)
        if name != held[stream]["model"].removesuffix(QUICKGELU):
            ours[stream]["model"] = name
    for stream, request in settings.weights.items():
        if schema.NO_MODEL in (settings.models[stream], held[stream]["model"]):
            continue
        remembered = cache.weights[stream]
        wanted = Weights.parse(request, flag=WEIGHTS_FLAGS[stream])
        if wanted.file is not None:
            ours[stream]["weights_sha256"] = sha256_of(wanted.file)
        elif request != remembered and (wanted.seed is not None or not Weights.names_a_file(remembered)):
            ours[stream]["weights_sha256"] = f"that of {request}"
    return ours
