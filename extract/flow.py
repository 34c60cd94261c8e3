"""Media to rows: decoders, backbones, and a row a file that says what it is or why it cannot be used."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from haechi.cache import schema
from haechi.cache.errors import FeatureError, HaechiError
from haechi.cache.progress import Progress
from haechi.cache.schema import FRAME_STREAM, WINDOW_STREAM, Failure, Item, Media, to_store
from haechi.cache.text import visible
from haechi.extract.assembly import Assembly
from haechi.extract.backbones.batch_queue import BatchQueue
from haechi.extract.decoding.decode import Sampled
from haechi.extract.decoding.limits import Limits
from haechi.extract.decoding.pool import DecodePool, Piece, Rejected
from haechi.extract.decoding.reasons import STAGE_OF, Reason
from haechi.extract.manifest import Entry
from haechi.extract.settings import ExtractSettings
from haechi.extract.timing import WAIT, Stopwatch

if TYPE_CHECKING:
    from haechi.extract.backbones.device import Compute
    from haechi.extract.backbones.pair import Backbones

# Videos in a row that were there and are gone: more likely their disk than they.
MAX_VANISHED = 10


@contextmanager
def opened(
    settings: ExtractSettings,
    num_videos: int,
    *,
    backbones: "Backbones | None" = None,
    on_notice: Callable[[str], None] = lambda text: None,
) -> Iterator["Flow"]:
    """Start the decoding processes and load the models, unless they are given, loaded before with the same settings.

    `on_notice` hears what a user should know.

    Raises `SettingsError` for a device that is not there, `WeightsError` for weights that are not to be had.
    """
    from haechi.extract.backbones.device import Compute  # torch and the models: only where there is work for them

    compute = Compute.choose(settings)
    pool = DecodePool(
        num_workers=min(compute.workers, num_videos), sampling=settings.sampler, limits=Limits.of(settings)
    )
    with pool:  # its processes start while the models are loaded
        from haechi.extract.backbones.pair import Backbones

        backbones = backbones or Backbones(settings, compute)
        with compute.applied():
            yield Flow(pool, backbones, compute, store=settings.store, progress=_Notices(on_notice))


class _Notices(Progress):
    """Hands notices to a function."""

    def __init__(self, on_notice: Callable[[str], None]) -> None:
        self._on_notice = on_notice

    def notice(self, text: str) -> None:
        self._on_notice(text)


class Flow:
    """Decoders and backbones, ready to work."""

    def __init__(
        self, pool: DecodePool, backbones: "Backbones", compute: "Compute", *, store: str, progress: Progress
    ) -> None:
        self._pool, self._store, self._progress = pool, store, progress
        self.backbones, self.compute = backbones, compute

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides a feature's value: what the fingerprint hashes."""
        return self.backbones.settings

    def rows(
        self,
        entries: Sequence[Entry],
        watch: Stopwatch,
        *,
        readable: Collection[str] = frozenset(),
        stopping: Callable[[], bool] = lambda: False,
        on_idle: Callable[[], None] = lambda: None,
        on_windows: Callable[[int], None] = lambda num_windows: None,
    ) -> Iterator[tuple[int, Item | Failure]]:
        """Yield (index into `entries`, row) of every entry once, in no order; `watch` adds up what each step takes.

        Ends early, what is begun being finished, once `stopping` says so. `on_idle` is called now and then while
        nothing finishes, `on_windows` of windows that the backbones have done: a long video is one row for long. Raises
        `HaechiError` where files of the ids in `readable` vanish one after another.
        """
        queue, assembly = BatchQueue(self.backbones, progress=self._progress), Assembly()
        vanished: list[tuple[int, Rejected]] = []  # no failures before it is clear that their disk is there

        def computed(
            finished: Iterable[tuple[tuple[int, int], dict[str, np.ndarray]]],
        ) -> Iterator[tuple[int, Item | Failure]]:
            for (index, attempt), features in finished:
                assembly.add(index, attempt, features)
                on_windows(len(features[f"{WINDOW_STREAM}/features"]))
                yield from whole(index)

        def whole(index: int) -> Iterator[tuple[int, Item | Failure]]:
            if (found := assembly.whole(index)) is not None:
                sampled, features = found
                watch.add(sampled.seconds)
                yield index, _row(entries[index], sampled, features, self._store)

        def failed(rejected: Iterable[tuple[int, Rejected]]) -> Iterator[tuple[int, Failure]]:
            for index, result in rejected:
                yield index, _failure(entries[index], result)

        for index, result in self._decoded(entries, watch, stopping, on_idle):
            if isinstance(result, Piece):
                assembly.begin(index, result.attempt)
                yield from computed(queue.add((index, result.attempt), result.frames))
                continue
            if isinstance(result, Rejected):
                assembly.forget(index)
                if _vanished(entries[index], result, readable):
                    vanished.append((index, result))
                    if len(vanished) == MAX_VANISHED:
                        raise HaechiError(
                            f"{entries[index].path}: cannot be reached any more, nor can the {len(vanished) - 1} "
                            "before it, which were there when this run began "
                            f"({result.message}); did their disk or network folder go? What is finished is kept: run "
                            "the same command again when they are back"
                        )
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

    def _decoded(
        self, entries: Sequence[Entry], watch: Stopwatch, stopping: Callable[[], bool], on_idle: Callable[[], None]
    ) -> Iterator[tuple[int, Piece | Sampled | Rejected]]:
        """What the pool yields; `watch` adds up how long it kept the backbones waiting."""
        paths = [entry.path for entry in entries]
        results = self._pool.run(paths, self.backbones.outputs, stopping=stopping, on_idle=on_idle)
        while True:
            with watch.time(WAIT):
                found = next(results, None)
            if found is None:
                return
            yield found


def _vanished(entry: Entry, rejected: Rejected, readable: Collection[str]) -> bool:
    """Whether a file was there when the run began and cannot be reached now."""
    return rejected.reason in (Reason.MISSING, Reason.UNREADABLE) and entry.id in readable


def _row(entry: Entry, sampled: Sampled, features: dict[str, np.ndarray], store: str) -> Item | Failure:
    """An item, or a failure where the features are not fit to be stored."""
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
    )
    return Item(
        media=media,
        arrays={
            **stored,
            f"{FRAME_STREAM}/time_seconds": sampled.clip_seconds.astype(np.float32),
            f"{WINDOW_STREAM}/start_seconds": sampled.window_start_seconds.astype(np.float32),
            f"{WINDOW_STREAM}/end_seconds": sampled.window_end_seconds.astype(np.float32),
        },
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
