"""Videos of a set that the head was trained or chosen on: the same bytes, or a near-duplicate scene."""

from dataclasses import dataclass

import numpy as np

from haechi.cache.schema import UNLABELLED
from haechi.predict.evaluation.media import Media
from haechi.train.data.leaks import NEAR_DUPLICATE, SAME_BYTES, SEEN_BEFORE
from haechi.train.data.scenes import choose_similarity_threshold, sample_of
from haechi.train.data.similar import closest, unit_length
from haechi.train.training_set import KnownScenes, TrainingSet

# Parts of the split that a head was trained or chosen on.
SEEN_PARTS = SEEN_BEFORE["test"]


@dataclass(frozen=True, kw_only=True)
class OverlapPair:
    """A video of the set, and the video of the run that it is the same as."""

    id: str
    other_id: str
    other_part: str
    """`train` or `val`."""
    kind: str
    """`same bytes`, or `near-duplicate`."""
    similarity: float | None
    """Cosine of the two scene descriptors; None for the same bytes."""


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """The overlap of a set with the videos that a head was trained or chosen on."""

    pairs: list[OverlapPair]
    """One for each video of the set that overlaps, with the closest video of the run; labelled or not."""
    kept: bool
    """Whether these videos are evaluated nevertheless (`--keep-overlap`)."""
    num_test: int
    """Labelled videos of the set that are in the run's own test part (same bytes): then the two samples are not
    independent."""
    num_same_group: int
    """Labelled videos of the set whose group, by its name in the manifest, is also one of the run's videos that the
    head was trained or chosen on. They are not left out."""
    unchecked: str
    """Why scenes, or anything, could not be compared, in a sentence; empty: all was compared."""


def find_overlap(known: TrainingSet | None, media: Media, *, keep: bool) -> tuple[Overlap, np.ndarray]:
    """The overlap of n media with the videos of a run, and (n,) bool: whether each overlaps.

    `known` None: an older run that does not say which videos it was trained on.
    """
    if known is None:
        unchecked = (
            "the run was made by an older version and does not say which videos it was trained on, so that overlap "
            "could not be found; train it again"
        )
        none = Overlap(pairs=[], kept=keep, num_test=0, num_same_group=0, unchecked=unchecked)
        return none, np.zeros(len(media), bool)
    seen = np.flatnonzero(np.isin(known.parts.astype(str), SEEN_PARTS))
    other, similarity = _same_bytes(known, seen, media), np.full(len(media), np.nan)
    unchecked = ""
    if known.scenes is None:
        unchecked = "scenes were not compared, only files with the same bytes: the run was trained without scenes"
    elif media.means is None:
        unchecked = "scenes were not compared, only files with the same bytes (--no-scenes)"
    elif len(seen) and len(media):
        near, cosines = _near_duplicates(known.scenes, seen, media.means)
        is_new = (other < 0) & (near >= 0)
        other[is_new], similarity[is_new] = near[is_new], cosines[is_new]
    overlaps = other >= 0
    pairs = [
        OverlapPair(
            id=str(media.ids[row]),
            other_id=str(known.ids[other[row]]),
            other_part=str(known.parts[other[row]]),
            kind=SAME_BYTES if np.isnan(similarity[row]) else NEAR_DUPLICATE,
            similarity=None if np.isnan(similarity[row]) else float(similarity[row]),
        )
        for row in np.flatnonzero(overlaps).tolist()
    ]
    labelled = media.labels != UNLABELLED
    tested = set(known.sha256[known.parts == "test"].tolist())
    groups = set(known.groups[seen].tolist()) - {""}
    return (
        Overlap(
            pairs=pairs,
            kept=keep,
            num_test=sum(sha256 in tested for sha256 in media.sha256[labelled & ~overlaps].tolist()),
            num_same_group=sum(group in groups for group in media.groups[labelled & ~overlaps].tolist()),
            unchecked=unchecked,
        ),
        overlaps,
    )


def _same_bytes(known: TrainingSet, seen: np.ndarray, media: Media) -> np.ndarray:
    """(n,) int64: for each of n media the row of a video in `seen` whose file has the same bytes, or -1."""
    first: dict[str, int] = {}
    for row in seen.tolist():
        first.setdefault(known.sha256[row], row)
    return np.array([first.get(sha256, -1) for sha256 in media.sha256.tolist()], np.int64)


def _near_duplicates(known: KnownScenes, seen: np.ndarray, means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each of n media the row of the most similar video in `seen`, or -1 (n,); and the cosine of the two (n,)."""
    ours, theirs = known.space.describe(means), unit_length(known.descriptors[seen].astype(np.float32))
    cosines = ours[sample_of(len(ours))] @ theirs[sample_of(len(theirs))].T
    threshold, _ = choose_similarity_threshold(
        cosines.ravel(), known.space.own_similarity, num_videos=len(ours) + len(theirs)
    )
    near, similarity = closest(ours, theirs, max(threshold, known.similarity_threshold))
    return np.where(near >= 0, seen[near], -1), similarity
