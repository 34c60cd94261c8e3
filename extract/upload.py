"""Extracts into a cache in an object store: slices are built in a folder on this machine, and put whole.

WORK/NAME/                  of one cache; NAME is of its location
WORK/NAME/slices.json       the pin, as it is in the store
WORK/NAME/.work/            what running slices have finished so far, as in any cache with slices
WORK/NAME/shard-*.h5        shards of a slice that is finished here and not in the store; slice-*.json, its record
WORK/NAME/.copy-1/          the same, of workers whose slice another worker of this machine builds too

The pin is created in the store before work starts, if it is absent. A finished slice is put there shard by shard, under
the final names, and last its record, which is created if it is absent: so exactly one of several machines commits it.
"""

import contextlib
import fnmatch
import itertools
import os
import shutil
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from haechi.cache.atomic import replace_text
from haechi.cache.errors import CacheError, HaechiError, SettingsConflictError
from haechi.cache.local_copy import named_as, records_copy
from haechi.cache.progress import SILENT, Progress
from haechi.cache.schema import SHARD_PATTERN
from haechi.cache.slices import (
    PIN_NAME,
    Pin,
    Record,
    Slice,
    array_expression,
    ids_digest,
    read_records,
    record_path,
    remove_finished_work,
    shard_slice,
    slice_of,
    unfinished_slices,
    work_folder,
)
from haechi.cache.stores.location import BUCKETS, Location
from haechi.cache.stores.stored_cache import StoredCache, folder_name, user_folder
from haechi.cache.text import counted, named, one_or_more
from haechi.cache.writer import shard_path
from haechi.extract.decoding.reasons import Reason, parse_reasons
from haechi.extract.flow import OpenFlow
from haechi.extract.interrupt import Interrupt
from haechi.extract.manifest import Entry, Manifest
from haechi.extract.pipeline import Extraction
from haechi.extract.settings import ExtractSettings
from haechi.extract.shard_queue import WriteError
from haechi.extract.slices import LOCK_SECONDS, continued, extract_rows, summary

COPY_PREFIX = ".copy-"

WHAT_TO_DO = (
    "a finished cache in a store is not changed: copy it to a folder and continue it there, or extract into a new "
    "place (other labels need no extraction: `haechi train --labels`)"
)


def extract_to_store(
    manifest: Manifest,
    out: Location,
    settings: ExtractSettings,
    part: Slice | None,
    *,
    producer: str,
    retry: str | Iterable[str] = (),
    progress: Progress = SILENT,
    work: Path | None = None,
) -> Extraction:
    """Extract the rows of one slice, or of the whole manifest as the only slice, into a cache in a store.

    `work`: where the slice is built; None: in the user's folder for files that can be made again. A stopped run
    continues there. A slice that is committed already is left as it is.

    Raises as `haechi.extract.slices.extract_slice` does; `HaechiError` too if the store cannot be written to or would
    let two processes commit one slice, and if a finished slice has other rows than the manifest.
    """
    started, reasons = time.monotonic(), parse_reasons(one_or_more(retry))
    upload = Upload(out, work)
    pin = upload.pull_pin()
    chosen = part or Slice(number=0, num_slices=1)
    if pin is not None:
        numbers = range(pin.num_slices) if part is None else [part.number]
        with upload.naming():
            continued(pin, part or Slice(number=0, num_slices=pin.num_slices), settings)
        if records := upload.finished(pin, numbers):
            upload.tidy(numbers)
            refuse_changes(records, manifest, reasons, out)
            progress.notice(f"{out}: finished before; whether files or labels changed since then is not looked at")
            done = summary(pin, records, part, None, num_defects=0, has_committed=False, seconds=0)
            return replace(done, location=str(out), seconds=time.monotonic() - started)
    with upload.alone(chosen):
        upload.stored.refuse_overwriting()
        done = upload.extract_rows(
            [entry for entry in manifest.entries if chosen.holds(entry.id)],
            settings,
            chosen,
            num_manifest_rows=len(manifest.entries),
            producer=producer,
            retry=[reason.value for reason in reasons],
            progress=progress,
        )
    return replace(done, location=str(out), slice=part, seconds=time.monotonic() - started)


def extract_rows_to_store(
    entries: Iterable[Entry],
    out: Location,
    settings: ExtractSettings,
    part: Slice,
    *,
    num_manifest_rows: int,
    producer: str,
    retry: str | Iterable[str] = (),
    progress: Progress = SILENT,
    work: Path | None = None,
    opened: OpenFlow | None = None,
    interrupt: Interrupt | None = None,
) -> Extraction:
    """As `haechi.extract.slices.extract_rows`, into a cache in a store that was probed (`StoredCache`) before.

    If another process of this machine builds the slice now, it is built twice, and the first that finishes commits.
    `work` is as for `extract_to_store`.
    """
    started = time.monotonic()
    with _free_upload(out, work, part) as upload:
        pin = upload.pull_pin()
        record = None if pin is None else upload.record(pin, part.number)
        if pin is None or record is None:
            done = upload.extract_rows(
                entries,
                settings,
                part,
                num_manifest_rows=num_manifest_rows,
                producer=producer,
                retry=retry,
                progress=progress,
                opened=opened,
                interrupt=interrupt,
            )
        else:  # another process has committed it since it was handed out
            with upload.naming():
                continued(pin, part, settings)
            done = summary(pin, [record], part, None, num_defects=0, has_committed=False, seconds=0)
    return replace(done, location=str(out), seconds=time.monotonic() - started)


def stored_slices(out: Location) -> int | None:
    """The number of slices of a cache in a store; None if it has none yet. Raises as `extract_to_store` does."""
    pin = _stored_pin(StoredCache(writable(out)), Path())
    return None if pin is None else pin.num_slices


def writable(out: Location) -> Location:
    """The location. Raises `HaechiError` if nothing is written to its kind of store."""
    if out.scheme not in BUCKETS:
        raise HaechiError(
            f"{out}: no cache is written to {out.scheme}://, but to a folder, or below "
            f"{', '.join(f'{scheme}://' for scheme in BUCKETS)}"
        )
    return out


class Upload:
    """A cache in a store, and the folder of this machine where its slices are built.

    `copy`: which of the folders; others than 0 are for slices that are built twice at the same time. Raises
    `HaechiError` if the folder cannot be made, or nothing is written to this kind of store.
    """

    def __init__(self, out: Location, work: Path | None = None, *, copy: int = 0) -> None:
        self.out = writable(out)
        self._first = (work or user_folder() / "work") / folder_name(out)
        self.folder = self._first / f"{COPY_PREFIX}{copy}" if copy else self._first
        with _writing_to(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.stored = StoredCache(out)

    @property
    def folders(self) -> list[Path]:
        """All folders of this machine in which slices of the cache are built."""
        return [self._first, *sorted(self._first.glob(f"{COPY_PREFIX}*"))]

    def pull_pin(self) -> Pin | None:
        """Let the folder have the pin of the store, or none.

        Raises `HaechiError` if there is none, and other files.
        """
        with _writing_to(self.folder), self._pin_lock():
            pin = _stored_pin(self.stored, self.folder)
            if pin is None and self._is_begun():
                pin = _stored_pin(self.stored, self.folder)
            if pin is None:
                (self.folder / PIN_NAME).unlink(missing_ok=True)
            else:
                replace_text(self.folder / PIN_NAME, pin.encode())
            return pin

    def create_pin(self, ours: Pin) -> Pin:
        """Create the pin in the store unless it has one, and let the folder have that which it has."""
        with self._pin_lock():
            self.stored.create(PIN_NAME, ours.encode())
            pin = _stored_pin(self.stored, self.folder)
            assert pin is not None, self.out
            replace_text(self.folder / PIN_NAME, pin.encode())
            return pin

    def _pin_lock(self) -> FileLock:
        return FileLock(self.folder / ".pin.lock")

    def _is_begun(self) -> bool:
        """Whether another machine has created the pin meanwhile. Raises `HaechiError` if there are other files."""
        names = sorted(name for name in self.stored.files() if not name.startswith("."))
        if PIN_NAME in names:
            return True
        if fnmatch.filter(names, SHARD_PATTERN):
            raise HaechiError(
                f"{self.out}: was made without slices and copied there; copy it to a folder and continue it there, or "
                "name a new place with --out"
            )
        if names:
            raise HaechiError(
                f"{self.out}: not empty and holds no cache, but {named(names[:5])}; name a new place with --out"
            )
        return False

    def finished(self, pin: Pin, numbers: Sequence[int]) -> list[Record]:
        """The records of these slices if all are finished; none if a single one that is asked for is not.

        Raises `HaechiError` if several are asked for and some are not finished.
        """
        if len(numbers) == 1:
            record = self.record(pin, numbers[0])
            return [] if record is None else [record]
        copy = records_copy(self.out)
        assert copy is not None, self.out
        if unfinished := unfinished_slices(copy):
            raise HaechiError(
                f"{self.out}: {unfinished}; run `haechi extract` with --devices, or for each of them with --slice, "
                "first"
            )
        return list(self.records(pin).values())

    def records(self, pin: Pin) -> dict[int, Record]:
        """The records of all finished slices in the store, by number."""
        copy = records_copy(self.out)
        assert copy is not None, self.out
        with named_as(self.out, copy):
            return read_records(replace(pin, path=copy))

    def record(self, pin: Pin, number: int) -> Record | None:
        """The record of a slice in the store."""
        name = record_path(self.folder, number).name
        text = self.stored.text(name)
        return None if text is None else Record.decode(text.encode(), pin, number, where=str(self.stored.at(name)))

    @contextlib.contextmanager
    def alone(self, part: Slice) -> Iterator[None]:
        """Raise `HaechiError` if another process builds the slice in the same folder."""
        try:
            lock = _slice_lock(self.folder, part.number).acquire(timeout=LOCK_SECONDS)
        except Timeout as error:
            raise HaechiError(
                f"{self.out}: another process of this machine extracts slice {part}; wait until it ends, or name "
                "another folder with --work"
            ) from error
        with lock:
            yield

    def extract_rows(self, entries: Iterable[Entry], settings: ExtractSettings, part: Slice, **how: Any) -> Extraction:
        """Extract the rows of a slice in the folder, and put them. No other process builds it in this folder.

        `how`: what `haechi.extract.slices.extract_rows` takes, which see. Raises `WriteError` as `commit` does.
        """
        self.reopen(part)
        with self.naming():
            done = extract_rows(entries, self.folder, settings, part, create_pin=self.create_pin, **how)
        return self.commit(part, done)

    @contextlib.contextmanager
    def naming(self) -> Iterator[None]:
        """Let a conflict with the pin name the cache in the store."""
        try:
            yield
        except SettingsConflictError as error:
            raise SettingsConflictError(str(error).replace(str(self.folder), str(self.out))) from error

    def reopen(self, part: Slice) -> None:
        """Make a slice that is finished here, but not in the store, one that was begun.

        So rows that changed since then are extracted, and labels updated, before it is put.
        """
        record = record_path(self.folder, part.number)
        shards = sorted(path for path in self.folder.glob(SHARD_PATTERN) if shard_slice(path.name) == part.number)
        if record.exists():
            work = work_folder(self.folder, part.number, 0)
            shutil.rmtree(work, ignore_errors=True)
            (work / "cache").mkdir(parents=True)
            for number, shard in enumerate(shards):
                os.link(shard, shard_path(work / "cache", number))
            record.unlink()  # not before all shards have second names: this may be stopped at any moment
        for shard in shards:
            shard.unlink(missing_ok=True)

    def commit(self, part: Slice, done: Extraction) -> Extraction:
        """Put a slice that is finished in the folder: its shards, and last its record. Returns what was committed.

        Raises `WriteError` if the store cannot be written; the slice is not committed then, and the folder is as it
        was.
        """
        pin = Pin.read(self.folder)
        assert pin is not None
        record = Record.read(pin, part.number)
        assert record is not None
        held = [self.folder / each.name for each in record.shards]
        path = record_path(self.folder, part.number)
        try:
            before = self.stored.files()
            for shard in held:  # its name has the digest of its bytes: what is there is the same
                if shard.name not in before or before[shard.name].size_bytes != shard.stat().st_size:
                    self.stored.put(shard.name, shard)
            if _stored_pin(self.stored, self.folder) != pin:
                raise CacheError(f"{self.out}: its {PIN_NAME} is another one than when this run began, or gone")
            is_ours = self.stored.create(path.name, record.encode())
        except CacheError as error:
            raise WriteError(
                f"{error}. Slice {part} is not committed; its {counted(record.num_rows, 'finished row')} are safe in "
                f"{self.folder}: run the same command again when the store can be written"
            ) from error
        if not is_ours:
            theirs = self.record(pin, part.number)
            assert theirs is not None, self.out
            if theirs != record:
                done = summary(pin, [theirs], part, done, num_defects=0, has_committed=False, seconds=0)
                record = theirs
        names = {each.name for each in record.shards}
        for name in {*before, *(shard.name for shard in held)} - names:
            if shard_slice(name) == part.number:
                self.stored.remove(name)
        path.unlink()
        for shard in held:
            shard.unlink()
        self.tidy({number for number in range(pin.num_slices) if record_path(self.folder, number).name in before})
        return replace(done, has_committed=is_ours)

    def tidy(self, numbers: Collection[int]) -> None:
        """Delete what processes that were killed left on this machine of slices that are finished in the store."""
        for folder in self.folders:
            remove_finished_work(folder, numbers)
            shards = [path for path in folder.glob(SHARD_PATTERN) if shard_slice(path.name) in numbers]
            for number in {shard_slice(path.name) for path in shards}:
                assert number is not None
                with contextlib.suppress(Timeout), _slice_lock(folder, number).acquire(timeout=0):
                    record_path(folder, number).unlink(missing_ok=True)
                    for path in shards:
                        if shard_slice(path.name) == number:
                            path.unlink(missing_ok=True)

    def remove_unnamed(self, records: Mapping[int, Record]) -> None:
        """Delete what killed processes left of finished slices: shards that no record names, and work on this machine.

        `records`: those of the finished slices, by number.
        """
        names = {each.name for record in records.values() for each in record.shards}
        for name in self.stored.files().keys() - names:
            if shard_slice(name) in records:
                self.stored.remove(name)
        self.tidy(records)


@contextlib.contextmanager
def _free_upload(out: Location, work: Path | None, part: Slice) -> Iterator[Upload]:
    """The first folder in which no living process builds the slice."""
    for copy in itertools.count():
        upload = Upload(out, work, copy=copy)
        try:
            lock = _slice_lock(upload.folder, part.number).acquire(timeout=LOCK_SECONDS)
        except Timeout:
            continue
        with lock:
            yield upload
        return


def _slice_lock(folder: Path, number: int) -> FileLock:
    """Held by the process that builds a slice in a folder."""
    return FileLock(folder / f".slice-{number:05d}.lock")


def _stored_pin(stored: StoredCache, folder: Path) -> Pin | None:
    """The pin in a store, as that of the cache in a folder."""
    text = stored.text(PIN_NAME)
    return None if text is None else Pin.decode(text.encode(), folder, where=str(stored.at(PIN_NAME)))


def refuse_changes(records: Collection[Record], manifest: Manifest, reasons: frozenset[Reason], out: Location) -> None:
    """Raise `HaechiError` if finished slices have other rows than the manifest, or failures that are to be redone."""
    if not records:
        return
    num_slices, ids = next(iter(records)).num_slices, defaultdict[int, list[str]](list)
    for entry in manifest.entries:
        ids[slice_of(entry.id, num_slices)].append(entry.id)
    if other := [record.number for record in records if record.ids_sha256 != ids_digest(ids[record.number])]:
        rows = sum(len(ids[number]) for number in other)
        had = sum(record.num_rows for record in records if record.number in other)
        what = f"slice {array_expression(other)} of {num_slices} is" if num_slices > 1 else "it is"
        raise HaechiError(
            f"{out}: {what} finished with {counted(had, 'row')}, and the manifest has other ones now ({rows}); "
            f"{WHAT_TO_DO}"
        )
    failures = {reason for record in records for reason in record.failures}
    if again := sorted(reasons & failures):
        raise HaechiError(f"{out}: failures with the reason {', '.join(again)} are not tried again; {WHAT_TO_DO}")


@contextlib.contextmanager
def _writing_to(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HaechiError(
            f"{folder}: the work of slices cannot be written there ({error.strerror}); name another folder with --work"
        ) from error
