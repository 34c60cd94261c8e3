"""Extracts into a cache in an object store: slices are built in a folder on this machine, and put whole.

WORK/NAME/                  of one cache; NAME is of its location
WORK/NAME/slices.json       the pin, as it is in the store
WORK/NAME/.work/            what running slices have finished so far, as in any cache with slices
WORK/NAME/shard-*.h5        shards of a slice that is finished here and not in the store; slice-*.json, its record

The pin is created in the store before work starts, if it is absent. A finished slice is put there shard by shard, under
the final names, and last its record, which is created if it is absent: so exactly one of several machines commits it.
"""

import contextlib
import fnmatch
import os
import shutil
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from haechi.cache.atomic import replace_text
from haechi.cache.errors import CacheError, HaechiError, SettingsConflictError
from haechi.cache.local_copy import records_copy
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
from haechi.extract.manifest import Manifest
from haechi.extract.pipeline import Extraction
from haechi.extract.settings import ExtractSettings
from haechi.extract.shard_queue import WriteError
from haechi.extract.slices import LOCK_SECONDS, continued, extract_slice, summary

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
    folder = (work or user_folder() / "work") / folder_name(out)
    with _writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        upload = _Upload(out, folder)
        pin = upload.pull_pin()
    chosen = part or Slice(number=0, num_slices=1)
    if pin is not None:
        numbers = range(pin.num_slices) if part is None else [part.number]
        chosen = part or Slice(number=0, num_slices=pin.num_slices)
        with _named(folder, out):
            continued(pin, chosen, settings)
        if records := upload.finished(pin, numbers):
            remove_finished_work(folder, numbers)
            _refuse_changes(records, manifest, reasons, out)
            progress.notice(f"{out}: finished before; whether files or labels changed since then is not looked at")
            done = summary(pin, records, part, None, num_defects=0, has_committed=False, seconds=0)
            return replace(done, location=str(out), seconds=time.monotonic() - started)
    with upload.alone(chosen):
        upload.stored.refuse_overwriting()
        upload.reopen(chosen)
        with _named(folder, out):
            done = extract_slice(
                manifest,
                folder,
                settings,
                chosen,
                producer=producer,
                retry=[reason.value for reason in reasons],
                progress=progress,
                create_pin=upload.create_pin,
            )
        done = upload.commit(chosen, done)
    return replace(done, location=str(out), slice=part, seconds=time.monotonic() - started)


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


class _Upload:
    """A cache in a store, and the folder where its slices are built."""

    def __init__(self, out: Location, folder: Path) -> None:
        self.out, self.folder = writable(out), folder
        self.stored = StoredCache(out)

    def pull_pin(self) -> Pin | None:
        """Let the folder have the pin of the store, or none.

        Raises `HaechiError` if there is none, and other files.
        """
        with self._pin_lock():
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
            record = self._record(pin, numbers[0])
            return [] if record is None else [record]
        copy = records_copy(self.out)
        assert copy is not None, self.out
        if unfinished := unfinished_slices(copy):
            raise HaechiError(f"{self.out}: {unfinished}; run `haechi extract` with --slice for each of them first")
        pin = replace(pin, path=copy)
        return list(read_records(pin).values())

    def _record(self, pin: Pin, number: int) -> Record | None:
        """The record of a slice in the store."""
        name = record_path(self.folder, number).name
        text = self.stored.text(name)
        return None if text is None else Record.decode(text.encode(), pin, number, where=str(self.stored.at(name)))

    @contextlib.contextmanager
    def alone(self, part: Slice) -> Iterator[None]:
        """Raise `HaechiError` if another process builds the slice in the same folder."""
        try:
            lock = FileLock(self.folder / f".slice-{part.number:05d}.lock").acquire(timeout=LOCK_SECONDS)
        except Timeout as error:
            raise HaechiError(
                f"{self.out}: another process of this machine extracts slice {part}; wait until it ends, or name "
                "another folder with --work"
            ) from error
        with lock:
            yield

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
            theirs = self._record(pin, part.number)
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
        return replace(done, has_committed=is_ours)


def _stored_pin(stored: StoredCache, folder: Path) -> Pin | None:
    """The pin in a store, as that of the cache in a folder."""
    text = stored.text(PIN_NAME)
    return None if text is None else Pin.decode(text.encode(), folder, where=str(stored.at(PIN_NAME)))


def _refuse_changes(records: Sequence[Record], manifest: Manifest, reasons: frozenset[Reason], out: Location) -> None:
    """Raise `HaechiError` if finished slices have other rows than the manifest, or failures that are to be redone."""
    num_slices, ids = records[0].num_slices, defaultdict[int, list[str]](list)
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
def _named(folder: Path, out: Location) -> Iterator[None]:
    """Let a conflict with the pin name the cache in the store."""
    try:
        yield
    except SettingsConflictError as error:
        raise SettingsConflictError(str(error).replace(str(folder), str(out))) from error


@contextlib.contextmanager
def _writing_to(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HaechiError(
            f"{folder}: the work of slices cannot be written there ({error.strerror}); name another folder with --work"
        ) from error
