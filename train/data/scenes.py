"""Which videos show one scene: found in the cached CLIP features, with a threshold that the data themselves give.

Frames of one video show one scene, which is supervision that costs nothing. What varies within videos (people who move,
noise) is scaled down before videos are compared, so that the place and the camera decide: within-class covariance
normalisation (Hatch, Kajarekar, Stolcke, "Within-Class Covariance Normalization for SVM-based Speaker Recognition",
Interspeech 2006) with each video as a class. It does the same for trained weights and for random ones, whose raw
features are all alike.
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
from haechi.train.errors import TrainError

# The scatter within videos and both thresholds are taken from so many videos, evenly spaced over all: 2 million pairs.
SAMPLE_VIDEOS = 2000

# What is alike within one scene is told by so many rows in the middle of a video: two hours are no scene.
STRETCH_ROWS = 32

# The scatter within videos is estimated, and lacks directions where there are few frames: so much of its mean variance
# is added to each direction. Ledoit and Wolf's estimate is 0.015 on 91 real clips; 0.003 to 0.1 find the same scenes.
SHRINKAGE = 0.01

# The chance that any two unrelated videos of the whole dataset are linked: the customary 5 %.
ERROR = 0.05

# The cosine at half a right angle: as far from the same picture as from unrelated ones, which stand at a right angle.
# Copies of 16 clips, encoded again at CRF 40 and 160 pixels width and put among 91 clips, reach 0.71 to 0.98.
HALFWAY = 0.5**0.5

# Bounds on memory: rows of features read at once, videos compared at once, links kept before they are thinned.
READ_ROWS = 1 << 16
BLOCK_VIDEOS = 2048
MOST_LINKS = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Scenes:
    """The scenes of N videos."""

    scene: np.ndarray
    """(N,) int64: each video's scene, from 0 in the order of first videos. A video on its own has one to itself."""
    similarity_threshold: float
    """Cosine of two descriptors from which on they are one scene."""
    chance_similarity: float
    """What unrelated videos do not reach: of all pairs together, one does with a chance of `ERROR`."""
    own_similarity: float
    """That of a video's own first and last frame, the median; 0 where no video has two frames."""
    pairs: np.ndarray
    """(L, 2) int64: the links that make the scenes, the smaller index first. A scene of n videos has n - 1 of them."""
    pair_similarity: np.ndarray
    """(L,) float32"""
    descriptors: np.ndarray
    """(N, D) float32 of unit length: what is compared."""


def find_scenes(cache: Cache, videos: np.ndarray) -> Scenes:
    """Find the scenes of N videos, `videos` (N,) being ascending indices into the cache's media.

    A descriptor is the mean of a video's frames, centred over the videos and whitened by the scatter within videos. Two
    videos whose descriptors' cosine reaches the threshold are linked. The closest links count first; a link between two
    groups whose videos are on average less alike than the threshold does not count, so that a chain of links never
    makes one scene of all. Files of the same bytes are one scene whatever their features.

    Fewer than three different files have nothing to be compared with: similarity is relative to the other videos.

    Raises `TrainError` that lists the videos without frames, and those with NaN or infinite features; `CacheError`
    where the cache is damaged.
    """
    sha256 = cache.media["sha256"][videos]
    files, file_of_video = _distinct(sha256)  # (M,), (N,)
    copies = same_files(sha256)
    if len(files) <= 2:
        return copies
    descriptors, sample, own = _describe(cache, videos[files])
    threshold, chance = threshold_of(sample, own, num_videos=len(files))
    scene, links, of_links = _group(descriptors, threshold)
    return Scenes(
        scene=scene[file_of_video],
        similarity_threshold=threshold,
        chance_similarity=chance,
        own_similarity=own,
        pairs=np.concatenate([files[links], copies.pairs]),
        pair_similarity=np.concatenate([of_links, copies.pair_similarity]),
        descriptors=descriptors[file_of_video],
    )


def same_files(sha256: np.ndarray) -> Scenes:
    """The scenes of N videos by their files' bytes alone, `sha256` (N,): no features are read, nothing is compared."""
    files, file_of_video = _distinct(sha256)
    copies = np.setdiff1d(np.arange(len(sha256)), files)
    return Scenes(
        scene=file_of_video,
        similarity_threshold=1.0,
        chance_similarity=1.0,
        own_similarity=0.0,
        pairs=np.stack([files[file_of_video[copies]], copies], axis=1),
        pair_similarity=np.ones(len(copies), np.float32),
        descriptors=np.zeros((len(sha256), 1), np.float32),
    )


def threshold_of(cosines: np.ndarray, own: float, *, num_videos: int) -> tuple[float, float]:
    """The similarity threshold, and the cosine that no two unrelated ones of `num_videos` reach by chance.

    Most of the pairs whose `cosines` (P,) are given are unrelated, so that the median and the median deviation of
    Fisher's z (artanh of the cosine, nearly normal) are those of unrelated pairs. The bound is that of Bonferroni over
    all pairs. M centred descriptors span M - 1 dimensions, in which the cosine of random directions deviates by
    1 / sqrt(M - 1): never less is taken.

    Frames of one video (`own`) tell what one scene is. A pair that is further from that, in angle, than from a right
    angle is no scene, however unlike all others are: that keeps what is merely of one kind apart. And where they are
    nearer than `HALFWAY`, that is enough: chance alone would miss copies among very many videos, and among a handful,
    of which it knows little.
    """
    z = np.arctanh(np.clip(cosines, -1 + 1e-6, 1 - 1e-6))
    deviation = max(float(median_abs_deviation(z, scale="normal")), (num_videos - 1) ** -0.5)
    num_pairs = num_videos * (num_videos - 1) / 2
    chance = max(0.0, float(np.tanh(np.median(z) + norm.isf(ERROR / num_pairs) * deviation)))
    lowest = float(np.cos((np.arccos(np.clip(own, 0, 1)) + np.pi / 2) / 2))
    return float(np.clip(chance, lowest, HALFWAY if own >= HALFWAY else 1.0)), chance


def group_of(manifest_groups: np.ndarray, scenes: Scenes) -> np.ndarray:
    """(N,) str: the group of each video, `manifest_groups` (N,) being those of the manifest, empty where it says none.

    The manifest's group holds. A video without one takes the group of its scene's other videos where they have just one
    between them, else its scene's number, as in `scene 12`; a video alone in its scene stays without.
    """
    said = manifest_groups != ""
    taken = set(manifest_groups[said].tolist())
    prefix = "scene"
    while any(group.startswith(f"{prefix} ") for group in taken):
        prefix = f"found {prefix}"
    of_scene: dict[int, set[str]] = {}
    for scene, group in zip(scenes.scene[said].tolist(), manifest_groups[said].tolist(), strict=True):
        of_scene.setdefault(scene, set()).add(group)
    sizes = np.bincount(scenes.scene)
    groups = manifest_groups.astype(object)
    for i in np.flatnonzero(~said & (sizes[scenes.scene] > 1)).tolist():
        scene = int(scenes.scene[i])
        known = of_scene.get(scene, set())
        groups[i] = next(iter(known)) if len(known) == 1 else f"{prefix} {scene}"
    return groups


def _distinct(sha256: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first video of each different file, (M,) ascending, and for each of N videos the place of its file there."""
    _, first, inverse = np.unique(sha256, return_index=True, return_inverse=True)
    files = np.sort(first)
    return files, np.searchsorted(files, first[inverse])


def _describe(cache: Cache, videos: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Descriptors (M, D) float32 of M videos, cosines (P,) of a sample's pairs, and that of a video's own frames.

    Its own frames are those at both ends of the stretch in its middle.
    """
    sampled = np.zeros(len(videos), bool)
    sampled[np.linspace(0, len(videos) - 1, min(len(videos), SAMPLE_VIDEOS)).astype(int)] = True
    width = cache.settings["clip"]["widths"]["features"]
    means = np.zeros((len(videos), width), np.float32)
    scatter, num_free = np.zeros((width, width)), 0  # sum of squares and products, and its degrees of freedom
    ends = []
    for part, rows, lengths in _read(cache, videos):
        start = np.cumsum(lengths) - lengths  # (n,)
        means[part] = np.add.reduceat(rows, start) / lengths[:, None]
        if not sampled[part].any():
            continue
        start, lengths = start[sampled[part]], lengths[sampled[part]]
        count = np.minimum(lengths, STRETCH_ROWS)
        first = start + (lengths - count) // 2  # of the stretch in the middle
        steps = np.arange(STRETCH_ROWS)
        stretch = rows[(first[:, None] + steps)[steps < count[:, None]]]  # (Σcount, D)
        of_stretch = np.add.reduceat(stretch, np.cumsum(count) - count) / count[:, None]
        residuals = stretch - np.repeat(of_stretch, count, axis=0)
        scatter += residuals.T @ residuals
        num_free += len(residuals) - len(count)
        moving = count > 1
        ends.append(np.stack([rows[first[moving]], rows[(first + count - 1)[moving]]]))  # (2, n, D)
    _refuse(cache, videos[~np.isfinite(means).all(axis=1)], "NaN or infinite values")
    centre = means.mean(axis=0)
    whiten = _whitening(scatter / max(num_free, 1))
    descriptors = _unit((means - centre) @ whiten)
    first, last = _unit((np.concatenate(ends, axis=1) - centre) @ whiten)
    own = float(np.median((first * last).sum(axis=1))) if len(first) else 0.0
    cosines = (descriptors[sampled] @ descriptors[sampled].T)[np.triu_indices(sampled.sum(), k=1)]
    return descriptors, cosines, own


def _read(cache: Cache, videos: np.ndarray) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """The frames of some videos after the other: which videos, (ΣT, D) float32 rows, and how many (n,) each has."""
    lengths = np.diff(cache.offset("clip"))[videos]
    _refuse(cache, videos[lengths == 0], "no frames")
    part_of_video = (np.cumsum(lengths) - 1) // READ_ROWS
    bounds = [0, *(np.flatnonzero(np.diff(part_of_video)) + 1).tolist(), len(videos)]
    for start, stop in pairwise(bounds):
        part = slice(start, stop)
        yield part, cache.rows("clip", "features", videos=videos[part]).astype(np.float32), lengths[part]


def _refuse(cache: Cache, videos: np.ndarray, why: str) -> None:
    """Raise `TrainError` that names `videos`, if any."""
    if len(videos):
        lines = [f"{id!r}: {why} in /clip/features" for id in cache.media["id"][videos]]
        raise TrainError(
            f"{cache.path}: videos that cannot be compared for scenes:\n{bullet_list(lines)}\n"
            "see `haechi verify`, and extract these files again"
        )


def _whitening(scatter: np.ndarray) -> np.ndarray:
    """(D, D) float32: makes features vary as much in each direction, within videos of covariance `scatter` (D, D)."""
    width = len(scatter)
    mean_variance = float(np.trace(scatter)) / width or 1.0  # pictures, and videos that stand still, have none
    variances, directions = np.linalg.eigh(scatter + SHRINKAGE * mean_variance * np.eye(width))
    return np.asarray(directions / np.sqrt(variances), np.float32)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors along the last axis at length 1; zero stays zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def _group(descriptors: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The scene (M,) int64 of each descriptor, the links (L, 2) that make them, and the links' cosines (L,) float32."""
    links, cosines = _closest_links(descriptors, threshold)
    order = np.lexsort((links[:, 1], links[:, 0], -cosines))
    links, cosines = links[order], cosines[order]
    groups, totals, sizes = DisjointSet(range(len(descriptors))), descriptors.copy(), np.ones(len(descriptors))
    kept = np.zeros(len(links), bool)
    for n, (i, j) in enumerate(links.tolist()):
        a, b = groups[i], groups[j]
        if totals[a] @ totals[b] >= threshold * sizes[a] * sizes[b]:  # the mean cosine of all pairs across
            total, size = totals[a] + totals[b], sizes[a] + sizes[b]
            groups.merge(i, j)
            totals[groups[i]], sizes[groups[i]] = total, size
            kept[n] = True
    _, first, inverse = np.unique([groups[i] for i in range(len(descriptors))], return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse], links[kept], cosines[kept]


def _closest_links(descriptors: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """The links of at least `threshold` that connect all which such links connect, the closest ones, at most M - 1.

    (L, 2) int64 with the smaller index first, and (L,) float32 cosines: a maximum spanning forest, all that
    single-linkage clustering needs to know. Blocks of all pairs are compared and thinned in turn.
    """
    count = len(descriptors)
    links, cosines = np.empty((0, 2), np.int64), np.empty(0, np.float32)
    for start in range(0, count, BLOCK_VIDEOS):
        for other in range(start, count, BLOCK_VIDEOS):
            block = descriptors[start : start + BLOCK_VIDEOS] @ descriptors[other : other + BLOCK_VIDEOS].T
            found = np.argwhere(block >= threshold)
            if other == start:
                found = found[found[:, 0] < found[:, 1]]
            links = np.concatenate([links, found + np.array([start, other])])
            cosines = np.concatenate([cosines, block[found[:, 0], found[:, 1]]])
            if len(links) > MOST_LINKS:
                links, cosines = _thinned(links, cosines, count)
    return _thinned(links, cosines, count)


def _thinned(links: np.ndarray, cosines: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The maximum spanning forest of these links between `count` descriptors."""
    # As distances that are never 0, which would be no link to scipy.
    tree = minimum_spanning_tree(coo_array((2.0 - cosines, links.T), shape=(count, count)).tocsr()).tocoo()
    ends = np.sort(np.stack(tree.coords, axis=1), axis=1).astype(np.int64)
    return ends, (2.0 - tree.data).astype(np.float32)
