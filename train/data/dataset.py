"""Cache to dataset: every labelled video of a cache, its features in memory or streamed."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from haechi.cache.kinds import KINDS
from haechi.cache.reader import Cache
from haechi.cache.schema import UNLABELLED
from haechi.device import find_device
from haechi.train.data.features import FRAME_STREAM, Features
from haechi.train.data.relabel import NewLabels
from haechi.train.data.stream import Stream
from haechi.train.device import features_limit
from haechi.train.errors import TrainError
from haechi.train.settings import TrainSettings

WINDOW_STREAMS = {"pooled": "slowfast/features", "logits": "slowfast/logits"}


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """The N labelled videos of a cache, or its N labelled images."""

    cache: Cache
    ids: np.ndarray
    """(N,) str"""
    labels: np.ndarray
    """(N,) int8: 1 harmful, 0 safe."""
    splits: np.ndarray
    """(N,) str as the manifest, or the file of new labels, gave them: train, val, test, or empty."""
    groups: np.ndarray
    """(N,) str; empty: no group."""
    sha256: np.ndarray
    """(N,) str: of each video's file."""
    durations_seconds: np.ndarray
    """(N,) float64"""
    sizes: np.ndarray
    """(N, 2) int: width and height in pixels."""
    videos: np.ndarray
    """(N,) int64: ascending indices into the cache's media."""
    features: Features | Stream
    streams: dict[str, int]
    """Arrays of the cache that the head sees, and their widths, in the order in which they are joined."""
    num_thinned: int
    """Videos of more than `max_rows` rows."""
    num_unlabelled: int
    """Videos that were left out because nothing labels them."""
    num_other_kind: int
    """Labelled media that were left out because they are of the other kind."""
    new_labels: NewLabels | None
    """The file whose labels, splits and groups stand here in place of the cache's, if any."""


def stream_names(settings: TrainSettings) -> list[str]:
    """The cache's arrays that these settings use, in the order in which they are joined."""
    names = [FRAME_STREAM] if settings.clip else []
    return names + ([WINDOW_STREAMS[settings.slowfast]] if settings.slowfast != "none" else [])


def seen_of(settings: TrainSettings) -> tuple[Any, ...]:
    """What decides which dataset `load_dataset` gives: settings of which it is equal share one."""
    return settings.media, settings.max_rows, *stream_names(settings)


def open_features(cache: Cache, videos: np.ndarray, settings: TrainSettings) -> tuple[Stream, dict[str, int]]:
    """What these settings see of `videos`, (N,) ascending int64 indices into the cache's media, and `Dataset.streams`.

    Reads no features yet.
    """
    widths, in_cache = {}, {}
    for name in stream_names(settings):
        stream, _, array = name.partition("/")
        widths[name] = int(cache.settings[stream]["widths"][array])
        in_cache[name] = np.diff(cache.offset(stream))[videos]
    row_width, *constant_width = widths.values()
    ids = cache.media["id"][videos]
    features = Stream(
        cache=cache,
        ids=ids,
        videos=videos,
        in_cache=in_cache,
        max_rows=settings.max_rows,
        widths=(row_width, sum(constant_width)),
    )
    return features, widths


def load_dataset(
    cache: Cache, settings: TrainSettings, *, new_labels: NewLabels | None = None, memory_bytes: int | None = None
) -> Dataset:
    """Read a cache's labelled media of the kind that the settings say, labelled by the cache itself or by `new_labels`.

    Features that would take more than `memory_bytes` (None: `features_limit`) are streamed from the cache while the
    head trains; the results are the same to the last bit.

    Raises `TrainError` where none is labelled, or where one lacks what the settings ask for.
    """
    media = cache.media if new_labels is None else cache.media | new_labels.media
    known = np.ones(len(media["id"]), dtype=bool) if new_labels is None else new_labels.is_named
    of_kind = media["kind"] == settings.media
    has_label = media["label"] != UNLABELLED
    labelled = of_kind & has_label
    if not labelled.any():
        other = f" (--media trains on one of {', '.join(KINDS)})" if has_label.any() else ""
        raise TrainError(
            f"{cache.path}: none of its {int(of_kind.sum())} {settings.media}s is labelled{other}; give the manifest a "
            "`label` column and run extract again on the same cache (features are kept), or say --labels FILE"
        )
    videos, ids = np.flatnonzero(labelled), media["id"][labelled]
    features, widths = open_features(cache, videos, settings)
    limit = features_limit(find_device(settings.device)) if memory_bytes is None else memory_bytes
    return Dataset(
        cache=cache,
        ids=ids,
        labels=media["label"][labelled],
        splits=media["split"][labelled],
        groups=media["group"][labelled],
        sha256=media["sha256"][labelled],
        durations_seconds=media["duration_seconds"][labelled].astype(np.float64),
        sizes=np.stack([media["width"][labelled], media["height"][labelled]], axis=1),
        videos=videos,
        features=features if features.num_bytes > limit else features.load(),
        streams=widths,
        num_thinned=int((next(iter(features.in_cache.values())) > settings.max_rows).sum()),
        num_unlabelled=int((known & of_kind & ~has_label).sum()),
        num_other_kind=int((has_label & ~of_kind).sum()),
        new_labels=new_labels,
    )
