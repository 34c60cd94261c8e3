"""One slice of a manifest: extracted in a work folder of its own as any cache is, then committed whole."""

import contextlib
import functools
import itertools
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from haechi.cache.errors import CacheError, HaechiError, SettingsConflictError
from haechi.cache.lock import locked
from haechi.cache.progress import SILENT, Progress
from haechi.cache.reader import Cache, shard_paths
from haechi.cache.schema import SHARD_PATTERN, STREAMS, conflict_list
from haechi.cache.shard import Shard
from haechi.cache.slices import (
    PIN_NAME,
    Pin,
    Record,
    Slice,
    ids_digest,
    remove_finished_work,
    work_folder,
    work_folders,
    work_lock,
)
from haechi.cache.text import one_or_more
from haechi.cache.writer import now
from haechi.extract import pipeline, resume
from haechi.extract.commit import commit
from haechi.extract.decoding.decode import decoders
from haechi.extract.decoding.reasons import DEFECT, parse_reasons
from haechi.extract.flow import OpenFlow, open_flow
from haechi.extract.interrupt import Interrupt
from haechi.extract.manifest import Entry, Manifest
from haechi.extract.pipeline import Extraction
from haechi.extract.settings import ExtractSettings
from haechi.extract.timing import Stopwatch

# A work folder counts as used if its lock is held for this long: `haechi status` holds it for an instant.
LOCK_SECONDS = 0.2

# The lock of the cache is held while the pin is made, by one of many slices that begin at once. If it is held for this
# many seconds and no pin appears, a run without slices holds it.
PIN_SECONDS = 20


def extract_slice(
    manifest: Manifest,
    out: Path,
    settings: ExtractSettings,
    part: Slice,
    *,
    producer: str,
    retry: str | Iterable[str] = (),
    progress: Progress = SILENT,
    create_pin: Callable[[Pin], Pin] = Pin.create,
) -> Extraction:
    """Extract the rows of one slice of the manifest, as `extract_rows` does."""
    return extract_rows(
        [entry for entry in manifest.entries if part.holds(entry.id)],
        out,
        settings,
        part,
        num_manifest_rows=len(manifest.entries),
        producer=producer,
        retry=retry,
        progress=progress,
        create_pin=create_pin,
    )


def extract_rows(
    entries: Iterable[Entry],
    out: Path,
    settings: ExtractSettings,
    part: Slice,
    *,
    num_manifest_rows: int,
    producer: str,
    retry: str | Iterable[str] = (),
    progress: Progress = SILENT,
    create_pin: Callable[[Pin], Pin] = Pin.create,
    opened: OpenFlow | None = None,
    interrupt: Interrupt | None = None,
) -> Extraction:
    """Extract all entries of one slice of a manifest, and commit them to the cache `out` once.

    A slice that is committed already is left as it is. One that was begun is continued; if another process works on it
    now, it is done twice, and the first that finishes commits. `retry` is for the failures of a slice that was begun.
    `create_pin` creates the pin unless there is one, and returns the one that counts.
    `opened` and `interrupt` are as for `haechi.extract.pipeline.extract`.

    Raises as `haechi.extract.pipeline.extract` does; `SettingsConflictError` if the slices of this cache have another
    number or other settings; `HaechiError` if the cache was made without slices.
    """
    started = time.monotonic()
    reasons = parse_reasons(one_or_more(retry))
    resume.refuse_strangers(out)
    pin = Pin.read(out)
    if pin is None:
        _refuse_whole(out)
    else:
        settings = continued(pin, part, settings)
    entries = sorted(entries, key=lambda entry: entry.id)
    record = None if pin is None else Record.read(pin, part.number)
    if record is not None and reasons.intersection(record.failures):
        progress.notice(
            f"slice {part} is committed; when all slices are finished, `haechi extract` without --slice tries its "
            "failures again"
        )
    done, is_ours = None, False
    if record is None:
        out.mkdir(parents=True, exist_ok=True)
        with _work_folder(out, part) as folder:
            pin = Pin.read(out)  # another process may have committed the slice and removed this folder
            record = None if pin is None else Record.read(pin, part.number)
            if record is None:
                run = functools.partial(
                    pipeline.extract,
                    producer=producer,
                    retry=[reason.value for reason in reasons],
                    progress=progress,
                    opened=opened,
                    interrupt=interrupt,
                )
                work, opens = folder / "cache", opened or open_flow
                done, pin = _extract(entries, out, work, settings, part, run, opens, create_pin)
                ids = [entry.id for entry in entries]
                record, is_ours = commit(
                    folder / "cache", pin, part, ids, num_manifest_rows=num_manifest_rows, drafts=folder / "drafts"
                )
            shutil.rmtree(folder, ignore_errors=True)
        remove_finished_work(out, [part.number])
    assert pin is not None
    if record.ids_sha256 != ids_digest(entry.id for entry in entries):
        progress.notice(
            f"slice {part} was committed with other rows than the manifest has now; when all slices are finished, "
            "`haechi extract` without --slice adds what is missing"
        )
    num_defects = _num_defects(pin.path, record) if record.failures else 0
    seconds = time.monotonic() - started
    return summary(pin, [record], part, done, num_defects=num_defects, has_committed=is_ours, seconds=seconds)


def continued(pin: Pin, part: Slice, settings: ExtractSettings) -> ExtractSettings:
    """The settings with which a slice of a cache that has a pin is extracted.

    Raises `SettingsConflictError` that names all fields in which they differ from the pin.
    """
    settings = resume.continued(settings, pin)
    refuse_other(pin, part, settings, resume.requested(settings, pin))
    return settings


def _extract(
    entries: list[Entry],
    out: Path,
    work: Path,
    settings: ExtractSettings,
    part: Slice,
    run: Callable[..., Extraction],
    opened: OpenFlow,
    create_pin: Callable[[Pin], Pin],
) -> tuple[Extraction | None, Pin]:
    """Extract the entries into the work folder; None if there are none. Returns the pin of the cache too."""

    def agree(ours: dict[str, Any]) -> None:
        pin = _pinned(out, part, settings, ours, create_pin)
        refuse_other(pin, part, settings, ours)

    done = None
    if entries:
        done = run(Manifest(entries=tuple(entries), notices=()), work, settings, agree=agree)
    if (pin := Pin.read(out)) is None:
        if entries:
            agree(Cache.open(work).settings)
        else:
            with opened(settings, 1) as flow:  # the settings are known when the models are loaded
                agree(flow.settings)
        pin = Pin.read(out)
    assert pin is not None, f"{out}: no {PIN_NAME}"
    return done, pin


def _pinned(
    out: Path, part: Slice, settings: ExtractSettings, ours: dict[str, Any], create_pin: Callable[[Pin], Pin]
) -> Pin:
    """The pin of the cache, which is made now if there is none. Raises `HaechiError` for a cache without slices."""
    with contextlib.ExitStack() as stack:
        for second in range(PIN_SECONDS):
            if (pin := Pin.read(out)) is not None:
                return pin
            try:
                stack.enter_context(locked(out, seconds=1))
                break
            except CacheError:
                if second == PIN_SECONDS - 1:
                    raise
        _refuse_whole(out)
        pin = Pin(
            path=out,
            num_slices=part.num_slices,
            shard_size=settings.shard_size,
            created=now(),
            settings=ours,
            weights=settings.weights,
        )
        return create_pin(pin)


def _refuse_whole(out: Path) -> None:
    """Raise `HaechiError` if the folder has shards that were made without slices."""
    if out.exists() and Pin.read(out) is None and shard_paths(out):
        raise HaechiError(
            f"{out}: made without slices, so it is one slice of one; continue it without --slice, or name a new folder "
            "with --out"
        )


def refuse_other(pin: Pin, part: Slice, settings: ExtractSettings, ours: dict[str, Any]) -> None:
    """Raise `SettingsConflictError` that names all fields in which this run differs from the pin."""
    wanted = replace(pin, num_slices=part.num_slices, shard_size=settings.shard_size, settings=ours)
    if conflicts := conflict_list(pin.fields, wanted.fields, holder=PIN_NAME):
        raise SettingsConflictError(
            f"{pin.path}: its slices were begun with other settings, and all must have the same:\n{conflicts}\n"
            "  Extract into a new folder, or use the settings of the cache."
        )


@contextlib.contextmanager
def _work_folder(out: Path, part: Slice) -> Iterator[Path]:
    """A work folder of this machine for the slice that no living process uses: new, or left by a stopped run."""
    for attempt in itertools.count():
        folder = work_folder(out, part.number, attempt)
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock = FileLock(work_lock(folder)).acquire(timeout=LOCK_SECONDS)
        except Timeout:
            continue
        with lock:
            if not folder.exists():
                _take_over(folder, [other for other in work_folders(out, part.number) if other != folder])
            yield folder
            if not folder.exists():
                work_lock(folder).unlink(missing_ok=True)
        return


def _take_over(folder: Path, others: Sequence[Path]) -> None:
    """Make a work folder, and give the shards that another run of the slice has finished second names in it.

    Of several others, that with the most shards counts. It may be in use by a process of another machine, so nothing in
    it is changed.
    """
    folder.mkdir()
    shards = max((sorted((other / "cache").glob(SHARD_PATTERN)) for other in others), key=len, default=[])
    for shard in shards:
        (folder / "cache").mkdir(exist_ok=True)
        with contextlib.suppress(OSError):  # it is gone since its slice was committed, or belongs to another user
            os.link(shard, folder / "cache" / shard.name)


def summary(
    pin: Pin,
    records: Sequence[Record],
    part: Slice | None,
    done: Extraction | None,
    *,
    num_defects: int,
    has_committed: bool,
    seconds: float,
) -> Extraction:
    """What the run did, with the rows that were committed: they may be those of another run."""
    failures = sum((Counter(record.failures) for record in records), Counter[str]())
    committed = {
        "cache": pin.path,
        "num_rows": sum(record.num_rows for record in records),
        "num_used": sum(record.num_used for record in records),
        "failures": dict(sorted(failures.items())),
        "num_defects": num_defects,
        "seconds": seconds,
        "slice": part,
        "has_committed": has_committed,
    }
    if done is not None:
        return replace(done, **committed)  # type: ignore[arg-type]
    return Extraction(
        fingerprint=pin.fingerprint,
        untrained=[stream for stream in STREAMS if not pin.settings[stream]["trained"]],
        traits={},
        num_new=0,
        num_saved=dict.fromkeys(STREAMS, 0),
        num_changed=0,
        num_relabelled=0,
        num_not_listed=0,
        device="",
        precision="",
        decoders=decoders(),
        workers=0,
        work_seconds=0.0,
        steps=Stopwatch().seconds,
        **committed,  # type: ignore[arg-type]
    )


def _num_defects(cache: Path, record: Record) -> int:
    """How many failures of a committed slice are due to an error in Haechi's own code."""
    counts = Counter[bool]()
    for each in record.shards:
        (messages,) = Shard.open(cache / each.name).read("failure/message")
        counts.update(message.startswith(DEFECT) for message in messages)
    return counts[True]
