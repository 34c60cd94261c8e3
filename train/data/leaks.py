"""Leaks: videos of val or test that share a file, group or scene with a part that the head has seen."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from haechi.cache.text import bullet_list
from haechi.train.data.scenes import Scenes

# Part that is scored -> the parts that chose the head, its epoch or its threshold.
SEEN_BEFORE = {"test": ("train", "val"), "val": ("train",)}

# The strongest first: a pair is reported once, as its strongest kind.
SAME_BYTES, SAME_GROUP, NEAR_DUPLICATE = LEAK_KINDS = ("same bytes", "same group", "near-duplicate")

# Limit on memory: cosines computed at once.
MOST_COSINES = 1 << 22


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A leak: a video of val or test, and the video of another part that it shares a file, group or scene with."""

    id: str
    part: str
    """`test` or `val`."""
    other_id: str
    other_part: str
    """`train`, or also `val` for a video of test."""
    kind: str
    """One of `LEAK_KINDS`."""
    similarity: float | None
    """Cosine of the two descriptors of a near-duplicate (see `haechi.train.data.scenes`); None for the other kinds."""


@dataclass(frozen=True, kw_only=True)
class Leaks:
    """The leaks of a split, which make its figures too good."""

    pairs: list[Pair]
    """For each video that shares its file, group or scene with the other side of the split, the closest video there. A
    pair is listed once, as its strongest kind. Sorted by part; then the closest video to each video of val or test
    before the remaining pairs; then by kind, the strongest first."""
    rows: np.ndarray
    """(L,) int64: the row of each pair's first video."""

    def touched(self, part: str) -> np.ndarray:
        """(n,) int64: the rows of the videos of this part that have a leak, ascending."""
        chosen = [row for row, pair in zip(self.rows.tolist(), self.pairs, strict=True) if pair.part == part]
        return np.unique(np.array(chosen, np.int64))

    @classmethod
    def from_folds(cls, folds: "list[Leaks]") -> "Leaks":
        """The leaks of every fold's test videos; each video is in the test part of one fold."""
        found = [
            (row, pair)
            for leaks in folds
            for row, pair in zip(leaks.rows.tolist(), leaks.pairs, strict=True)
            if pair.part == "test"
        ]
        found.sort(key=lambda row_and_pair: row_and_pair[0])
        return cls(pairs=[pair for _, pair in found], rows=np.array([row for row, _ in found], np.int64))

    @property
    def warnings(self) -> list[str]:
        """One text for each part that has leaks; it names the videos."""
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
                    f"{count} {part} {'video shares its' if count == 1 else 'videos share their'} file, group or scene "
                    f"with {others}, which makes the figures too good:\n{bullet_list(lines)}"
                )
        return texts


def find_leaks(names: np.ndarray, *, ids: np.ndarray, groups: np.ndarray, sha256: np.ndarray, scenes: Scenes) -> Leaks:
    """Find the leaks of a split of N videos.

    `names` (N,) is each video's part, `groups` (N,) its group in the manifest (empty: none), `sha256` (N,) the hash of
    its file. For each kind there are fewer pairs than videos in the two parts, even if a group is very large.
    """
    pairs, rows = [], []
    numbered = {kind: _numbered(marks) for kind, marks in zip(LEAK_KINDS, (sha256, groups, scenes.scene), strict=True)}
    for part, others in SEEN_BEFORE.items():
        found: dict[tuple[int, int], tuple[str, float]] = {}
        closest_to_ours = set()
        for kind, numbers in numbered.items():
            for other_part in others:
                ours, theirs = names == part, names == other_part
                for row, other, cosine in _closest(numbers, ours, theirs, scenes.descriptors):
                    found.setdefault((row, other), (kind, cosine))
                    closest_to_ours.add((row, other))
                for other, row, cosine in _closest(numbers, theirs, ours, scenes.descriptors):
                    found.setdefault((row, other), (kind, cosine))
        order = {pair: (pair not in closest_to_ours, LEAK_KINDS.index(found[pair][0]), *pair) for pair in found}
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


def _numbered(marks: np.ndarray) -> np.ndarray:
    """(N,) int64: a number for each different mark of `marks` (N,) of str or int, from 0; -1 for an empty string."""
    numbers, marked = np.full(len(marks), -1), marks != ""
    numbers[marked] = np.unique(marks[marked], return_inverse=True)[1]
    return numbers


def _closest(
    numbers: np.ndarray, ours: np.ndarray, theirs: np.ndarray, descriptors: np.ndarray
) -> Iterator[tuple[int, int, float]]:
    """For each row of `ours` with the same mark as rows of `theirs`: the row, the closest of these, and the cosine.

    For N videos, `numbers` is (N,) as of `_numbered`; `ours` and `theirs` are (N,) bool; `descriptors` (N, D).
    """
    is_there = [np.bincount(numbers[side] + 1, minlength=len(numbers) + 1) > 0 for side in (ours, theirs)]
    is_shared = is_there[0] & is_there[1]
    is_shared[0] = False  # no mark
    marked = np.flatnonzero((ours | theirs) & is_shared[numbers + 1])
    order = marked[np.argsort(numbers[marked], kind="stable")]
    for rows in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1):
        mine, others = rows[ours[rows]], rows[theirs[rows]]
        if not len(rows):  # no mark is shared
            return
        step = max(1, MOST_COSINES // len(others))
        for start in range(0, len(mine), step):
            part = mine[start : start + step]
            cosines = descriptors[part] @ descriptors[others].T
            best = cosines.argmax(axis=1)
            yield from zip(part.tolist(), others[best].tolist(), cosines.max(axis=1).tolist(), strict=True)
