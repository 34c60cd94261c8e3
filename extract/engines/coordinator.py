"""Hands out the slices of a manifest to the workers of an engine, and puts together what they did."""

import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from haechi.cache.errors import CacheError, HaechiError, SettingsError
from haechi.cache.progress import SILENT, Progress
from haechi.cache.reader import Cache, shard_paths
from haechi.cache.schema import STREAMS
from haechi.cache.slices import MAX_SLICES, Pin, Record, Slice, read_records, remove_unnamed, slice_of, work_folders
from haechi.cache.stores.check import refuse_unusable_stores
from haechi.cache.stores.location import Location
from haechi.cache.text import bullet_list, counted, one_or_more
from haechi.extract import pipeline, resume
from haechi.extract.decoding.reasons import parse_reasons
from haechi.extract.engines.engine import Died, Engine, Event, Finished, Job, Notice, Refused, Report, Stopped, Task
from haechi.extract.interrupt import Interrupt, InterruptedRunError
from haechi.extract.manifest import Entry, Manifest
from haechi.extract.pipeline import DeviceWork, Extraction
from haechi.extract.settings import ExtractSettings
from haechi.extract.slices import continued
from haechi.extract.timing import STEPS
from haechi.extract.upload import Upload, extract_to_store, refuse_changes

# The number of slices of a new cache. Several for each worker, so that all end at about the same time; enough rows in
# each that starting the decoders is a small part of it; few enough that the first slices are soon there for readers.
SLICES_PER_WORKER = 4
MIN_ROWS_PER_SLICE = 32
MAX_ROWS_PER_SLICE = 10_000

# A slice on which this many workers died is given up; a device on which this many died in a row is not used again.
MAX_ATTEMPTS = 3
MAX_DEATHS = 5

POLL_SECONDS = 0.2


def number_of_slices(num_rows: int, num_workers: int) -> int:
    """How many slices a new cache gets."""
    wanted = max(SLICES_PER_WORKER * num_workers, -(-num_rows // MAX_ROWS_PER_SLICE))
    return min(max(num_workers, min(wanted, num_rows // MIN_ROWS_PER_SLICE)), MAX_SLICES)


def extract_on(
    engine: Engine,
    manifest: Manifest,
    out: Path | Location,
    settings: ExtractSettings,
    *,
    producer: str,
    retry: str | Iterable[str] = (),
    progress: Progress = SILENT,
    work: Path | None = None,
) -> Extraction:
    """Extract all entries of the manifest that the cache `out` does not hold yet, in slices that the workers do.

    What the slices do not cover is done in this process, on the device of `settings`: rows that are new, changed or
    tried again since their slice was committed, new labels, and a cache that was made without slices. A cache in a
    store is not changed when all slices are finished; `work` is as for `haechi.extract.upload.extract_to_store`.

    Raises as `haechi.extract.pipeline.extract` does, and `HaechiError` for slices that no worker could finish; what is
    committed stays.
    """
    started = time.monotonic()
    reasons = tuple(reason.value for reason in parse_reasons(one_or_more(retry)))
    job = Job(
        out=out,
        work=None if work is None else work.absolute(),
        settings=settings,
        producer=producer,
        retry=reasons,
        num_manifest_rows=len(manifest.entries),
    )
    if isinstance(out, Location):
        return _extract_to_store(engine, manifest, out, job, progress)
    resume.refuse_strangers(out)
    pin = Pin.read(out)
    before = {} if pin is None else read_records(pin)
    if pin is not None and len(before) < pin.num_slices:
        settings = continued(pin, Slice(number=0, num_slices=pin.num_slices), settings)
    is_whole = pin is None and out.exists() and bool(shard_paths(out))
    run = None
    if not is_whole and (pin is None or len(before) < pin.num_slices):
        refuse_unusable_stores(entry.file for entry in manifest.entries)
        out.mkdir(parents=True, exist_ok=True)
        run = _slices_done(engine, manifest, replace(job, settings=settings), pin, before, progress)
        pin = Pin.read(out)
        records = {} if pin is None else read_records(pin)
        if pin is None or len(records) < pin.num_slices:
            raise HaechiError(
                f"{out}: finished slices are not there; all machines must see this folder under the same path, and no "
                "other program may delete files of the cache"
            )
        remove_unnamed(out)  # what workers left that were killed
        if not before and all(each.has_committed for each in run.done.values()):
            return _sliced(out, pin, records, run, seconds=time.monotonic() - started)

    def say(_: object) -> None:
        what = "this cache was made without slices" if is_whole else "all slices are finished"
        progress.notice(f"{what}: what is new or has changed is done on one device, in this process")

    last = pipeline.extract(manifest, out, settings, producer=producer, retry=reasons, progress=progress, agree=say)
    return last if run is None else _with_slices(last, run, seconds=time.monotonic() - started)


def _extract_to_store(engine: Engine, manifest: Manifest, out: Location, job: Job, progress: Progress) -> Extraction:
    """As `extract_on`, into a cache in a store."""
    started = time.monotonic()
    upload, settings = Upload(out, job.work), job.settings
    pin = upload.pull_pin()
    before = {} if pin is None else upload.records(pin)
    if pin is not None and len(before) == pin.num_slices:
        return extract_to_store(
            manifest, out, settings, None, producer=job.producer, retry=job.retry, progress=progress, work=job.work
        )
    if pin is not None:
        with upload.naming():
            settings = continued(pin, Slice(number=0, num_slices=pin.num_slices), settings)
        refuse_changes(before.values(), manifest, frozenset(), out)
    refuse_unusable_stores(entry.file for entry in manifest.entries)
    upload.stored.refuse_overwriting()
    run = _slices_done(engine, manifest, replace(job, settings=settings), pin, before, progress)
    pin = upload.pull_pin()
    records = {} if pin is None else upload.records(pin)
    if pin is None or len(records) < pin.num_slices:
        raise HaechiError(
            f"{out}: finished slices are not there; all machines must use the same store (AWS_ENDPOINT_URL …), and no "
            "other program may delete files of the cache"
        )
    refuse_changes(records.values(), manifest, frozenset(), out)
    upload.remove_unnamed(records)
    done = _sliced(upload.folder, pin, records, run, seconds=time.monotonic() - started)
    return replace(done, location=str(out))


def _slices_done(
    engine: Engine,
    manifest: Manifest,
    job: Job,
    pin: Pin | None,
    before: Mapping[int, Record],
    progress: Progress,
) -> "_Run":
    """The run that did the slices of which there is no record."""
    with engine:
        num_slices = pin.num_slices if pin else number_of_slices(len(manifest.entries), len(engine.workers))
        run = _Run(engine, job, tasks_of(manifest, num_slices, without=before), progress)
        run.finish()
    return run


def tasks_of(manifest: Manifest, num_slices: int, *, without: Mapping[int, Record]) -> list[Task]:
    """The slices that are not finished."""
    entries: dict[int, list[Entry]] = {number: [] for number in range(num_slices) if number not in without}
    for entry in manifest.entries:
        number = slice_of(entry.id, num_slices)
        if number in entries:
            entries[number].append(entry)
    return [
        Task(part=Slice(number=number, num_slices=num_slices), entries=tuple(rows)) for number, rows in entries.items()
    ]


@dataclass(kw_only=True)
class _Worker:
    """What the coordinator knows of a worker."""

    number: int | None = None
    """Of the slice that it does now."""
    since: float = 0.0
    """When it got that slice."""
    is_decoding: bool = False
    is_running: bool = False
    """Whether it was started, and has not died since."""
    num_deaths: int = 0
    """In a row."""
    num_slices: int = 0
    num_rows: int = 0
    seconds: float = 0.0

    @property
    def can_work(self) -> bool:
        return self.num_deaths < MAX_DEATHS


class _Run:
    """The slices of one run, each handed out until it is finished or given up."""

    def __init__(self, engine: Engine, job: Job, tasks: Sequence[Task], progress: Progress) -> None:
        self._engine, self._job, self._progress = engine, job, progress
        self._tasks = {task.part.number: task for task in tasks}
        self._waiting = deque(self._tasks)
        self._workers = [_Worker() for _ in engine.workers]
        self._num_attempts = Counter[int]()
        self._why: dict[int, str] = {}  # slice -> why its last attempt failed
        self._rows = dict.fromkeys(self._tasks, (0, 0))  # slice -> rows that are finished, and failed, of it
        self._refused: Refused | None = None
        self._is_stopping = False
        self.done: dict[int, Extraction] = {}
        """Slice -> what the run that committed it says."""

    @property
    def devices(self) -> tuple[DeviceWork, ...]:
        """What each device did."""
        return tuple(
            DeviceWork(name=name, num_slices=each.num_slices, num_rows=each.num_rows, seconds=each.seconds)
            for name, each in zip(self._engine.workers, self._workers, strict=True)
        )

    def finish(self) -> None:
        """Return when all slices are finished.

        Raises `InterruptedRunError` after Ctrl-C, the error of a worker that was refused, and `HaechiError` that lists
        the slices that no worker could finish.
        """
        total = sum(len(task.entries) for task in self._tasks.values())
        self._progress.start(total, f"extract on {self._engine.name}")
        with Interrupt(self._progress) as interrupt:
            interrupt.listen()
            while self._is_going_on:
                if interrupt.poll():
                    self._stop()
                self._hand_out()
                for worker, event in self._engine.events(POLL_SECONDS):
                    self._take(worker, event)
        if self._refused is not None:
            kind, text = self._refused.kind, self._refused.text
            raise kind([text]) if issubclass(kind, SettingsError) else kind(text)
        missing = [number for number in self._tasks if number not in self.done]
        if interrupt.is_stopping and missing:
            num_safe = sum(each.num_rows for each in self.done.values())
            folders, where = _work_places(self._job)
            num_safe += sum(_num_finished(folders, number) for number in missing)
            raise InterruptedRunError(
                f"interrupted: {num_safe} of {counted(total, 'row')} of this run are safe in {where}; run the same "
                "command again to continue"
            )
        if missing:
            raise HaechiError(self._unfinished(missing))

    @property
    def _is_going_on(self) -> bool:
        if any(worker.number is not None for worker in self._workers):
            return True
        can_begin = not self._is_stopping and any(worker.can_work for worker in self._workers)
        return can_begin and bool(self._waiting)

    def _hand_out(self) -> None:
        if self._is_stopping:
            return
        for index, worker in enumerate(self._workers):
            if worker.number is not None or not worker.can_work:
                continue
            number = self._waiting.popleft() if self._waiting else self._slowest()
            if number is None:
                continue
            if not worker.is_running:
                self._engine.start(index, self._job)
                worker.is_running = True
            worker.number, worker.since, worker.is_decoding = number, time.monotonic(), False
            self._engine.give(index, self._tasks[number])

    def _slowest(self) -> int | None:
        """The slice in work of which a second copy should be begun; None: there is none."""
        if not self._engine.does_copies:
            return None
        in_work = Counter(worker.number for worker in self._workers if worker.number is not None)
        single = [number for number, count in in_work.items() if count == 1 and number not in self.done]
        return max(single, key=lambda number: len(self._tasks[number].entries) - self._rows[number][0], default=None)

    def _stop(self) -> None:
        """Let no worker begin anything more."""
        if self._is_stopping:
            return
        self._is_stopping = True
        for index, worker in enumerate(self._workers):
            if worker.number is None:
                continue
            if worker.is_decoding:
                self._engine.stop(index)
            else:
                self._engine.kill(index)  # it loads models

    def _take(self, index: int, event: Event) -> None:
        worker, name = self._workers[index], self._engine.workers[index]
        if isinstance(event, Notice):
            self._progress.notice(event.text)
            return
        if isinstance(event, Report):
            self._show(worker, name, event)
            return
        if isinstance(event, Died):
            worker.is_running = False
        number, worker.number = worker.number, None
        if number is None:
            return
        worker.seconds += time.monotonic() - worker.since
        if isinstance(event, Finished):
            worker.num_deaths = 0
            self._finished(worker, number, event.done)
        elif isinstance(event, Refused):
            self._refused = self._refused or replace(event, text=f"{name}: {event.text}")
            self._stop()
        elif isinstance(event, Died) and number not in self.done:
            self._died(worker, name, number, event.why)
        else:
            assert isinstance(event, Stopped | Died), event

    def _finished(self, worker: _Worker, number: int, done: Extraction) -> None:
        if number in self.done:  # a second copy, which ended before it could be killed
            worker.is_running = False
            return
        worker.num_slices += 1
        worker.num_rows += done.num_new
        self.done[number] = done
        self._advance(number, done.num_rows, done.num_failed)
        for index, other in enumerate(self._workers):
            if other.number == number:
                self._engine.kill(index)  # its copy is of no use any more

    def _died(self, worker: _Worker, name: str, number: int, why: str) -> None:
        if self._is_stopping:
            return
        part = self._tasks[number].part
        worker.num_deaths += 1
        self._num_attempts[number] += 1
        self._why[number] = f"{name}: {why}"
        is_elsewhere = any(other.number == number for other in self._workers)
        if self._num_attempts[number] >= MAX_ATTEMPTS:
            outcome = f"slice {part} is given up after {MAX_ATTEMPTS} attempts"
        else:
            outcome = f"slice {part} is handed out again"
            if not is_elsewhere:
                self._waiting.append(number)
        self._progress.notice(f"{self._why[number]}; {outcome}")
        if not worker.can_work:
            self._progress.notice(f"{name} is not used any more: its process died {MAX_DEATHS} times in a row")

    def _show(self, worker: _Worker, name: str, report: Report) -> None:
        for notice in report.notices:
            self._progress.notice(f"{name}: {notice}")
        if report.number != worker.number or report.number in self.done or report.num_rows is None:
            return
        worker.is_decoding = True
        num_before = len(self._tasks[report.number].entries) - report.num_rows
        self._advance(report.number, num_before + report.num_done, report.num_failed)
        if report.num_windows:
            self._progress.windows(report.num_windows)

    def _advance(self, number: int, num_rows: int, num_failed: int) -> None:
        """Show that some rows of a slice are finished. It never goes back: another attempt begins with fewer."""
        old_rows, old_failed = self._rows[number]
        num_failed = min(max(num_failed, old_failed), max(num_rows, old_rows))
        num_new, num_new_failed = max(num_rows - old_rows, 0), num_failed - old_failed
        self._rows[number] = old_rows + num_new, num_failed
        num_new_failed = min(num_new, num_new_failed)
        if num_new_failed:
            self._progress.advance(num_new_failed, failed=True)
        if num_new > num_new_failed:
            self._progress.advance(num_new - num_new_failed)

    def _unfinished(self, missing: Sequence[int]) -> str:
        """The error for slices that no worker could finish."""
        tried = [
            f"slice {self._tasks[number].part}: {counted(self._num_attempts[number], 'attempt')}; the last one: "
            f"{self._why[number]}"
            for number in missing
            if number in self._why
        ]
        num_untried = len(missing) - len(tried)
        rest = [f"{counted(num_untried, 'slice')} that no device was left for"] if num_untried else []
        return (
            f"{self._job.out}: {len(missing)} of {counted(self._tasks[missing[0]].part.num_slices, 'slice')} could not "
            f"be finished; the others are committed. When the cause is removed, run the same command again:\n"
            f"{bullet_list([*tried, *rest])}"
        )


def _work_places(job: Job) -> tuple[Sequence[Path], str]:
    """The folders of this machine that have work folders of the cache, and where rows are safe, in words."""
    if isinstance(job.out, Path):
        return [job.out], "the cache"
    upload = Upload(job.out, job.work)
    return upload.folders, f"the cache or in {upload.folder}"


def _num_finished(folders: Sequence[Path], number: int) -> int:
    """How many rows of a slice are in its work folders; they are taken from the fullest. All, if it has a record."""
    found = []
    for folder in folders:
        pin = Pin.read(folder)
        record = None if pin is None else Record.read(pin, number)
        found += [_num_rows(each / "cache") for each in work_folders(folder, number)]
        found += [record.num_rows] if record is not None else []
    return max(found, default=0)


def _num_rows(cache: Path) -> int:
    try:
        return len(Cache.open(cache).locations)
    except CacheError:  # no shard yet
        return 0


def _summed(done: Iterable[Extraction]) -> dict[str, object]:
    """What the slices of a run add up to."""
    all_done = list(done)
    traits = sum((Counter(each.traits) for each in all_done), Counter[str]())
    saved = sum((Counter(each.num_saved) for each in all_done), Counter[str]())
    return {
        "traits": dict(sorted(traits.items())),
        "num_new": sum(each.num_new for each in all_done),
        "num_saved": {stream: saved[stream] for stream in STREAMS},
        "num_changed": sum(each.num_changed for each in all_done),
        "num_relabelled": sum(each.num_relabelled for each in all_done),
        "work_seconds": sum(each.work_seconds for each in all_done),
        "steps": {step: sum(each.steps[step] for each in all_done) for step in STEPS},
    }


def _device(run: _Run) -> str:
    """Such as `cpu`, or `cuda (NVIDIA H100), cuda (NVIDIA L4)`."""
    return ", ".join(sorted({each.device for each in run.done.values() if each.device}))


def _sliced(out: Path, pin: Pin, records: Mapping[int, Record], run: _Run, *, seconds: float) -> Extraction:
    """What a run did whose slices are the whole cache."""
    failures = sum((Counter(record.failures) for record in records.values()), Counter[str]())
    done = list(run.done.values())
    precisions = {each.precision for each in done if each.precision}
    return Extraction(
        cache=out,
        fingerprint=pin.fingerprint,
        untrained=done[0].untrained,
        num_rows=sum(record.num_rows for record in records.values()),
        num_used=sum(record.num_used for record in records.values()),
        failures=dict(sorted(failures.items())),
        num_defects=sum(each.num_defects for each in done),
        num_not_listed=0,
        device=_device(run),
        precision=", ".join(sorted(precisions)),
        decoders=done[0].decoders,
        workers=max(each.workers for each in done) * len(run.devices),
        seconds=seconds,
        devices=run.devices,
        **_summed(done),  # type: ignore[arg-type]
    )


def _with_slices(last: Extraction, run: _Run, *, seconds: float) -> Extraction:
    """What a run did whose slices were only a part: `last` is what it did after them."""
    done = list(run.done.values())
    return replace(
        last,
        device=last.device or _device(run),
        precision=last.precision or ", ".join(sorted({each.precision for each in done if each.precision})),
        workers=max([last.workers, *(each.workers * len(run.devices) for each in done)]),
        seconds=seconds,
        devices=run.devices,
        **_summed([last, *done]),  # type: ignore[arg-type]
    )
