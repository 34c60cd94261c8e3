"""Which videos that are scored the head has seen: on both sides of the split as the same file, group or scene."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from haechi.cache.text import bullet_list
from haechi.train.data.scenes import Scenes

# The part that is scored against the parts that the head, its epoch and its threshold come from.
SEEN_BEFORE = {"test": ("train", "val"), "val": ("train",)}

# The strongest first: a pair is told of once.
SAME_BYTES, SAME_GROUP, NEAR_DUPLICATE = KINDS = ("same bytes", "same group", "near-duplicate")

# A bound on memory: cosines computed at once.
MOST_COSINES = 1 << 22


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A video of val or test, and a video of another part that gives it away."""

    id: str
    part: str
    """`test` or `val`."""
    other_id: str
    other_part: str
    """`train`, or `val` for a video of test."""
    kind: str
    """One of `KINDS`."""
    similarity: float | None
    """Cosine of the two descriptors of a near-duplicate (see `haechi.train.data.scenes`); None for the other kinds."""


@dataclass(frozen=True, kw_only=True)
class Leaks:
    """All videos of val and test that are touched: what makes a split's figures too good."""

    pairs: list[Pair]
    """For each video that shares its file, group or scene with another part, on either side, the closest one there. A
    pair is told of once, as its strongest kind. In order of parts; first what is closest to each video of val or test,
    then what else is closest to videos of the other part; the strongest kind first."""
    rows: np.ndarray
    """(L,) int64: the row of each pair's first video."""

    def touched(self, part: str) -> np.ndarray:
        """(n,) int64: the rows of this part's touched videos, ascending."""
        chosen = [row for row, pair in zip(self.rows.tolist(), self.pairs, strict=True) if pair.part == part]
        return np.unique(np.array(chosen, np.int64))

    @classmethod
    def of_tests(cls, of_folds: "list[Leaks]") -> "Leaks":
        """What touches the test videos of each fold: every video is in one of them."""
        found = [
            (row, pair)
            for leaks in of_folds
            for row, pair in zip(leaks.rows.tolist(), leaks.pairs, strict=True)
            if pair.part == "test"
        ]
        found.sort(key=lambda of_pair: of_pair[0])
        return cls(pairs=[pair for _, pair in found], rows=np.array([row for row, _ in found], np.int64))

    @property
    def warnings(self) -> list[str]:
        """One text a part that is touched, which names its videos."""
        texts = []
        for part in SEEN_BEFORE:
            lines = [
                f"{pair.id!r}: {pair.kind} as {pair.other_id!r} in {pair.other_part}"
                if pair.similarity is None
                else f"{pair.id!r}: {pair.kind} of {pair.other_id!r} in {pair.other_part} ({pair.similarity:.3f})"
                for pair in self.pairs
                if pair.part == part
            ]
            if lines:
                count = len(self.touched(part))
                others = " or ".join(SEEN_BEFORE[part])
                texts.append(
                    f"{count} {part} {'video has' if count == 1 else 'videos have'} the same file, group or scene in "
                    f"{others}, so that scores are too good:\n{bullet_list(lines)}"
                )
        return texts


def find_leaks(names: np.ndarray, *, ids: np.ndarray, groups: np.ndarray, sha256: np.ndarray, scenes: Scenes) -> Leaks:
    """Compare the parts of a split.

    N videos: `names` (N,) says each one's part, `groups` (N,) the manifest's group (empty: none), `sha256` (N,) its
    file's bytes. However large a group is, there are fewer pairs of a kind than videos in the two parts.
    """
    pairs, rows = [], []
    for part, others in SEEN_BEFORE.items():
        found: dict[tuple[int, int], tuple[str, float]] = {}
        closest_to_ours = set()
        for kind, marks in zip(KINDS, (sha256, groups, scenes.scene), strict=True):
            for other_part in others:
                ours, theirs = names == part, names == other_part
                for row, other, cosine in _closest(marks, ours, theirs, scenes.descriptors):
                    found.setdefault((row, other), (kind, cosine))
                    closest_to_ours.add((row, other))
                for other, row, cosine in _closest(marks, theirs, ours, scenes.descriptors):
                    found.setdefault((row, other), (kind, cosine))
        order = {pair: (pair not in closest_to_ours, KINDS.index(found[pair][0]), *pair) for pair in found}
        for row, other in sorted(found, key=order.__getitem__):
            kind, cosine = found[row, other]
            rows.append(row)
            pairs.append(
                Pair(
                    id=str(ids[row]),
                    part=part,
                    other_id=str(ids[other]),
                    other_part=str(names[other]),
                    kind=kind,
                    similarity=cosine if kind == NEAR_DUPLICATE else None,
                )
            )
    return Leaks(pairs=pairs, rows=np.array(rows, np.int64))


def _closest(
    marks: np.ndarray, ours: np.ndarray, theirs: np.ndarray, descriptors: np.ndarray
) -> Iterator[tuple[int, int, float]]:
    """For each row of `ours` that shares its mark with rows of `theirs`, the closest of these, and the cosine.

    N videos: `marks` (N,) str or int, an empty one being shared with none; `ours` and `theirs` (N,) bool; `descriptors`
    (N, D).
    """
    marked = np.flatnonzero((ours | theirs) & (marks != ""))
    _, numbers = np.unique(marks[marked], return_inverse=True)
    order = np.argsort(numbers, kind="stable")
    for rows in np.split(marked[order], np.flatnonzero(np.diff(numbers[order])) + 1):
        mine, others = rows[ours[rows]], rows[theirs[rows]]
        if not len(mine) or not len(others):
            continue
        step = max(1, MOST_COSINES // len(others))
        for start in range(0, len(mine), step):
            part = mine[start : start + step]
            cosines = descriptors[part] @ descriptors[others].T
            best = cosines.argmax(axis=1)
            yield from zip(part.tolist(), others[best].tolist(), cosines.max(axis=1).tolist(), strict=True)
