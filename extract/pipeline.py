"""Stage 1: extracts what the manifest asks for and the cache does not hold yet, and writes it as shards."""

import contextlib
import importlib.metadata
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haechi.cache.lock import locked
from haechi.cache.progress import SILENT, Progress
from haechi.cache.reader import Cache
from haechi.cache.schema import STREAMS, Provenance
from haechi.cache.slices import Slice
from haechi.cache.stores.check import refuse_unusable_stores
from haechi.cache.text import counted, one_or_more
from haechi.cache.writer import remove_leftovers, rewrite_media
from haechi.extract import resume
from haechi.extract.decoding.decode import decoders
from haechi.extract.decoding.reasons import DEFECT, parse_reasons
from haechi.extract.flow import Flow, OpenFlow, open_flow
from haechi.extract.interrupt import Interrupt, InterruptedRunError
from haechi.extract.manifest import Manifest
from haechi.extract.settings import ExtractSettings
from haechi.extract.shard_queue import ShardQueue, WriteError, next_number, version_of
from haechi.extract.timing import Stopwatch

PACKAGES = ("torch", "decord", "av", "open_clip_torch", "pytorchvideo", "pillow", "h5py", "numpy")


@dataclass(frozen=True, kw_only=True)
class DeviceWork:
    """What one device of a run did."""

    name: str
    """Such as `cuda:1`, `cpu (2)`, or `node-3 cuda:1` on a cluster."""
    num_slices: int
    num_rows: int
    """Rows that it extracted."""
    seconds: float
    """In which it worked on slices, the loading of models included."""


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """What a run did. `num_used + num_failed == num_rows`, always."""

    cache: Path
    """Its folder; for a cache in an object store, the folder on this machine where it was built."""
    fingerprint: str
    untrained: list[str]
    """Backbones with random weights, such as `["clip", "slowfast"]`."""
    num_rows: int
    """Rows of the manifest."""
    num_used: int
    failures: dict[str, int]
    """Reason -> number of rows of the manifest that failed with it."""
    num_defects: int
    """How many of the failures are due to an error in Haechi's own code; their messages say so."""
    traits: dict[str, int]
    """`haechi.extract.decoding.container.Trait` -> how many of the new videos have it."""
    num_new: int
    """Rows that this run extracted; the others were in the cache already."""
    num_saved: dict[str, int]
    """Stream -> frames or windows of the new rows that were not computed, since the one before was identical."""
    num_changed: int
    """How many of the new rows are files that changed since an earlier extraction."""
    num_relabelled: int
    """Videos in the cache whose label, split or group was updated."""
    num_not_listed: int
    """Videos in the cache that are not in the manifest; they are kept."""
    device: str
    """Such as `cpu` or `cuda (NVIDIA H100)`; empty if no model was loaded."""
    precision: str
    """`fp32`, `bf16` or `fp16`; empty if no model was loaded."""
    decoders: list[str]
    """The decoders that are used on this machine: `["decord", "PyAV"]` or `["PyAV"]`."""
    workers: int
    """Decoding processes that were started."""
    seconds: float
    """Duration of the whole run."""
    work_seconds: float
    """From the first video handed to a decoder until the last shard is on disk; with several devices, their sum."""
    steps: dict[str, float]
    """Seconds by step (`haechi.extract.timing`) of the videos that could be used. Steps run in parallel."""
    slice: Slice | None = None
    """The slice that the run was for: rows, used and failed are its own. None: the whole manifest."""
    has_committed: bool = False
    """Whether this run committed the slice. If not, it was committed before, or by another run meanwhile."""
    location: str = ""
    """Where in an object store the cache is; empty for one in a folder."""
    devices: tuple[DeviceWork, ...] = ()
    """What each device did, if the run was shared out between devices."""

    @property
    def name(self) -> str:
        """What the user calls the cache."""
        return self.location or str(self.cache)

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
    retry: str | Iterable[str] = (),
    progress: Progress = SILENT,
    agree: Callable[[dict[str, Any]], None] = lambda _: None,
    opened: OpenFlow | None = None,
    interrupt: Interrupt | None = None,
) -> Extraction:
    """Extract all entries of the manifest that the cache `out` does not hold yet, and update labels, splits and groups.

    `producer` is recorded in each shard. Failures whose reason is in `retry` are tried again. `agree` is called with
    the settings that decide a feature's value before the first video is decoded, and may raise. `opened` and
    `interrupt` take the place of `open_flow`, and of Ctrl-C and SIGTERM.

    Raises `SettingsError` for unknown reasons and devices, `SettingsConflictError` for settings that differ from those
    of the cache, `WeightsError` for weights that cannot be loaded, `InterruptedRunError` for Ctrl-C, and `HaechiError`
    if `out` is not a cache, if another run is writing to it, if a store cannot be used, or if the files of many entries
    in a row disappear.
    """
    started = time.monotonic()
    reasons = parse_reasons(one_or_more(retry))
    resume.refuse_strangers(out)
    out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        resume.refuse_unfinished_slices(out)
        remove_leftovers(out)
        existing = resume.open_existing(out)
        if existing is not None:
            settings = resume.continued(settings, existing)
            resume.refuse_other_request(settings, existing)
        refuse_unusable_stores(entry.file for entry in manifest.entries)
        remaining = resume.remaining(manifest, existing, retry=reasons)
        flow, watch, work_seconds = None, Stopwatch(), 0.0
        with contextlib.ExitStack() as stack:
            # left last: it still listens while processes stop
            interrupt = stack.enter_context(interrupt or Interrupt(progress))
            if remaining.entries:
                flow = stack.enter_context((opened or open_flow)(settings, len(remaining.entries)))
                agree(flow.settings)
                if existing is not None:
                    resume.refuse_other_settings(flow.settings, existing)
            num_relabelled = _update_media(manifest, existing, remaining.touched) if existing else 0
            if flow is not None:
                compute = flow.compute
                progress.start(len(remaining.entries), f"extract on {compute.name}, {compute.precision}")
                provenance = Provenance(
                    settings=flow.settings,
                    weights=settings.weights,
                    device=compute.name,
                    precision=compute.precision,
                    producer=producer,
                    versions=versions(),
                )
                ready = time.monotonic()
                number, num_rows = next_number(existing), len(remaining.entries)
                interrupt.listen()
                version = version_of(existing)
                with ShardQueue(out, number, num_rows, settings, provenance, progress, version=version) as queue:
                    _run(flow, remaining, queue, watch, interrupt, progress)
                work_seconds = time.monotonic() - ready
        is_unchanged = flow is None and not num_relabelled and not remaining.touched
        cache = existing if existing is not None and is_unchanged else Cache.open(out)
    failed = {failure.id: failure for failure in cache.failures}
    listed = [failed[entry.id] for entry in manifest.entries if entry.id in failed]
    failures = Counter(failure.reason for failure in listed)
    used = set(cache.columns("id")[0].tolist())
    return Extraction(
        cache=out,
        fingerprint=cache.fingerprint,
        untrained=cache.untrained,
        num_rows=len(manifest.entries),
        num_used=sum(entry.id in used for entry in manifest.entries),
        failures=dict(sorted(failures.items())),
        num_defects=sum(failure.message.startswith(DEFECT) for failure in listed),
        traits=dict(sorted(flow.traits.items())) if flow else {},
        num_new=len(remaining.entries),
        num_saved={stream: flow.num_saved[stream] if flow else 0 for stream in STREAMS},
        num_changed=remaining.num_changed,
        num_relabelled=num_relabelled,
        num_not_listed=remaining.num_not_listed,
        device=flow.compute.name if flow else "",
        precision=flow.compute.precision if flow else "",
        decoders=decoders(),
        workers=flow.num_workers if flow else 0,
        seconds=time.monotonic() - started,
        work_seconds=work_seconds,
        steps=watch.seconds,
    )


def _run(
    flow: Flow,
    remaining: resume.Remaining,
    queue: ShardQueue,
    watch: Stopwatch,
    interrupt: Interrupt,
    progress: Progress,
) -> None:
    """Extract every remaining entry into `queue`. Raises `InterruptedRunError` after Ctrl-C."""
    try:
        rows = flow.rows(
            remaining.entries,
            watch,
            progress=progress,
            readable=remaining.readable,
            answering=remaining.answering,
            stopping=interrupt.poll,
            on_idle=queue.write_if_due,
        )
        for index, row in rows:
            queue.add(index, row)
        queue.finish()
    except BaseException:
        with contextlib.suppress(WriteError):  # the first error is the one to raise
            queue.finish()
        raise
    if interrupt.is_stopping:
        rows_of_run = counted(len(remaining.entries), "row")
        raise InterruptedRunError(
            f"interrupted: {queue.num_written} of {rows_of_run} of this run are safe in the cache; "
            "run the same command again to continue"
        )
    watch.add(queue.seconds)


def _update_media(manifest: Manifest, cache: Cache, touched: Mapping[str, int]) -> int:
    """Write the manifest's labels, splits and groups, and the modification times `touched` (id -> ns), into the cache.

    Features do not change, and shards in which nothing changes are not written. Returns the number of relabelled
    videos.
    """
    wanted = {entry.id: (entry.label, entry.split, entry.group) for entry in manifest.entries}
    names = ("id", "label", "split", "group", "mtime_ns")
    relabelled: set[str] = set()
    for i, shard in enumerate(cache.shards):
        columns = dict(zip(names, (c.tolist() for c in shard.read(*(f"media/{name}" for name in names))), strict=True))
        ids = columns["id"]
        old_labels = list(zip(columns["label"], columns["split"], columns["group"], strict=True))
        labels = [wanted.get(id, old) for id, old in zip(ids, old_labels, strict=True)]
        changed = {id for id, old, new in zip(ids, old_labels, labels, strict=True) if old != new}
        # A row that a later shard supersedes describes an older file: its time must stay different from the new file's.
        is_live = cache.live[i]["media"].tolist()
        times = [
            touched.get(id, old) if live else old
            for id, old, live in zip(ids, columns["mtime_ns"], is_live, strict=True)
        ]
        if changed or times != columns["mtime_ns"]:
            label, split, group = zip(*labels, strict=True)
            rewrite_media(shard.path, {"label": label, "split": split, "group": group, "mtime_ns": times})
        relabelled |= changed
    return len(relabelled)


def versions() -> dict[str, str]:
    """The versions of those `PACKAGES` that are installed; of decord only if it is used."""
    found = {}
    for name in PACKAGES:
        if name == "decord" and name not in decoders():
            continue
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
