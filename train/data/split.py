"""Which video trains, which chooses epoch and threshold, which is only scored at the end."""

from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import GroupShuffleSplit, StratifiedGroupKFold, train_test_split

from haechi.cache.schema import HARMFUL, LABEL_NAMES, SAFE, SPLITS
from haechi.train.errors import TrainError
from haechi.train.settings import TrainSettings

# A drawn part that must keep groups whole is the best of so many draws.
GROUP_DRAWS = 200

# A test part with fewer videos of a class judges nothing: each of them moves that class's recall by a tenth and more.
FEWEST_TESTED = 10

# One of a class for each of three parts; in cross-validation as well, where a fold is the test part.
FEWEST_DRAWN = 3

DEFAULT_FOLDS = 5


@dataclass(frozen=True, kw_only=True)
class Split:
    """Where each of the N labelled videos stands."""

    names: np.ndarray
    """(N,) str: train, val or test."""
    notes: list[str]
    """How it came about, a sentence each, for the user."""

    def rows(self, name: str) -> np.ndarray:
        """(n,) int64: the videos of one part, in the dataset's order."""
        return np.flatnonzero(self.names == name)

    def counts(self, labels: np.ndarray) -> dict[str, dict[str, int]]:
        """Harmful and safe videos of each part that has any."""
        return {
            name: {LABEL_NAMES[label]: int((labels[rows] == label).sum()) for label in (HARMFUL, SAFE)}
            for name in SPLITS
            if len(rows := self.rows(name))
        }


def make_split(labels: np.ndarray, given: np.ndarray, groups: np.ndarray, settings: TrainSettings) -> Split:
    """Decide the split of N labelled videos from their labels, given splits and groups, each (N,).

    What the manifest says holds. A video of which it says nothing

    1. follows its group, where the group is said to be in one part;
    2. else trains, where the manifest names validation videos;
    3. else is drawn: stratified, seeded, groups whole, `test_fraction` of them into test unless the manifest names test
       videos, `val_fraction` of them into val, the rest into train.

    Where all is said but none is val, val is drawn from the train videos in the same way.

    Raises `TrainError` where train or val would lack a class.
    """
    _check_classes(labels, "the cache's labelled videos", fewest=1)
    names = given.astype(object)
    notes = []
    said = names != ""
    if said.any():
        notes.append(f"{int(said.sum())} videos stand where the manifest's split column says")
    if followers := _follow_groups(names, groups):
        notes.append(f"{followers} videos without a split follow their group")
    unsaid = names == ""
    drawn = {"test": settings.test_fraction, "val": settings.val_fraction}
    too_few = unsaid.any() and _fewest(labels[unsaid]) < FEWEST_DRAWN
    if (names == "test").any() or not settings.test_fraction or too_few:
        del drawn["test"]
    if not unsaid.any() and not (names == "val").any():
        unsaid, drawn = names == "train", {"val": settings.val_fraction}
    if unsaid.any() and (names == "val").any():
        names[unsaid] = "train"
        notes.append(
            f"{int(unsaid.sum())} videos without a split train, since the manifest names the validation videos"
        )
    elif unsaid.any():
        notes.append(_draw_parts(names, np.flatnonzero(unsaid), labels, groups, settings, drawn))
    for name in ("train", "val"):
        _check_classes(labels[names == name], f"the {name} split", fewest=1)
    if not (names == "test").any():
        notes.append("no test videos: the figures of validation are too good, since it chooses epoch and threshold")
    return Split(names=names, notes=notes)


def num_folds(labels: np.ndarray, given: np.ndarray, groups: np.ndarray, settings: TrainSettings) -> int:
    """Folds of cross-validation for N videos, each argument (N,); 0: a split into parts.

    As the settings say. Where they say nothing, the manifest's split holds if it has one; without, cross-validation
    takes the place of a test part that would hold fewer than `FEWEST_TESTED` videos of a class.

    Raises `TrainError` where the videos of a class, whole groups of them, do not suffice for the folds asked for.
    """
    own = own_groups(groups)
    possible = min(len(set(own[labels == label].tolist())) for label in (HARMFUL, SAFE))
    if settings.folds is None:
        enough = not settings.test_fraction or _fewest(labels) * settings.test_fraction >= FEWEST_TESTED
        return 0 if (given != "").any() or enough or possible < FEWEST_DRAWN else min(DEFAULT_FOLDS, possible)
    if settings.folds > possible or (settings.folds and possible < FEWEST_DRAWN):
        raise TrainError(
            f"{settings.folds} folds need as many groups of videos of each class, and at least {FEWEST_DRAWN}; the "
            f"rarer class has {possible}: add videos, or say a smaller --folds (0: none)"
        )
    return settings.folds


def make_folds(labels: np.ndarray, groups: np.ndarray, settings: TrainSettings, *, num_folds: int) -> list[np.ndarray]:
    """For each fold, `given` (N,) as `make_split` takes it: `test` for the fold's videos, empty for the others.

    Stratified, seeded, groups whole; each video is in one fold's test.
    """
    folds = StratifiedGroupKFold(num_folds, shuffle=True, random_state=settings.seed)
    given = []
    for _, test in folds.split(labels, labels, own_groups(groups)):
        names = np.full(len(labels), "", dtype=object)
        names[test] = "test"
        given.append(names)
    return given


def own_groups(groups: np.ndarray) -> np.ndarray:
    """(N,) str: the groups, a video without one being a group of its own, by a name that no manifest can hold."""
    return np.array([group or f"\0{i}" for i, group in enumerate(groups)], dtype=object)


def group_numbers(groups: np.ndarray) -> np.ndarray:
    """(N,) int: the number of each video's own group (see `own_groups`), from 0."""
    numbers: np.ndarray = np.unique(own_groups(groups).astype(str), return_inverse=True)[1]
    return numbers


def _fewest(labels: np.ndarray) -> int:
    return int(min((labels == label).sum() for label in (HARMFUL, SAFE)))


def _check_classes(labels: np.ndarray, where: str, *, fewest: int) -> None:
    counts = {LABEL_NAMES[label]: int((labels == label).sum()) for label in (HARMFUL, SAFE)}
    if min(counts.values()) < fewest:
        short = " and ".join(name for name, count in counts.items() if count < fewest)
        told = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise TrainError(
            f"{where}: {told}; at least {fewest} of each class needed, since a head can neither learn nor be judged "
            f"on one class: add {short} videos, or change the manifest's split column or --val-fraction"
        )


def _follow_groups(names: np.ndarray, groups: np.ndarray) -> int:
    """Give unsaid videos the part that their group is said to be in; how many there were."""
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
    """Draw the videos of `rows` (n,) into parts with these fractions, and the rest into train; how, in a sentence."""
    names[rows] = "train"
    left = rows
    for part, fraction in fractions.items():
        drawn = _draw(labels[left], groups[left], min(fraction * len(rows) / len(left), 0.99), settings.seed, part)
        names[left[drawn]] = part
        left = left[~drawn]
    told = " and ".join(f"{int((names[rows] == part).sum())} into {part}" for part in fractions)
    whole = ", groups whole" if (groups[rows] != "").any() else ""
    shares = " and ".join(f"{fraction:g}" for fraction in fractions.values())
    return f"of {len(rows)} videos {told} drawn (stratified, seed {settings.seed}, fraction {shares}{whole})"


def _draw(labels: np.ndarray, groups: np.ndarray, fraction: float, seed: int, part: str) -> np.ndarray:
    """(n,) bool: the videos drawn for a part."""
    _check_classes(labels, f"the videos to draw a {part} split from", fewest=2)
    num_rows = len(labels)
    drawn = np.zeros(num_rows, dtype=bool)
    if not (groups != "").any():
        for label in (SAFE, HARMFUL):  # each class on its own, so that both have videos on both sides
            rows = np.flatnonzero(labels == label)
            count = int(np.clip(round(fraction * len(rows)), 1, len(rows) - 1))
            _, chosen = train_test_split(rows, test_size=count, random_state=seed)
            drawn[chosen] = True
        return drawn
    numbers = group_numbers(groups)
    if numbers.max() == 0:
        raise TrainError(f"all videos are of the group {groups[0]!r}: no {part} split can keep it whole")
    wanted = fraction * np.bincount(labels, minlength=2)  # (2,) videos of each class

    def distance(rows: np.ndarray) -> float:
        """How far a draw is from the wanted share of each class; a missing class is further than any other draw."""
        found = np.bincount(labels[rows], minlength=2)
        rest = np.bincount(labels, minlength=2) - found
        return float(np.abs(found - wanted).sum()) + num_rows * bool((found == 0).any() or (rest == 0).any())

    draws = GroupShuffleSplit(n_splits=GROUP_DRAWS, test_size=fraction, random_state=seed)
    drawn[min((chosen for _, chosen in draws.split(labels, groups=numbers)), key=distance)] = True
    return drawn
