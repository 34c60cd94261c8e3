"""Cache to dataset: the labelled videos or images of a cache, with their features in memory or streamed."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from haechi.cache.groups import GroupRule, group_clashes
from haechi.cache.kinds import KINDS
from haechi.cache.reader import Cache
from haechi.cache.schema import UNLABELLED
from haechi.cache.text import bullet_list, counted, shown
from haechi.device import find_device
from haechi.train.data.features import CLIP_FEATURES, Features
from haechi.train.data.relabel import NewLabels
from haechi.train.data.sample import draw_sample
from haechi.train.data.stream import Stream
from haechi.train.device import features_limit
from haechi.train.errors import TrainError
from haechi.train.settings import TrainSettings
from haechi.train.untrained import seen_by_head

SLOWFAST_ARRAYS = {"pooled": "slowfast/features", "logits": "slowfast/logits"}


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """The N labelled videos of a cache, or its N labelled images."""

    cache: Cache
    ids: np.ndarray
    """(N,) str"""
    labels: np.ndarray
    """(N,) int8: 1 harmful, 0 safe."""
    splits: np.ndarray
    """(N,) str from the manifest or the file of new labels: train, val, test, or empty."""
    groups: np.ndarray
    """(N,) str from the manifest, the file of new labels or `group_by`; empty: no group."""
    sha256: np.ndarray
    """(N,) str: the hash of each video's file."""
    durations_seconds: np.ndarray
    """(N,) float64"""
    sizes: np.ndarray
    """(N, 2) int: width and height in pixels."""
    videos: np.ndarray
    """(N,) int64: ascending indices into the cache's media."""
    features: Features | Stream
    streams: dict[str, int]
    """Arrays of the cache that the head sees -> their widths, in the order in which they are joined."""
    num_thinned: int
    """Number of videos with more than `max_rows` rows."""
    num_unlabelled: int
    """Number of videos left out because they have no label."""
    num_other_kind: int
    """Number of labelled media left out because they are of the other kind."""
    num_not_sampled: int
    """Number of labelled videos left out because only a sample is used."""
    new_labels: NewLabels | None
    """The file whose labels, splits and groups replace the cache's, if any."""

    @property
    def untrained(self) -> list[str]:
        """The backbones with random weights whose features the head sees, such as `["slowfast"]`."""
        return seen_by_head(self.cache.untrained, self.streams)


def stream_names(settings: TrainSettings) -> list[str]:
    """The cache's arrays that these settings use, in the order in which they are joined."""
    names = [CLIP_FEATURES] if settings.clip else []
    return names + ([SLOWFAST_ARRAYS[settings.slowfast]] if settings.slowfast != "none" else [])


def input_key(settings: TrainSettings) -> tuple[Any, ...]:
    """The settings that `load_dataset` depends on: trainings with equal keys can share a dataset."""
    return *video_key(settings), settings.max_rows, *stream_names(settings)


def video_key(settings: TrainSettings) -> tuple[Any, ...]:
    """The settings that decide which videos a dataset has, and their groups in the manifest."""
    sample = (settings.sample, settings.seed) if settings.sample else None
    return settings.media, settings.group_by, sample


def open_features(cache: Cache, videos: np.ndarray, settings: TrainSettings) -> tuple[Stream, dict[str, int]]:
    """The features that these settings use, not yet read, and their widths as in `Dataset.streams`.

    `videos` are (N,) ascending int64 indices into the cache's media.
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
    """Read the labelled media of the kind `settings.media`, with the labels of the cache or of `new_labels`.

    Features that would take more than `memory_bytes` (None: `features_limit`) are streamed from the cache while the
    head trains; the results are the same to the last bit.

    Raises `TrainError` if none is labelled, if one has no frames or windows that the settings use, or if `group_by` and
    the file of new labels disagree about groups; `SettingsError` if `group_by` matches no id.
    """
    media = cache.media if new_labels is None else cache.media | new_labels.media
    known = np.ones(len(media["id"]), dtype=bool) if new_labels is None else new_labels.is_used
    is_kind = media["kind"] == settings.media
    has_label = media["label"] != UNLABELLED
    labelled = is_kind & has_label
    if not labelled.any():
        other = f" (choose the kind with --media: {' or '.join(KINDS)})" if has_label.any() else ""
        raise TrainError(
            f"{cache.name}: none of its {counted(int(is_kind.sum()), settings.media)} is labelled{other}; add a "
            "`label` column to the manifest and run extract again on the same cache (features are kept), or use "
            "--labels FILE"
        )
    groups = media["group"][labelled]
    if settings.group_by:
        groups = _ruled_groups(settings.group_by, media["id"][labelled], groups, new_labels)
    num_labelled, videos = int(labelled.sum()), np.flatnonzero(labelled)
    if settings.sample:
        drawn = draw_sample(media["label"][videos], groups, settings.sample, seed=settings.seed)
        videos, groups = videos[drawn], groups[drawn]
        labelled = np.zeros(len(labelled), bool)
        labelled[videos] = True
    ids = media["id"][labelled]
    features, widths = open_features(cache, videos, settings)
    limit = features_limit(find_device(settings.device)) if memory_bytes is None else memory_bytes
    return Dataset(
        cache=cache,
        ids=ids,
        labels=media["label"][labelled],
        splits=media["split"][labelled],
        groups=groups,
        sha256=media["sha256"][labelled],
        durations_seconds=media["duration_seconds"][labelled].astype(np.float64),
        sizes=np.stack([media["width"][labelled], media["height"][labelled]], axis=1),
        videos=videos,
        features=features if features.num_bytes > limit else features.load(),
        streams=widths,
        num_thinned=int((next(iter(features.in_cache.values())) > settings.max_rows).sum()),
        num_unlabelled=int((known & is_kind & ~has_label).sum()),
        num_other_kind=int((has_label & ~is_kind).sum()),
        num_not_sampled=num_labelled - len(videos),
        new_labels=new_labels,
    )


def _ruled_groups(pattern: str, ids: np.ndarray, given: np.ndarray, new_labels: NewLabels | None) -> np.ndarray:
    """(N,) str: the groups that a regular expression finds in the ids (N,), instead of those of the cache.

    `given` (N,) are the groups of the cache, or of the file of new labels if that has any: these stay where the
    expression finds nothing.
    """
    ruled = np.array(GroupRule.parse(pattern).groups(ids.tolist()), dtype=given.dtype)
    if new_labels is None or "group" not in new_labels.replaced:
        return ruled
    places = [f"id {shown(id)}" for id in ids.tolist()]
    if clashes := group_clashes(zip(places, given.tolist(), ruled.tolist(), strict=True)):
        raise TrainError(f"{shown(new_labels.file)} and group_by give different groups:\n{bullet_list(clashes)}")
    return np.where(ruled != "", ruled, given)
