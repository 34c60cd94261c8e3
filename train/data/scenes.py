"""Groups of videos that show the same scene, found in the cached CLIP features with a threshold chosen from the data.

The frames of one video show one scene, which is supervision without labels. What varies within videos (people who move,
noise) is scaled down before videos are compared, so that the place and the camera count most: within-class covariance
normalisation (Hatch, Kajarekar, Stolcke, "Within-Class Covariance Normalization for SVM-based Speaker Recognition",
Interspeech 2006) with each video as a class. It also works for random weights, whose raw features are all very similar.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.cluster.hierarchy import DisjointSet
from scipy.sparse import coo_array
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.stats import median_abs_deviation, norm

from haechi.cache.reader import Cache
from haechi.cache.text import bullet_list
from haechi.train.data.similar import similar_pairs, unit_length
from haechi.train.errors import TrainError

# The most videos, evenly spaced, that the scatter within videos and the threshold are estimated from: 2 million pairs.
SAMPLE_VIDEOS = 2000

# The most rows, in the middle of a video, that count as one scene when scatter is estimated: two hours are no scene.
STRETCH_ROWS = 32

# The share of the mean variance within videos that is added to the variance of each direction, since with few frames
# some directions have none. Ledoit and Wolf's estimate is 0.015 on 91 real clips; 0.003 to 0.1 give the same scenes.
SHRINKAGE = 0.01

# The probability that any two unrelated videos of the whole dataset are linked: the usual 5 %.
ERROR = 0.05

# The cosine of 45 degrees: halfway between the same picture (0 degrees) and unrelated ones (90 degrees). Copies of 16
# clips, encoded again with CRF 40 at a width of 160 pixels and added to 91 clips, reach 0.71 to 0.98.
HALFWAY = 0.5**0.5

# The quantile at which the upper tail of pairs is measured: above most unrelated pairs of two kinds, and below most of
# one kind, where there are up to 20 kinds.
UPPER = 0.95

# Limits on memory: rows of features read at once, videos described at once, links before pruning.
READ_ROWS = 1 << 16
SMALL_VIDEOS = 16  # whose frames fit into the processor's cache as float32
DESCRIBED_VIDEOS = 1 << 16
MOST_LINKS = 1 << 20


@dataclass(frozen=True, kw_only=True)
class SceneSpace:
    """How the mean frame of a video becomes its descriptor; estimated from one set of videos, applicable to others."""

    centre: np.ndarray
    """(D,) float32: the mean over the videos."""
    whitening: np.ndarray
    """(D, D) float32: after it, features vary equally in all directions within videos."""
    own_similarity: float
    """Median cosine of the first and last frame of the same video; 0 if no video has two frames."""

    def describe(self, means: np.ndarray, *, centre: np.ndarray | None = None) -> np.ndarray:
        """Descriptors (M, D) float32 of unit length of videos whose mean frames are `means` (M, D) float32.

        `centre` (D,): of these videos, if they are compared with each other; None: that of the space.
        """
        descriptors = np.empty_like(means)
        for start in range(0, len(means), DESCRIBED_VIDEOS):
            part = slice(start, start + DESCRIBED_VIDEOS)
            centred = means[part] - (self.centre if centre is None else centre)
            descriptors[part] = unit_length(centred @ self.whitening)
        return descriptors


@dataclass(frozen=True, kw_only=True)
class Scenes:
    """The scenes of N videos."""

    scene: np.ndarray
    """(N,) int64: each video's scene, numbered from 0 by the first video. A single video can be a scene."""
    similarity_threshold: float
    """Two videos whose descriptors have at least this cosine are the same scene."""
    chance_similarity: float
    """The probability that any unrelated pair of the dataset reaches this cosine is `ERROR`."""
    space: SceneSpace | None
    """How the descriptors were made; None: files were compared by their bytes alone."""
    pairs: np.ndarray
    """(L, 2) int64: the links that make the scenes, the smaller index first. A scene of n videos has n - 1 links."""
    pair_similarity: np.ndarray
    """(L,) float32: the cosine of each link."""
    descriptors: np.ndarray
    """(N, D) float32 of unit length: the vectors that are compared."""

    @property
    def own_similarity(self) -> float:
        """That of the space; 0 if files were compared by their bytes alone."""
        return self.space.own_similarity if self.space else 0.0


def find_scenes(cache: Cache, videos: np.ndarray) -> Scenes:
    """Find the scenes of N videos; `videos` (N,) are ascending indices into the cache's media.

    A descriptor is the mean of a video's frames, centred over the videos and whitened by the scatter within videos. Two
    videos whose descriptors' cosine reaches the threshold are linked, the most similar pairs first. A link between two
    scenes is ignored if the mean cosine of all pairs across them is below the threshold: a chain of links cannot join
    everything into one scene. Files with the same bytes are always one scene.

    With fewer than three different files only the bytes count, since similarity is relative to the other videos.

    Raises `TrainError` that lists the videos without frames, and those with NaN or infinite features; `CacheError` if
    the cache is damaged.
    """
    sha256 = cache.media["sha256"][videos]
    files, _ = _distinct(sha256)
    if len(files) <= 2:
        return same_files(sha256)
    space, means = _measure(cache, videos[files])
    descriptors = space.describe(means)
    del means  # 2 GB for a million videos
    return _link(space, descriptors, sha256)


def find_scenes_of(means: np.ndarray, sha256: np.ndarray, space: SceneSpace) -> Scenes:
    """The scenes of N videos with mean frames `means` (N, D), as `find_scenes`, in a space estimated from others.

    Reads no features. `sha256` (N,) are the hashes of their files.
    """
    files, _ = _distinct(sha256)
    if len(files) <= 2:
        return same_files(sha256)
    return _link(space, space.describe(means[files], centre=means[files].mean(axis=0)), sha256)


def same_files(sha256: np.ndarray) -> Scenes:
    """The scenes of N videos when only files with the same bytes, `sha256` (N,), are one scene. Reads no features."""
    files, file_of_video = _distinct(sha256)
    copies = np.setdiff1d(np.arange(len(sha256)), files)
    return Scenes(
        scene=file_of_video,
        similarity_threshold=1.0,
        chance_similarity=1.0,
        space=None,
        pairs=np.stack([files[file_of_video[copies]], copies], axis=1),
        pair_similarity=np.ones(len(copies), np.float32),
        descriptors=np.zeros((len(sha256), 1), np.float32),
    )


def choose_similarity_threshold(cosines: np.ndarray, own: float, *, num_videos: int) -> tuple[float, float]:
    """The similarity threshold, and the cosine that no unrelated pair of `num_videos` videos reaches by chance.

    Most of the pairs with these `cosines` (P,) are unrelated, so the median and the median absolute deviation of
    Fisher's z (artanh of the cosine, nearly normal) are those of unrelated pairs. The chance level is a Bonferroni
    bound over all pairs. M centred descriptors span M - 1 dimensions, in which the cosine of random directions has the
    standard deviation 1 / sqrt(M - 1): the deviation used is at least that. Where videos are of several kinds, such as
    ten sports, pairs of one kind are more alike than others, and the upper tail is longer than the median deviation
    says: then the deviation is that of the `UPPER` quantile, as far as the level stays below `HALFWAY`, since with few
    large scenes that quantile may be a related pair.

    `own`, the similarity of frames of the same video, limits the threshold. Lower limit: the angle halfway between
    `own` and a right angle, so that videos of one kind are not joined when all others are very different. Upper limit,
    if `own` is at least `HALFWAY`: `HALFWAY`, since chance alone would miss copies among very many videos, and also
    among very few, from which it is estimated poorly.
    """
    z = np.arctanh(np.clip(cosines, -1 + 1e-6, 1 - 1e-6))
    median, least = float(np.median(z)), (num_videos - 1) ** -0.5
    num_deviations = norm.isf(ERROR / (num_videos * (num_videos - 1) / 2))  # in standard deviations

    def level(deviation: float) -> float:
        return max(0.0, float(np.tanh(median + num_deviations * max(deviation, least))))

    upper = (float(np.quantile(z, UPPER)) - median) / norm.ppf(UPPER)
    chance = max(level(float(median_abs_deviation(z, scale="normal"))), min(level(upper), HALFWAY))
    lowest = float(np.cos((np.arccos(np.clip(own, 0, 1)) + np.pi / 2) / 2))
    return float(np.clip(chance, lowest, HALFWAY if own >= HALFWAY else 1.0)), chance


def merge_groups(manifest_groups: np.ndarray, scenes: Scenes) -> np.ndarray:
    """The group of each video, (N,) str, from `manifest_groups` (N,), where empty means none, and the scenes.

    The manifest's group is kept. A video without one gets the group of the other videos of its scene if they all have
    the same, else the number of its scene, as in `scene 12`. A video that is alone in its scene gets none.
    """
    given = manifest_groups != ""
    taken = set(manifest_groups[given].tolist())
    prefix = "scene"
    while any(group.startswith(f"{prefix} ") for group in taken):
        prefix = f"found {prefix}"
    by_scene: dict[int, set[str]] = {}
    for scene, group in zip(scenes.scene[given].tolist(), manifest_groups[given].tolist(), strict=True):
        by_scene.setdefault(scene, set()).add(group)
    sizes = np.bincount(scenes.scene)
    groups = manifest_groups.astype(object)
    for i in np.flatnonzero(~given & (sizes[scenes.scene] > 1)).tolist():
        scene = int(scenes.scene[i])
        known = by_scene.get(scene, set())
        groups[i] = next(iter(known)) if len(known) == 1 else f"{prefix} {scene}"
    return groups


def _distinct(sha256: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first video of each different file, (M,) ascending; and for each of N videos the index of its file there."""
    _, first, inverse = np.unique(sha256, return_index=True, return_inverse=True)
    files = np.sort(first)
    return files, np.searchsorted(files, first[inverse])


def _link(space: SceneSpace, descriptors: np.ndarray, sha256: np.ndarray) -> Scenes:
    """The scenes of N videos, given the descriptors (M, D) of their M different files, in the order of `_distinct`."""
    files, file_of_video = _distinct(sha256)
    copies = same_files(sha256)
    sample = descriptors[sample_of(len(files))]
    cosines = (sample @ sample.T)[np.triu_indices(len(sample), k=1)]
    threshold, chance = choose_similarity_threshold(cosines, space.own_similarity, num_videos=len(files))
    scene, links, link_cosines = _group(descriptors, threshold)
    return Scenes(
        scene=scene[file_of_video],
        similarity_threshold=threshold,
        chance_similarity=chance,
        space=space,
        pairs=np.concatenate([files[links], copies.pairs]),
        pair_similarity=np.concatenate([link_cosines, copies.pair_similarity]),
        descriptors=descriptors if len(files) == len(sha256) else descriptors[file_of_video],
    )


def sample_of(count: int) -> np.ndarray:
    """At most `SAMPLE_VIDEOS` evenly spaced indices of `count` videos."""
    return np.linspace(0, count - 1, min(count, SAMPLE_VIDEOS)).astype(int)


def _measure(cache: Cache, videos: np.ndarray) -> tuple[SceneSpace, np.ndarray]:
    """The space of M videos, and their mean frames (M, D) float32.

    The frames compared for `own_similarity` are the first and last of the `STRETCH_ROWS` rows in the middle of each
    video.
    """
    sampled = np.zeros(len(videos), bool)
    sampled[sample_of(len(videos))] = True
    width = cache.settings["clip"]["widths"]["features"]
    means = np.zeros((len(videos), width), np.float32)
    scatter, num_free = np.zeros((width, width)), 0  # sum of squares and products, and its degrees of freedom
    ends = []
    for part, rows, lengths in _read(cache, videos):
        start = np.cumsum(lengths) - lengths  # (n,)
        means[part] = mean_frames(rows, lengths)
        if not sampled[part].any():
            continue
        start, lengths = start[sampled[part]], lengths[sampled[part]]
        count = np.minimum(lengths, STRETCH_ROWS)
        first = start + (lengths - count) // 2  # of the stretch in the middle
        steps = np.arange(STRETCH_ROWS)
        stretch = rows[(first[:, None] + steps)[steps < count[:, None]]]  # (Σcount, D)
        stretch_means = np.add.reduceat(stretch, np.cumsum(count) - count) / count[:, None]
        residuals = stretch - np.repeat(stretch_means, count, axis=0)
        scatter += residuals.T @ residuals
        num_free += len(residuals) - len(count)
        moving = count > 1
        ends.append(np.stack([rows[first[moving]], rows[(first + count - 1)[moving]]]))  # (2, n, D)
    _refuse(cache, videos[~np.isfinite(means).all(axis=1)], "NaN or infinite values")
    centre = means.mean(axis=0)
    whiten = _whitening(scatter / max(num_free, 1))
    first, last = unit_length((np.concatenate(ends, axis=1) - centre) @ whiten)
    own = float(np.median((first * last).sum(axis=1))) if len(first) else 0.0
    return SceneSpace(centre=centre, whitening=whiten, own_similarity=own), means


def _read(cache: Cache, videos: np.ndarray) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """The frames of `videos`, some videos at a time: which, their rows (ΣT, D) float32, and each one's number (n,)."""
    lengths = np.diff(cache.offset("clip"))[videos]
    _refuse(cache, videos[lengths == 0], "no frames")
    part_of_video = (np.cumsum(lengths) - 1) // READ_ROWS
    bounds = [0, *(np.flatnonzero(np.diff(part_of_video)) + 1).tolist(), len(videos)]
    for start, stop in pairwise(bounds):
        part = slice(start, stop)
        yield part, cache.rows("clip", "features", videos=videos[part]).astype(np.float32), lengths[part]


def mean_frames(rows: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The mean (n, D) float32 of each video's frames: `rows` (ΣT, D), `lengths` (n,), each at least 1."""
    means = np.empty((len(lengths), rows.shape[1]), np.float32)
    ends = np.cumsum(lengths)
    for start in range(0, len(lengths), SMALL_VIDEOS):
        part = slice(start, start + SMALL_VIDEOS)
        first = (ends - lengths)[part]
        values = rows[first[0] : ends[part][-1]].astype(np.float32)
        means[part] = np.add.reduceat(values, first - first[0]) / lengths[part, None]
    return means


def _refuse(cache: Cache, videos: np.ndarray, why: str) -> None:
    """Raise `TrainError` that lists `videos`, if there are any."""
    if len(videos):
        lines = [f"{id!r}: {why} in /clip/features" for id in cache.media["id"][videos]]
        raise TrainError(
            f"{cache.name}: videos that cannot be compared for scenes:\n{bullet_list(lines)}\n"
            "run `haechi verify`, and extract these files again"
        )


def _whitening(scatter: np.ndarray) -> np.ndarray:
    """Matrix (D, D) float32 after which features vary equally in all directions within videos; `scatter` (D, D) is
    their covariance there."""
    width = len(scatter)
    mean_variance = float(np.trace(scatter)) / width or 1.0  # images and still videos have no variance
    variances, directions = np.linalg.eigh(scatter + SHRINKAGE * mean_variance * np.eye(width))
    return np.asarray(directions / np.sqrt(variances), np.float32)


def _group(descriptors: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The scene (M,) int64 of each descriptor, the links (L, 2) that make them, and the links' cosines (L,) float32."""
    links, cosines = _closest_links(descriptors, threshold)
    order = np.lexsort((links[:, 1], links[:, 0], -cosines))
    links, cosines = links[order], cosines[order]
    linked, places = np.unique(links, return_inverse=True)  # most videos are alone
    groups, totals, sizes = DisjointSet(range(len(linked))), descriptors[linked], np.ones(len(linked))
    kept = np.zeros(len(links), bool)
    firsts, seconds = places.reshape(links.shape).T
    for n, (i, j) in enumerate(zip(firsts.tolist(), seconds.tolist(), strict=True)):
        a, b = groups[i], groups[j]
        if totals[a] @ totals[b] >= threshold * sizes[a] * sizes[b]:  # the mean cosine of all pairs across
            total, size = totals[a] + totals[b], sizes[a] + sizes[b]
            groups.merge(i, j)
            totals[groups[i]], sizes[groups[i]] = total, size
            kept[n] = True
    root = np.arange(len(descriptors))
    root[linked] = linked[[groups[i] for i in range(len(linked))]]
    _, first, inverse = np.unique(root, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse], links[kept], cosines[kept]


def _closest_links(descriptors: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """A maximum spanning forest of the pairs with a cosine of at least `threshold`: at most M - 1 links.

    Returns (L, 2) int64 with the smaller index first, and (L,) float32 cosines: all that single-linkage clustering
    needs. The similarity matrix is computed and pruned tile by tile.
    """
    count = len(descriptors)
    links, cosines = np.empty((0, 2), np.int64), np.empty(0, np.float32)
    for found, tile in similar_pairs(descriptors, descriptors, threshold):
        later = found[:, 0] < found[:, 1]
        links = np.concatenate([links, found[later]])
        cosines = np.concatenate([cosines, tile[later]])
        if len(links) > MOST_LINKS:
            links, cosines = _spanning_forest(links, cosines, count)
    return _spanning_forest(links, cosines, count)


def _spanning_forest(links: np.ndarray, cosines: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The maximum spanning forest of these links between `count` descriptors."""
    # Distances must not be 0: scipy takes 0 for no link.
    tree = minimum_spanning_tree(coo_array((2.0 - cosines, links.T), shape=(count, count)).tocsr()).tocoo()
    ends = np.sort(np.stack(tree.coords, axis=1), axis=1).astype(np.int64)
    return ends, (2.0 - tree.data).astype(np.float32)
