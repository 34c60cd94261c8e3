"""Media files to rows: decoders, backbones, and one row for each file, with its features or the reason it failed."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from haechi.cache import schema
from haechi.cache.errors import FeatureError, HaechiError
from haechi.cache.progress import SILENT, Progress
from haechi.cache.schema import FRAME_STREAM, WINDOW_STREAM, Failure, Item, Media, to_store
from haechi.cache.stores.check import refuse_unusable_stores
from haechi.cache.stores.location import Location
from haechi.cache.text import visible
from haechi.extract.assembly import Assembly
from haechi.extract.backbones.batch_queue import BatchQueue
from haechi.extract.decoding.decode import DecodedFile
from haechi.extract.decoding.limits import Limits
from haechi.extract.decoding.pool import DecodedFrames, DecodePool
from haechi.extract.decoding.reasons import STAGES, Reason
from haechi.extract.decoding.supply import Rejected
from haechi.extract.manifest import Entry
from haechi.extract.settings import ExtractSettings
from haechi.extract.stores.fetcher import supply
from haechi.extract.timing import WAIT, Stopwatch

if TYPE_CHECKING:
    from haechi.extract.backbones.device import Compute
    from haechi.extract.backbones.pair import Backbones

# If this many videos in a row disappear during a run, their disk is probably gone.
MAX_VANISHED = 10

# Reasons that all files of a store have if it is out of reach or the credentials ran out.
OUT_OF_REACH = (Reason.FORBIDDEN, Reason.THROTTLED, Reason.FETCH_TIMEOUT, Reason.FETCH_FAILED)

OpenFlow = Callable[[ExtractSettings, int], AbstractContextManager["Flow"]]
"""As `open_flow`: the settings and the number of files are given."""


@contextmanager
def open_flow(
    settings: ExtractSettings,
    num_media: int,
    *,
    backbones: "Backbones | None" = None,
) -> Iterator["Flow"]:
    """Start the decoding processes for `num_media` files and load the models.

    `backbones` that were loaded before with the same settings are used again. Raises `SettingsError` for a device that
    does not exist, `WeightsError` for weights that cannot be loaded.
    """
    from haechi.extract.backbones.device import Compute  # loads torch: only if there is work to do

    compute = Compute.choose(settings)
    num_workers = max(1, min(compute.workers, num_media))
    pool = DecodePool(num_workers=num_workers, sampling=settings.sampler, limits=Limits.of(settings))
    with pool:  # its processes start while the models are loaded
        from haechi.extract.backbones.pair import Backbones

        backbones = backbones or Backbones(settings, compute)
        with compute.applied():
            yield Flow(pool, backbones, compute, settings)


class Flow:
    """Decoders and backbones, ready to work."""

    def __init__(self, pool: DecodePool, backbones: "Backbones", compute: "Compute", settings: ExtractSettings) -> None:
        self._pool, self._store, self._settings = pool, settings.store, settings
        self.traits: Counter[str] = Counter()
        """`haechi.extract.decoding.container.Trait` -> how many of the usable videos that were yielded have it."""
        self.num_saved: Counter[str] = Counter()
        """Stream -> frames or windows that were not computed, since the one before was identical."""
        self._reports_windows = settings.sampler.is_streamed and WINDOW_STREAM in settings.streams
        self.backbones, self.compute = backbones, compute

    def renewed(self) -> "Flow":
        """The same decoders and backbones for other files, with counts that begin at 0."""
        return Flow(self._pool, self.backbones, self.compute, self._settings)

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides a feature's value: the fingerprint is its hash."""
        return self.backbones.settings

    @property
    def num_workers(self) -> int:
        """Decoding processes."""
        return self._pool.num_workers

    def rows(
        self,
        entries: Sequence[Entry],
        watch: Stopwatch,
        *,
        progress: Progress = SILENT,
        readable: Collection[str] = frozenset(),
        answering: Mapping[str, Location] = MappingProxyType({}),
        stopping: Callable[[], bool] = lambda: False,
        on_idle: Callable[[], None] = lambda: None,
    ) -> Iterator[tuple[int, Item | Failure]]:
        """Yield (index into `entries`, row) once for each entry, in the order in which they finish.

        `watch` adds up the seconds of each step. `progress.notice` is called if batches do not fit into the device's
        memory, `progress.windows` only if SlowFast sees the windows of `windows` sampling. When `stopping` returns True
        no new video is started and the iterator ends early. `on_idle` is called from time to time while no video
        finishes. Raises `HaechiError` if `MAX_VANISHED` files in a row whose ids are in `readable` can no longer be
        read, or if as many cannot be fetched and their store cannot be used any more. `answering`: store -> a file
        in it that could be read when the run began.
        """
        known = dict(answering)
        queue, assembly = BatchQueue(self.backbones, progress=progress), Assembly(self.backbones.streams)
        vanished: list[tuple[int, Rejected]] = []  # they become failures when a later file shows that the disk is there

        def computed(
            finished: Iterable[tuple[tuple[int, int], dict[str, np.ndarray]]],
        ) -> Iterator[tuple[int, Item | Failure]]:
            for (index, attempt), features in finished:
                assembly.add(index, attempt, features)
                if self._reports_windows:
                    progress.windows(len(features[f"{WINDOW_STREAM}/features"]))
                yield from whole(index)

        def whole(index: int) -> Iterator[tuple[int, Item | Failure]]:
            if (found := assembly.whole(index)) is not None:
                sampled, features = found
                watch.add(sampled.seconds)
                row = _row(entries[index], sampled, features, self._store)
                if isinstance(row, Item):
                    self.traits.update(trait.value for trait in sampled.traits)
                yield index, row

        def failed(rejected: Iterable[tuple[int, Rejected]]) -> Iterator[tuple[int, Failure]]:
            for index, result in rejected:
                yield index, _failure(entries[index], result)

        for index, result in self._decoded(entries, watch, stopping, on_idle):
            path = entries[index].path
            if isinstance(path, Location) and not isinstance(result, Rejected):
                known[path.store] = path
            if isinstance(result, DecodedFrames):
                assembly.begin(index, result.attempt)
                yield from computed(queue.add((index, result.attempt), result.frames))
                continue
            queue.forget(index)
            if isinstance(result, Rejected):
                assembly.forget(index)
                if _vanished(entries[index], result, readable):
                    vanished.append((index, result))
                    if len(vanished) < MAX_VANISHED:
                        continue
                    _refuse_to_go_on([entries[lost] for lost, _ in vanished], result.message, entries, known)
                    yield from failed(vanished)
                    vanished.clear()
                    continue
            yield from failed(vanished)
            vanished.clear()
            if isinstance(result, Rejected):
                yield from failed([(index, result)])
            else:
                assembly.end(index, result)
                yield from whole(index)
        yield from failed(vanished)
        yield from computed(queue.drain())
        watch.add(queue.seconds)
        self.num_saved.update(queue.num_saved)

    def _decoded(
        self, entries: Sequence[Entry], watch: Stopwatch, stopping: Callable[[], bool], on_idle: Callable[[], None]
    ) -> Iterator[tuple[int, DecodedFrames | DecodedFile | Rejected]]:
        """What the pool yields; `watch` adds up the seconds in which the backbones waited for it."""
        with supply([entry.path for entry in entries], self._settings) as files:
            results = self._pool.run(files, self.backbones.outputs, stopping=stopping, on_idle=on_idle)
            while True:
                with watch.time(WAIT):
                    found = next(results, None)
                if found is None:
                    return
                yield found


def _vanished(entry: Entry, rejected: Rejected, readable: Collection[str]) -> bool:
    """Whether a file could be read when the run began and cannot be read now, or its store may be out of reach."""
    if isinstance(entry.file, Location):
        return rejected.reason in OUT_OF_REACH
    return rejected.reason in (Reason.MISSING, Reason.UNREADABLE) and entry.id in readable


def _refuse_to_go_on(
    vanished: Sequence[Entry], message: str, entries: Sequence[Entry], readable: Mapping[str, Location]
) -> None:
    """Raise `HaechiError` if the last files in a row vanished because their disk or their stores are out of reach.

    `entries` are all of the run, `readable` as for `refuse_unusable_stores`.
    """
    if not any(isinstance(entry.file, Location) for entry in vanished):
        raise HaechiError(
            f"{vanished[-1].file}: cannot be read any more ({message}), and neither can the "
            f"{len(vanished) - 1} files before it, which were there when this run began; is their disk "
            "or network folder still connected? Finished videos are kept: run the same command again "
            "when the files are back"
        )
    try:
        stores = {entry.file.store for entry in vanished if isinstance(entry.file, Location)}
        others = (entry.file for entry in entries if isinstance(entry.file, Location) and entry.file.store in stores)
        refuse_unusable_stores(others, readable=readable)
    except HaechiError as error:
        raise HaechiError(
            f"{error}. {len(vanished)} files in a row could not be fetched. Finished videos are kept: run the same "
            "command again to continue"
        ) from error


def _row(entry: Entry, sampled: DecodedFile, features: dict[str, np.ndarray], store: str) -> Item | Failure:
    """An item; a failure if its features must not be stored."""
    try:
        stored = {name: to_store(values, store=store, what=f"/{name}") for name, values in features.items()}
    except FeatureError as error:
        return _failure(entry, Rejected(reason=Reason.BAD_FEATURES, message=str(error), state=sampled.state))
    media = Media(
        id=entry.id,
        kind=sampled.kind,
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
        etag=sampled.state.etag,
    )
    return Item(
        media=media,
        arrays={
            **_without_model(sampled, store),
            **stored,
            f"{FRAME_STREAM}/time_seconds": sampled.clip_seconds.astype(np.float32),
            f"{WINDOW_STREAM}/start_seconds": sampled.window_start_seconds.astype(np.float32),
            f"{WINDOW_STREAM}/end_seconds": sampled.window_end_seconds.astype(np.float32),
        },
    )


def _without_model(sampled: DecodedFile, store: str) -> dict[str, np.ndarray]:
    """Dataset -> rows of width 0, as they are in a stream without a network."""
    num_rows = {FRAME_STREAM: len(sampled.clip_seconds), WINDOW_STREAM: len(sampled.window_start_seconds)}
    return {
        f"{stream}/{name}": np.empty((num_rows[stream], 0), store)
        for stream, arrays in schema.STREAMS.items()
        for name, num_axes in arrays.items()
        if num_axes == 2
    }


def _failure(entry: Entry, rejected: Rejected) -> Failure:
    text = visible(rejected.message)
    return Failure(
        id=entry.id,
        stage=STAGES[rejected.reason],
        reason=rejected.reason.value,
        message=text.encode()[: schema.MAX_MESSAGE_BYTES].decode(errors="ignore"),
        size_bytes=rejected.state.size_bytes,
        mtime_ns=rejected.state.mtime_ns,
        etag=rejected.state.etag,
    )
