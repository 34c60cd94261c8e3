"""Copies on this machine of caches in object stores: each is a folder that is read as any cache is.

USER/shards/NAME/                 the copy: pin, records, and the shards that count; NAME is of the location
USER/shards/NAME/.records/        the same without shards, as a listing of the store said last
USER/shards/NAME/.used            locked by every process that reads the copy; its time is that of the last use
"""

import contextlib
import fcntl
import fnmatch
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from filelock import FileLock
from rich.filesize import decimal

from haechi.cache import schema
from haechi.cache.atomic import PARTIAL_PREFIX, replace_text, replaced
from haechi.cache.errors import CacheError
from haechi.cache.file_state import FileState
from haechi.cache.location import SHARD_CACHE_GB
from haechi.cache.shard import Shard, read_seal, sealed_digest
from haechi.cache.slices import PIN_NAME, Pin, content_digest, read_records, shards_that_count
from haechi.cache.stores.location import Location
from haechi.cache.stores.stored_cache import StoredCache, cache_location, folder_name, user_folder
from haechi.cache.text import bullet_list, counted

# Shards and records are fetched at the same time by this many threads.
NUM_THREADS = 8

RECORDS, USED, LISTING = ".records", ".used", "listing"
RECORD_NAME = re.compile(r"slices\.json|slice-\d{5}\.json")

_HELD: dict[Path, int] = {}
"""Copies that this process reads -> descriptor of the shared lock, which it holds until it ends."""


def records_copy(location: Location) -> Path | None:
    """A folder with the pin and the records of a cache with slices, as they are now; None for one without slices.

    Only a listing, and records that are new, are fetched. Raises `CacheError` if there is no cache, or in words if the
    store cannot be used.
    """
    with _opened(location) as copy:
        copy.update_records()
        return copy.records if PIN_NAME in copy.listing else None


def local_copy(location: Location, *, shard_cache_gb: float = SHARD_CACHE_GB) -> Path:
    """A folder with the cache as it is now. Only what it did not hold is fetched: shards are checked by their digests.

    `shard_cache_gb`: what all copies may use together, 1e9 bytes; those that were used longest ago are deleted first.
    Raises `CacheError` as `records_copy`, for a cache that is larger than this, and for shards whose digest is not that
    of their record.
    """
    with _opened(location) as copy:
        copy.update_records()
        copy.update_shards(max_bytes=int(shard_cache_gb * 1e9))
        return copy.folder


@contextlib.contextmanager
def opened_copy(text: str, *, shard_cache_gb: float = SHARD_CACHE_GB) -> Iterator[tuple[Location, Path]]:
    """Where a cache such as `s3://bucket/cache` is, and its `local_copy`; errors of the block name the place.

    Raises as `local_copy` does, and `CacheError` for a place that holds no caches.
    """
    location = cache_location(text)
    folder = local_copy(location, shard_cache_gb=shard_cache_gb)
    with named_as(location, folder):
        yield location, folder


@contextlib.contextmanager
def _opened(location: Location) -> "Iterator[_Copy]":
    """The copy of a cache; another process that fetches it is waited for."""
    copy = _Copy(StoredCache(location), user_folder() / "shards" / folder_name(location))
    try:
        _hold(copy.folder)
        with FileLock(copy.folder / ".fetching"), named_as(location, copy.folder):
            copy.list_files()  # not before: another process may have fetched what is newer
            yield copy
    except OSError as error:
        raise CacheError(
            f"{location}: its copy cannot be written to {copy.folder} ({error.strerror}); XDG_CACHE_HOME names another "
            "place"
        ) from error


@contextlib.contextmanager
def named_as(location: Location | str, folder: Path) -> Iterator[None]:
    """Let a `CacheError` of the block name files in the store, not those of the copy."""
    try:
        yield
    except CacheError as error:
        text = str(error).replace(str(folder / RECORDS), str(location)).replace(str(folder), str(location))
        raise type(error)(text) from error


def _hold(folder: Path) -> None:
    """Lock a copy against deletion until this process ends."""
    while True:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = _HELD.get(folder)
        if descriptor is None:
            descriptor = os.open(folder / USED, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        os.utime(descriptor)
        with contextlib.suppress(FileNotFoundError):
            if os.stat(folder / USED).st_ino == os.fstat(descriptor).st_ino:  # noqa: PTH116 (of one kind with fstat)
                _HELD[folder] = descriptor
                return
        _HELD.pop(folder, None)  # it was deleted meanwhile
        os.close(descriptor)


class _Copy:
    def __init__(self, stored: StoredCache, folder: Path) -> None:
        self.stored, self.folder, self.records = stored, folder, folder / RECORDS
        self.listing: Mapping[str, FileState] = {}

    def list_files(self) -> None:
        """Let `listing` have the files of the cache as they are now. Raises `CacheError` if there is no cache."""
        where = self.stored.location
        self.listing = {name: state for name, state in self.stored.files().items() if "/" not in name}
        if PIN_NAME not in self.listing and not fnmatch.filter(self.listing, schema.SHARD_PATTERN):
            what = "other files, and no cache" if self.listing else "no cache"
            raise CacheError(f"{where}: {what} there; make one with `haechi extract DATA --out {where}`")

    def update_records(self) -> None:
        """Let `records` hold exactly the pin and the records that the listing names."""
        self.records.mkdir(exist_ok=True)
        wanted = {name: state for name, state in self.listing.items() if RECORD_NAME.fullmatch(name)}
        if large := sorted(name for name, state in wanted.items() if state.size_bytes > schema.MAX_JSON_BYTES):
            what = f"records larger than {decimal(schema.MAX_JSON_BYTES)}, which no slice has"
            raise CacheError(f"{self.stored.location}: {what}:\n{bullet_list(large)}")
        self._update(self.records, wanted, others={path.name for path in self.records.glob("*.json")})

    def update_shards(self, *, max_bytes: int) -> None:
        """Let `folder` hold the shards that count, and then the pin and the records."""
        shards = sorted(self.records / name for name in fnmatch.filter(self.listing, schema.SHARD_PATTERN))
        names = [path.name for path in shards_that_count(self.records, shards)]
        if not self.listing.keys() >= set(names):
            self.list_files()  # a slice was committed after the page of the listing that has its shards
        if lacking := [name for name in names if name not in self.listing]:
            raise CacheError(f"{self.stored.location}: shards that records name are not there:\n{bullet_list(lacking)}")
        wanted = {name: self.listing[name] for name in names}
        self._make_room(sum(state.size_bytes for state in wanted.values()), max_bytes)
        self._update(self.folder, wanted, others={path.name for path in self.folder.glob(schema.SHARD_PATTERN)})
        held = {path.name for path in self.records.glob("*.json")}
        for name in {path.name for path in self.folder.glob("*.json")} - held:
            (self.folder / name).unlink()
        for name in held:
            with replaced(self.folder / name) as partial:
                shutil.copyfile(self.records / name, partial)

    def _update(self, folder: Path, wanted: Mapping[str, FileState], *, others: set[str]) -> None:
        """Fetch the files of `wanted` that are not in the folder as the store has them; delete those of `others`."""
        for name in others - wanted.keys():
            (folder / name).unlink()
        is_of_shards = folder == self.folder
        known = _read_listing(folder / f"{LISTING}.txt")
        missing = [
            name
            for name, state in wanted.items()
            if known.get(name) != [state.size_bytes, state.etag] or not (folder / name).exists()
        ]
        if not missing:
            return
        for partial in folder.glob(f"{PARTIAL_PREFIX}*"):
            partial.unlink()
        digests = self._digests() if is_of_shards else {}
        with ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="copy") as pool:
            found = pool.map(lambda name: self._fetch(folder, name, wanted[name], digests.get(name)), missing)
            problems = [problem for problem in found if problem]
        if problems:
            number = f"{len(problems)} of {counted(len(wanted), 'shard')}"
            raise CacheError(f"{self.stored.location}: {number} cannot be used:\n{bullet_list(problems)}")
        entries = {name: [state.size_bytes, state.etag] for name, state in wanted.items()}
        replace_text(folder / f"{LISTING}.txt", json.dumps(entries))

    def _fetch(self, folder: Path, name: str, state: FileState, digest: str | None) -> str:
        """Fetch a file and give it its name. Returns what is wrong with a shard; empty for nothing."""
        partial = folder / f"{PARTIAL_PREFIX}{name}-{uuid.uuid4().hex}"
        try:
            self.stored.fetch(name, state, partial)
            if folder == self.folder and (problem := _shard_problem(partial, digest)):
                return f"{name}: {problem}"
            partial.replace(folder / name)
        finally:
            partial.unlink(missing_ok=True)
        return ""

    def _digests(self) -> dict[str, str]:
        """Shard -> the digest that its record gives."""
        pin = Pin.read(self.records)
        records = read_records(pin).values() if pin is not None else ()
        return {each.name: each.digest for record in records for each in record.shards}

    def _make_room(self, num_bytes: int, max_bytes: int) -> None:
        """Delete the copies that were used longest ago. Raises `CacheError` if `num_bytes` do not fit nevertheless."""
        where = self.stored.location
        if num_bytes > max_bytes:
            raise CacheError(
                f"{where}: its shards have {decimal(num_bytes)}, more than the {decimal(max_bytes)} of "
                "--shard-cache-gb; allow more, or copy the cache to a folder"
            )
        others = {path: _bytes_in(path) for path in self.folder.parent.iterdir() if path != self.folder}
        for path in sorted(others, key=_last_use):
            if sum(others.values()) + num_bytes <= max_bytes:
                break
            if _deleted(path):
                del others[path]
        if sum(others.values()) + num_bytes > max_bytes:
            raise CacheError(
                f"{where}: its shards have {decimal(num_bytes)}, and running commands read copies of "
                f"{decimal(sum(others.values()))}; together more than the {decimal(max_bytes)} of "
                "--shard-cache-gb: wait until they end, or allow more"
            )
        missing, free = num_bytes - _bytes_in(self.folder), shutil.disk_usage(self.folder).free
        if missing > free:
            raise CacheError(
                f"{where}: {decimal(missing)} of shards are to be copied to {self.folder.parent}, whose disk has "
                f"{decimal(free)} left; XDG_CACHE_HOME names another place"
            )


def _shard_problem(path: Path, digest: str | None) -> str:
    """What is wrong with a fetched shard, whose record gives `digest`; empty for nothing."""
    try:
        seal = read_seal(path)
        if sealed_digest(path, seal.version) != seal.digest:
            return "its bytes are not those that were sealed"
        shard = Shard.open(path)
    except CacheError as error:
        return str(error).removeprefix(f"{path}: ")
    if digest is not None and (shard.index is None or content_digest(shard.index) != digest):
        return "has another content than when it was committed"
    return ""


def _read_listing(path: Path) -> dict[str, list[object]]:
    """File -> size and ETag when it was fetched."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _bytes_in(folder: Path) -> int:
    """Of the shards in a copy."""
    return sum(FileState.of(path).size_bytes for path in folder.glob(schema.SHARD_PATTERN))  # 0 if it was just deleted


def _last_use(folder: Path) -> float:
    try:
        return (folder / USED).stat().st_mtime
    except OSError:
        return 0.0


def _deleted(folder: Path) -> bool:
    """Delete a copy, unless a process reads it."""
    try:
        descriptor = os.open(folder / USED, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unused = folder.with_name(f"{PARTIAL_PREFIX}{uuid.uuid4().hex}")
        folder.replace(unused)  # in one step: whoever opens this copy now gets a new folder
        shutil.rmtree(unused, ignore_errors=True)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
