"""Stage 1: what a manifest asks for beyond what the cache holds, into shards."""

import contextlib
import importlib.metadata
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from haechi.cache.errors import HaechiError
from haechi.cache.lock import locked
from haechi.cache.reader import Cache
from haechi.cache.schema import Provenance
from haechi.cache.writer import remove_leftovers, rewrite_labels
from haechi.extract import resume
from haechi.extract.flow import Flow, opened
from haechi.extract.interrupt import Interrupt
from haechi.extract.manifest import Entry, Manifest
from haechi.extract.settings import ExtractSettings
from haechi.extract.shard_queue import Shards, WriteError, next_number
from haechi.extract.timing import Stopwatch

PACKAGES = ("torch", "decord", "av", "open_clip_torch", "pytorchvideo", "pillow", "h5py", "numpy")


class InterruptedRunError(HaechiError):
    """Ctrl-C: what was finished is kept."""


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """What a run did. `num_used + num_failed == num_rows`, always."""

    cache: Path
    fingerprint: str
    untrained: list[str]
    num_rows: int
    num_used: int
    failures: dict[str, int]
    """Reason -> how many of the manifest's rows."""
    num_new: int
    """Rows worked on in this run; the others were in the cache."""
    num_changed: int
    num_relabelled: int
    num_not_listed: int
    device: str
    precision: str
    """Of this run; both empty where no model was loaded."""
    workers: int
    """Decoding processes."""
    seconds: float
    """Of the whole run."""
    work_seconds: float
    """From the first video handed to a decoder until the last shard is on disk."""
    steps: dict[str, float]
    """Seconds by step (`haechi.extract.timing`), of videos that could be used. Steps run beside each other."""

    @property
    def num_failed(self) -> int:
        return sum(self.failures.values())

    def __post_init__(self) -> None:
        assert self.num_used + self.num_failed == self.num_rows, self


def extract(
    manifest: Manifest,
    out: Path,
    settings: ExtractSettings,
    *,
    producer: str,
    retry: Collection[str] = (),
    on_start: Callable[[int, str], None] = lambda num_rows, where: None,
    on_video: Callable[[Entry, str | None], None] = lambda entry, reason: None,
    on_notice: Callable[[str], None] = lambda text: None,
    on_interrupt: Callable[[], None] = lambda: None,
    on_windows: Callable[[int], None] = lambda num_windows: None,
) -> Extraction:
    """Bring the cache `out` up to the manifest; do only what is missing.

    `on_start` hears how many rows are to do and on what; `on_video` hears of each finished row, with its reason where
    it failed; `on_notice` hears what a user should know; `on_interrupt` hears that Ctrl-C was heard, and that what is
    begun is being finished; `on_windows` hears of windows as they are done. Raises `HaechiError` for settings that do
    not fit the cache, for weights that are not to be had, for a cache that another run is writing, for videos that all
    vanish, and (`InterruptedRunError`) for Ctrl-C.
    """
    started = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        remove_leftovers(out)
        existing = resume.open_existing(out)
        if existing is not None:
            resume.refuse_other_request(settings, existing)
        todo = resume.plan(manifest, existing, retry=retry)
        compute, watch, work_seconds = None, Stopwatch(), 0.0
        with contextlib.ExitStack() as stack:
            interrupt = stack.enter_context(Interrupt())  # left last: while processes are stopped, it still listens
            if todo.to_do:
                flow = stack.enter_context(opened(settings, len(todo.to_do), on_notice=on_notice))
                compute = flow.compute
                if existing is not None:
                    resume.refuse_other_settings(flow.settings, existing)
            num_relabelled = _relabel(manifest, existing) if existing else 0
            if compute is not None:
                on_start(len(todo.to_do), f"{compute.name}, {compute.precision}")
                provenance = Provenance(
                    settings=flow.settings,
                    weights=settings.weights,
                    device=compute.name,
                    precision=compute.precision,
                    producer=producer,
                    versions={name: importlib.metadata.version(name) for name in PACKAGES},
                )
                ready = time.monotonic()
                number = next_number(existing)
                shards = Shards(out, number, len(todo.to_do), settings, provenance, on_video)
                interrupt.listen()
                with shards:
                    _run(flow, todo, shards, watch, interrupt, on_interrupt, on_windows)
                work_seconds = time.monotonic() - ready
        cache = Cache.open(out)
    reasons = {failure.id: failure.reason for failure in cache.failures}
    failures = Counter(reasons[entry.id] for entry in manifest.entries if entry.id in reasons)
    used = set(cache.media["id"].tolist())
    return Extraction(
        cache=out,
        fingerprint=cache.fingerprint,
        untrained=cache.untrained,
        num_rows=len(manifest.entries),
        num_used=sum(entry.id in used for entry in manifest.entries),
        failures=dict(sorted(failures.items())),
        num_new=len(todo.to_do),
        num_changed=todo.num_changed,
        num_relabelled=num_relabelled,
        num_not_listed=todo.num_not_listed,
        device=compute.name if compute else "",
        precision=compute.precision if compute else "",
        workers=compute.workers if compute else 0,
        seconds=time.monotonic() - started,
        work_seconds=work_seconds,
        steps=watch.seconds,
    )


def _run(
    flow: Flow,
    todo: resume.Plan,
    shards: Shards,
    watch: Stopwatch,
    interrupt: Interrupt,
    on_interrupt: Callable[[], None],
    on_windows: Callable[[int], None],
) -> None:
    """Hand every row to `shards`."""
    stopping = False

    def stop() -> bool:
        nonlocal stopping
        if interrupt.is_asked and not stopping:
            stopping = True
            on_interrupt()
        return stopping

    try:
        rows = flow.rows(
            todo.to_do,
            watch,
            readable=todo.readable,
            stopping=stop,
            on_idle=shards.write_if_due,
            on_windows=on_windows,
        )
        for index, row in rows:
            shards.add(index, todo.to_do[index], row)
        shards.finish()
    except BaseException:
        with contextlib.suppress(WriteError):  # what ended the run is told of already
            shards.finish()
        raise
    if stopping:
        raise InterruptedRunError(
            f"interrupted: {shards.num_written} of {len(todo.to_do)} rows of this run are safe in the cache; "
            "run the same command again to go on"
        )
    watch.add(shards.seconds)


def _relabel(manifest: Manifest, cache: Cache) -> int:
    """Bring labels, splits and groups in the cache to the manifest's; how many videos changed."""
    wanted = {entry.id: (entry.label, entry.split, entry.group) for entry in manifest.entries}
    columns = ("id", "label", "split", "group")
    changed_ids: set[str] = set()
    for shard in cache.shards:
        rows = zip(*(column.tolist() for column in shard.read(*(f"media/{name}" for name in columns))), strict=True)
        held = {id: truth for id, *truth in rows}
        truth = {id: wanted.get(id, tuple(old)) for id, old in held.items()}
        if changed := {id for id in held if tuple(held[id]) != truth[id]}:
            rewrite_labels(shard.path, truth.__getitem__)
        changed_ids |= changed
    return len(changed_ids)
