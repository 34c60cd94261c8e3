"""The split into train, val (chooses epoch and threshold) and test (scored once, at the end)."""

import math
from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import GroupShuffleSplit, StratifiedGroupKFold, train_test_split

from haechi.cache.schema import HARMFUL, LABEL_NAMES, SAFE, SPLITS
from haechi.cache.text import counted
from haechi.train.data.groups import group_numbers, own_groups
from haechi.train.errors import TrainError
from haechi.train.settings import TrainSettings

# Number of random draws of a part with whole groups; the one closest to the wanted size is used. Of many videos, where
# any draw is close, as many as go over `DRAWN_VIDEOS` videos in all, which takes some seconds.
GROUP_DRAWS = 200
DRAWN_VIDEOS = 4_000_000

# The fewest test videos of each class: with fewer, a single video changes the recall of its class by more than a tenth.
FEWEST_TESTED = 10

# The fewest videos of each class to draw from: one for each part. In cross-validation a fold is the test part.
FEWEST_DRAWN = 3

DEFAULT_FOLDS = 5

INNER_FOLDS = 5

# Videos without a group are dealt out to folds in at most this many bundles of each class: one after another, 100,000
# of them take 20 s.
MOST_BUNDLES = 5_000


@dataclass(frozen=True, kw_only=True)
class Split:
    """The part of each of the N labelled videos."""

    names: np.ndarray
    """(N,) str: train, val or test."""
    notes: list[str]
    """How the split was made, one sentence each, for the user."""

    def rows(self, name: str) -> np.ndarray:
        """The videos of one part: (n,) int64 indices, ascending."""
        return np.flatnonzero(self.names == name)

    def counts(self, labels: np.ndarray) -> dict[str, dict[str, int]]:
        """Part -> `harmful` and `safe` -> number of videos, for each part that has any."""
        return {
            name: {LABEL_NAMES[label]: int((labels[rows] == label).sum()) for label in (HARMFUL, SAFE)}
            for name in SPLITS
            if len(rows := self.rows(name))
        }


def make_split(labels: np.ndarray, given: np.ndarray, groups: np.ndarray, settings: TrainSettings) -> Split:
    """Split N labelled videos by their labels, the parts given in the manifest, and the groups, each (N,).

    Parts given in the manifest are kept. A video without one

    1. gets the part of its group, if the manifest gives one part for the group;
    2. else goes to train, if the manifest gives validation videos;
    3. else is drawn at random, stratified, with `settings.seed` and whole groups: the share `test_fraction` into test
       (unless the manifest gives test videos), the share `val_fraction` into val, the rest into train.

    If every video has a part but none is val, val is drawn from the train videos in the same way.

    Raises `TrainError` if train or val would lack a class.
    """
    _check_classes(labels, "the cache's labelled videos", fewest=1)
    names = given.astype(object)
    notes = []
    if num_given := int((names != "").sum()):
        notes.append(f"{counted(num_given, 'video')} assigned by the manifest's split column")
    if num_followers := _follow_groups(names, groups):
        notes.append(f"{counted(num_followers, 'video')} without a split assigned to the part of the group")
    unassigned = names == ""
    drawn = {"test": settings.test_fraction, "val": settings.val_fraction}
    too_few = unassigned.any() and _fewest(labels[unassigned]) < FEWEST_DRAWN
    if (names == "test").any() or not settings.test_fraction or too_few:
        del drawn["test"]
    if not unassigned.any() and not (names == "val").any():
        unassigned, drawn = names == "train", {"val": settings.val_fraction}
    if unassigned.any() and (names == "val").any():
        names[unassigned] = "train"
        num_unassigned = counted(int(unassigned.sum()), "video")
        notes.append(f"{num_unassigned} without a split assigned to train: the manifest gives the validation videos")
    elif unassigned.any():
        notes.append(_draw_parts(names, np.flatnonzero(unassigned), labels, groups, settings, drawn))
    for name in ("train", "val"):
        _check_classes(labels[names == name], f"the {name} split", fewest=1)
    if not (names == "test").any():
        notes.append("no test videos; validation chooses epoch and threshold, so its figures are too good")
    return Split(names=names, notes=notes)


def num_folds(labels: np.ndarray, given: np.ndarray, groups: np.ndarray, settings: TrainSettings) -> int:
    """The number of folds of cross-validation for N videos, each argument (N,); 0: a split into parts.

    `settings.folds` if it is given. Else 0 if the manifest gives a split, or if a test part would have at least
    `FEWEST_TESTED` videos of each class; else `DEFAULT_FOLDS`, or fewer if there are fewer groups of a class.

    Raises `TrainError` if a class has fewer groups of videos than the folds asked for.
    """
    own = own_groups(groups)
    possible = min(len(set(own[labels == label].tolist())) for label in (HARMFUL, SAFE))
    if settings.folds is None:
        enough = not settings.test_fraction or _fewest(labels) * settings.test_fraction >= FEWEST_TESTED
        return 0 if (given != "").any() or enough or possible < FEWEST_DRAWN else min(DEFAULT_FOLDS, possible)
    if settings.folds > possible or (settings.folds and possible < FEWEST_DRAWN):
        raise TrainError(
            f"{settings.folds} folds need at least {max(settings.folds, FEWEST_DRAWN)} groups of videos of each class, "
            f"got {possible} of the rarer class: add videos, or use a smaller --folds (0: none)"
        )
    return settings.folds


def make_folds(labels: np.ndarray, groups: np.ndarray, settings: TrainSettings, *, num_folds: int) -> list[np.ndarray]:
    """For each fold the argument `given` (N,) of `make_split`: `test` for the fold's videos, empty for the others.

    Stratified, with `settings.seed` and whole groups; each video is in the test part of one fold.
    """
    given = []
    for test in _draw_folds(labels, group_numbers(groups), num_folds, settings.seed):
        names = np.full(len(labels), "", dtype=object)
        names[test] = "test"
        given.append(names)
    return given


def inner_folds(labels: np.ndarray, groups: np.ndarray, *, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Folds of n videos, `labels` and `groups` (n,): positions that are fitted on, and that are held out, ascending.

    Stratified, groups whole; each video is held out once, and every fold is fitted on both classes. `INNER_FOLDS` of
    them, or as many as there are groups of the rarer class; empty if that is fewer than two.
    """
    numbers = group_numbers(groups)
    possible = min(len(np.unique(numbers[labels == label])) for label in (HARMFUL, SAFE))
    for num_folds in range(min(INNER_FOLDS, possible), 1, -1):
        drawn = _draw_folds(labels, numbers, num_folds, seed)
        folds = [(np.setdiff1d(np.arange(len(labels)), held_out), held_out) for held_out in drawn]
        if all(_fewest(labels[fitted]) for fitted, _ in folds):
            return folds
    return []


def _draw_folds(labels: np.ndarray, numbers: np.ndarray, num_folds: int, seed: int) -> list[np.ndarray]:
    """The videos of each fold, ascending: stratified, groups whole. `labels` and the groups' `numbers` are (n,)."""
    folds = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed)
    return [held_out for _, held_out in folds.split(labels, labels, _bundled(labels, numbers, seed))]


def _bundled(labels: np.ndarray, numbers: np.ndarray, seed: int) -> np.ndarray:
    """Group numbers (n,) in which videos that are alone in their group share numbers at random, if there are many."""
    is_alone = np.bincount(numbers)[numbers] == 1
    bundled, rng = numbers.copy(), np.random.default_rng(seed)
    for label in (SAFE, HARMFUL):
        rows = np.flatnonzero(is_alone & (labels == label))
        size = math.ceil(len(rows) / MOST_BUNDLES)
        if size > 1:
            rows = rng.permutation(rows)
            bundled[rows] = numbers[rows[np.arange(len(rows)) // size * size]]  # that of the first in the bundle
    return bundled


def _fewest(labels: np.ndarray) -> int:
    return int(min((labels == label).sum() for label in (HARMFUL, SAFE)))


def _check_classes(labels: np.ndarray, where: str, *, fewest: int) -> None:
    counts = {LABEL_NAMES[label]: int((labels == label).sum()) for label in (HARMFUL, SAFE)}
    if min(counts.values()) < fewest:
        short = " and ".join(name for name, count in counts.items() if count < fewest)
        found = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise TrainError(
            f"{where}: {found}; at least {fewest} of each class needed to train and judge a head: add {short} videos, "
            "or change the manifest's split column or --val-fraction"
        )


def _follow_groups(names: np.ndarray, groups: np.ndarray) -> int:
    """Assign videos without a part to the part of their group, if it has one; return their number."""
    parts: dict[str, set[str]] = {}
    for name, group in zip(names, groups, strict=True):
        if name and group:
            parts.setdefault(group, set()).add(name)
    followers = [i for i in np.flatnonzero(names == "") if len(parts.get(groups[i], ())) == 1]
    for i in followers:
        (names[i],) = parts[groups[i]]
    return len(followers)


def _draw_parts(
    names: np.ndarray,
    rows: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    settings: TrainSettings,
    fractions: dict[str, float],
) -> str:
    """Draw the share `fractions` of `rows` (n,) into each part, the rest into train; return a sentence about it."""
    names[rows] = "train"
    left = rows
    for part, fraction in fractions.items():
        drawn = _draw(labels[left], groups[left], min(fraction * len(rows) / len(left), 0.99), settings.seed, part)
        names[left[drawn]] = part
        left = left[~drawn]
    sizes = " and ".join(f"{int((names[rows] == part).sum())} into {part}" for part in fractions)
    whole = ", groups whole" if (groups[rows] != "").any() else ""
    shares = " and ".join(f"{fraction:g}" for fraction in fractions.values())
    return f"of {len(rows)} videos {sizes} drawn (stratified, seed {settings.seed}, fraction {shares}{whole})"


def _draw(labels: np.ndarray, groups: np.ndarray, fraction: float, seed: int, part: str) -> np.ndarray:
    """(n,) bool: whether each video is drawn into `part`."""
    _check_classes(labels, f"the videos to draw a {part} split from", fewest=2)
    num_rows = len(labels)
    drawn = np.zeros(num_rows, dtype=bool)
    if not (groups != "").any():
        for label in (SAFE, HARMFUL):  # each class separately: both get videos on both sides
            rows = np.flatnonzero(labels == label)
            count = int(np.clip(round(fraction * len(rows)), 1, len(rows) - 1))
            _, chosen = train_test_split(rows, test_size=count, random_state=seed)
            drawn[chosen] = True
        return drawn
    numbers = group_numbers(groups)
    if numbers.max() == 0:
        raise TrainError(f"all videos are in the group {groups[0]!r}: a {part} split would have to divide it")
    wanted = fraction * np.bincount(labels, minlength=2)  # (2,) videos of each class

    def distance(rows: np.ndarray) -> float:
        """Distance of a draw from the wanted videos of each class; largest if one side lacks a class."""
        found = np.bincount(labels[rows], minlength=2)
        rest = np.bincount(labels, minlength=2) - found
        return float(np.abs(found - wanted).sum()) + num_rows * bool((found == 0).any() or (rest == 0).any())

    num_draws = min(GROUP_DRAWS, math.ceil(DRAWN_VIDEOS / num_rows))
    draws = GroupShuffleSplit(n_splits=num_draws, test_size=fraction, random_state=seed)
    drawn[min((chosen for _, chosen in draws.split(labels, groups=numbers)), key=distance)] = True
    return drawn
