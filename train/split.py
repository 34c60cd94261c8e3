"""Which video trains, which chooses epoch and threshold, which is only scored at the end."""

from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import GroupShuffleSplit, train_test_split

from cache.errors import bullet_list
from cache.schema import HARMFUL, LABEL_NAMES, SAFE, SPLITS
from train.errors import TrainError
from train.settings import TrainSettings

# A drawn validation split that must keep groups whole is the best of so many draws.
GROUP_DRAWS = 200


@dataclass(frozen=True, kw_only=True)
class Split:
    """Where each of the N labelled videos stands."""

    names: np.ndarray
    """(N,) str: train, val or test."""
    notes: list[str]
    """How it came about, a sentence each, for the user."""
    warnings: list[str]
    """What may make its numbers too good."""

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
    3. else is drawn into train or val: stratified, seeded, `val_fraction` of them in val, groups whole.

    Where all is said but none is val, val is drawn from the train videos in the same way. A test part exists only where
    the manifest names one.

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
    if not unsaid.any() and not (names == "val").any():
        unsaid = names == "train"
    if unsaid.any() and (names == "val").any():
        names[unsaid] = "train"
        notes.append(
            f"{int(unsaid.sum())} videos without a split train, since the manifest names the validation videos"
        )
    elif unsaid.any():
        rows = np.flatnonzero(unsaid)
        in_val = _draw_val(labels[rows], groups[rows], settings)
        names[rows] = np.where(in_val, "val", "train")
        whole = ", groups whole" if (groups[rows] != "").any() else ""
        notes.append(
            f"{int(in_val.sum())} of {len(rows)} videos drawn for validation "
            f"(stratified, seed {settings.seed}, fraction {settings.val_fraction:g}{whole})"
        )
    for name in ("train", "val"):
        _check_classes(labels[names == name], f"the {name} split", fewest=1)
    return Split(names=names, notes=notes, warnings=_straddling(names, groups))


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


def _draw_val(labels: np.ndarray, groups: np.ndarray, settings: TrainSettings) -> np.ndarray:
    """(n,) bool: the videos drawn for validation."""
    _check_classes(labels, "the videos to draw a validation split from", fewest=2)
    num_rows = len(labels)
    in_val = np.zeros(num_rows, dtype=bool)
    if not (groups != "").any():
        for label in (SAFE, HARMFUL):  # each class on its own, so that both have videos on both sides
            rows = np.flatnonzero(labels == label)
            num_val = int(np.clip(round(settings.val_fraction * len(rows)), 1, len(rows) - 1))
            _, drawn = train_test_split(rows, test_size=num_val, random_state=settings.seed)
            in_val[drawn] = True
        return in_val
    # A video without a group is a group of its own.
    own = [(group, "") if group else ("", str(i)) for i, group in enumerate(groups)]
    _, group_numbers = np.unique([f"{a}\0{b}" for a, b in own], return_inverse=True)
    if group_numbers.max() == 0:
        raise TrainError(f"all videos are of the group {groups[0]!r}: no validation split can keep it whole")
    wanted = settings.val_fraction * np.bincount(labels, minlength=2)  # (2,) videos of each class in val

    def distance(rows: np.ndarray) -> float:
        """How far val is from the wanted share of each class; a missing class is further than any other draw."""
        found = np.bincount(labels[rows], minlength=2)
        rest = np.bincount(labels, minlength=2) - found
        return float(np.abs(found - wanted).sum()) + num_rows * bool((found == 0).any() or (rest == 0).any())

    draws = GroupShuffleSplit(n_splits=GROUP_DRAWS, test_size=settings.val_fraction, random_state=settings.seed)
    in_val[min((val for _, val in draws.split(labels, groups=group_numbers)), key=distance)] = True
    return in_val


def same_bytes(names: np.ndarray, sha256: np.ndarray, ids: np.ndarray) -> list[str]:
    """One warning that names the files which stand in several parts under different ids; arguments are (N,)."""
    found = []
    unique, copies = np.unique(sha256, return_counts=True)
    for digest in unique[copies > 1]:
        rows = np.flatnonzero(sha256 == digest)
        if len(set(names[rows])) > 1:
            found.append(", ".join(f"{ids[row]!r} in {names[row]}" for row in rows))
    if not found:
        return []
    return [
        f"the same file in several parts of the split, so that scores are too good: {len(found)}\n{bullet_list(found)}"
    ]


def _straddling(names: np.ndarray, groups: np.ndarray) -> list[str]:
    """One warning that names the groups which stand in several parts."""
    found = []
    for group in sorted(set(groups[groups != ""])):
        parts = sorted(set(names[groups == group]), key=SPLITS.index)
        if len(parts) > 1:
            found.append(f"{group!r} in {', '.join(parts)}")
    if not found:
        return []
    return [
        f"groups that stand in several parts of the split, so that scores may be too good: {len(found)}\n"
        f"{bullet_list(found)}"
    ]
