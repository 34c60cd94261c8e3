"""The flow of stage 1: manifest to pool to backbones to shards."""

import contextlib
import importlib.metadata
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from cache import schema
from cache.errors import FeatureError, HaechiError, visible
from cache.reader import Cache
from cache.schema import Failure, Item, Media, Provenance, to_store
from cache.writer import remove_leftovers, rewrite_labels
from extract import resume
from extract.decode import Sampled
from extract.interrupt import Interrupt
from extract.limits import Limits
from extract.manifest import Entry, Manifest
from extract.reasons import STAGE_OF, Reason
from extract.settings import ExtractSettings
from extract.shards import Shards, next_number
from extract.steps import WAIT, Stopwatch
from extract.workers import DecodePool, Rejected

if TYPE_CHECKING:
    from extract.backbones import Backbones, Finished, VideoFeatures

PACKAGES = ("torch", "decord", "av", "open_clip_torch", "pytorchvideo", "pillow", "h5py", "numpy")


# Videos in a row that were there and are gone: more likely their disk than they.
MAX_VANISHED = 10


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
    """Seconds by step (`extract.steps`), of videos that could be used. Steps run beside each other."""

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
) -> Extraction:
    """Bring the cache `out` up to the manifest; do only what is missing.

    `on_start` hears how many rows are to do and on what; `on_video` hears of each finished row, with its reason where
    it failed; `on_notice` hears what a user should know; `on_interrupt` hears that Ctrl-C was heard, and that what is
    begun is being finished. Raises `HaechiError` for settings that do not fit the cache, for weights that are not to be
    had, for a cache that another run is writing, for videos that all vanish, and (`InterruptedRunError`) for Ctrl-C.
    """
    started = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(out / ".lock").acquire(timeout=0)
    except Timeout as error:
        raise HaechiError(f"{out}: another run is writing to this cache; wait for it, or name another --out") from error
    with lock:
        remove_leftovers(out)
        existing = resume.open_existing(out)
        if existing is not None:
            resume.refuse_other_request(settings, existing)
        todo = resume.plan(manifest, existing, retry=retry)
        compute, watch, work_seconds = None, Stopwatch(), 0.0
        with contextlib.ExitStack() as stack:
            if todo.to_do:
                from extract.device import Compute  # torch and the models: only where there is work for them

                compute = Compute.choose(settings)
                pool = DecodePool(
                    num_workers=min(compute.workers, len(todo.to_do)),
                    num_samples=settings.frames,
                    limits=Limits.of(settings),
                )
                stack.enter_context(pool)  # its processes start while the models are loaded

                from extract.backbones import Backbones

                backbones = Backbones(settings, compute, on_notice=on_notice)
                if existing is not None:
                    resume.refuse_other_settings(backbones.settings, existing)
            num_relabelled = _relabel(manifest, existing) if existing else 0
            if compute is not None:
                on_start(len(todo.to_do), f"{compute.name}, {compute.precision}")
                provenance = Provenance(
                    settings=backbones.settings,
                    clip_weights=settings.clip_weights,
                    slowfast_weights=settings.slowfast_weights,
                    device=compute.name,
                    precision=compute.precision,
                    producer=producer,
                    versions={name: importlib.metadata.version(name) for name in PACKAGES},
                )
                ready = time.monotonic()
                number = next_number(existing)
                shards = Shards(out, number, len(todo.to_do), settings, provenance, on_video)
                with Interrupt() as interrupt, shards, compute.applied():
                    _run(todo, pool, backbones, shards, watch, interrupt, on_interrupt, store=settings.store)
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
    todo: resume.Plan,
    pool: DecodePool,
    backbones: "Backbones",
    shards: Shards,
    watch: Stopwatch,
    interrupt: Interrupt,
    on_interrupt: Callable[[], None],
    *,
    store: str,
) -> None:
    """Decode, run the backbones on batches of videos, hand every row to `shards`."""
    entries = todo.to_do
    queue = backbones.new_queue()
    stopping = False
    vanished: list[tuple[int, Rejected]] = []  # not told as failures before it is clear that their disk is there

    def stop() -> bool:
        nonlocal stopping
        if interrupt.is_asked and not stopping:
            stopping = True
            on_interrupt()
        return stopping

    def reject(rejected: Iterable[tuple[int, Rejected]]) -> None:
        for index, result in rejected:
            shards.add(index, entries[index], _failure(entries[index], result))

    def take(finished: "Iterable[Finished]") -> None:
        for index, sampled, features in finished:
            watch.add(sampled.seconds)
            shards.add(index, entries[index], _row(entries[index], sampled, features, store))

    try:
        paths = [entry.path for entry in entries]
        results = pool.run(paths, backbones.outputs, stopping=stop, on_idle=shards.write_if_due)
        while True:
            with watch.time(WAIT):
                index, result = next(results, (-1, None))
            if result is None:
                break
            if isinstance(result, Rejected) and _vanished(entries[index], result, todo):
                vanished.append((index, result))
                if len(vanished) == MAX_VANISHED:
                    raise HaechiError(
                        f"{entries[index].path}: cannot be reached any more, nor can the {len(vanished) - 1} before "
                        f"it, which were there when this run began ({result.message}); did their disk or network "
                        "folder go? What is finished is kept: run the same command again when they are back"
                    )
                continue
            reject(vanished)
            vanished.clear()
            if isinstance(result, Rejected):
                reject([(index, result)])
            else:
                take(queue.add(index, result))
        reject(vanished)
        take(queue.drain())
        shards.finish()
    except BaseException:
        with contextlib.suppress(OSError):  # a full disk is what ended the run, and is told of already
            shards.finish()
        raise
    if stopping:
        raise InterruptedRunError(
            f"interrupted: {shards.num_written} of {len(entries)} rows of this run are safe in the cache; "
            "run the same command again to go on"
        )
    watch.add(queue.seconds)
    watch.add(shards.seconds)


def _vanished(entry: Entry, rejected: Rejected, todo: resume.Plan) -> bool:
    """Whether a file was there when the run began and cannot be reached now."""
    return rejected.reason in (Reason.MISSING, Reason.UNREADABLE) and entry.id in todo.readable


def _row(entry: Entry, sampled: Sampled, features: "VideoFeatures", store: str) -> Item | Failure:
    """An item, or a failure where the features are not fit to be stored."""
    try:
        clip = to_store(features.clip, store=store, what="CLIP features")
        slowfast = to_store(features.slowfast, store=store, what="SlowFast features")
        logits = to_store(features.slowfast_logits, store=store, what="SlowFast logits")
    except FeatureError as error:
        return _failure(entry, Rejected(reason=Reason.BAD_FEATURES, message=str(error), state=sampled.state))
    media = Media(
        id=entry.id,
        kind="video",
        sha256=sampled.sha256,
        size_bytes=sampled.state.size_bytes,
        mtime_ns=sampled.state.mtime_ns,
        label=entry.label,
        split=entry.split,
        group=entry.group,
        duration_seconds=sampled.duration_seconds,
        fps=sampled.fps,
        num_frames=sampled.num_frames,
        width=sampled.width,
        height=sampled.height,
    )
    return Item(
        media=media,
        clip_features=clip,
        clip_time_seconds=sampled.start_seconds,
        slowfast_features=slowfast,
        slowfast_logits=logits,
        slowfast_start_seconds=sampled.start_seconds[:1],
        slowfast_end_seconds=sampled.end_seconds[-1:],
    )


def _failure(entry: Entry, rejected: Rejected) -> Failure:
    text = visible(rejected.message)
    return Failure(
        id=entry.id,
        stage=STAGE_OF[rejected.reason],
        reason=rejected.reason.value,
        message=text.encode()[: schema.MAX_MESSAGE_BYTES].decode(errors="ignore"),
        size_bytes=rejected.state.size_bytes,
        mtime_ns=rejected.state.mtime_ns,
    )


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
