"""What a run will do, before it does: which videos belong together, and where each of them stands."""

from dataclasses import dataclass

import numpy as np

from haechi.train.data.dataset import Dataset
from haechi.train.data.leaks import Leaks, find_leaks
from haechi.train.data.scenes import Scenes, find_scenes, group_of, same_files
from haechi.train.data.split import Split, make_folds, make_split, num_folds
from haechi.train.errors import TrainError
from haechi.train.policy import Policy
from haechi.train.settings import TrainSettings


@dataclass(frozen=True, kw_only=True)
class Grouping:
    """Which of the N labelled videos belong together and never straddle a split."""

    groups: np.ndarray
    """(N,) str: the manifest's group, else the scene found in the cache; empty: a video on its own."""
    source: str
    """Where they come from: `manifest`, `scenes`, `manifest, scenes` or `none`."""
    scenes: Scenes
    """Without `settings.scenes`, by the files' bytes alone."""

    @classmethod
    def of(cls, dataset: Dataset, settings: TrainSettings) -> "Grouping":
        """Search a dataset for scenes. Raises `CacheError` where the cache is damaged."""
        scenes = find_scenes(dataset.cache, dataset.videos) if settings.scenes else same_files(dataset.sha256)
        groups = group_of(dataset.groups, scenes)
        sources = {
            "manifest": (dataset.groups != "").any(),
            "scenes": ((groups != "") & (dataset.groups == "")).any(),
        }
        return cls(
            groups=groups, source=", ".join(name for name, used in sources.items() if used) or "none", scenes=scenes
        )

    @property
    def count(self) -> int:
        """Groups, a video on its own not being one."""
        return len(set(self.groups[self.groups != ""].tolist()))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run before its first epoch."""

    dataset: Dataset
    grouping: Grouping
    settings: TrainSettings
    splits: list[Split]
    """One, or one a fold of cross-validation."""
    leaks: Leaks
    """What stands on two sides of a split that the manifest gave, or of a fold whose groups the manifest gave."""
    notes: list[str]
    """How the split came about, a sentence each, for the user."""

    @property
    def is_folds(self) -> bool:
        """Whether it cross-validates."""
        return len(self.splits) > 1

    @property
    def groups(self) -> np.ndarray:
        """(N,) str; empty: a video on its own."""
        return self.grouping.groups

    @property
    def policy(self) -> Policy:
        """What the threshold is chosen for."""
        return Policy.parse(self.settings.policy)

    @property
    def warnings(self) -> list[str]:
        """What may make the figures too good."""
        return self.leaks.warnings


def make_plan(dataset: Dataset, grouping: Grouping, settings: TrainSettings) -> Plan:
    """Draw the split, or the folds.

    Raises `TrainError` where train or val would lack a class, or the videos do not suffice for the folds asked for.
    """
    try:
        return _plan(dataset, grouping, settings)
    except TrainError as error:
        if "scenes" not in grouping.source or not settings.scenes:
            raise
        raise TrainError(
            f"{error}\n{grouping.count} groups of near-duplicate videos are kept whole; if they are no duplicates, say "
            "--no-scenes"
        ) from error


def _plan(dataset: Dataset, grouping: Grouping, settings: TrainSettings) -> Plan:
    labels, groups = dataset.labels, grouping.groups
    folds = num_folds(labels, dataset.splits, groups, settings)
    if folds:
        given = make_folds(labels, groups, settings, num_folds=folds)
        splits = [make_split(labels, of_fold, groups, settings) for of_fold in given]
        why = "" if settings.folds else ", since a test part would hold too few videos of a class"
        notes = [
            f"cross-validation: {folds} folds, stratified, seed {settings.seed}, groups whole{why}",
            f"in each fold, {settings.val_fraction:g} of the videos, not the fold's own, choose epoch and threshold",
        ]
        if (dataset.splits != "").any():
            notes.append("the manifest's split column is set aside, since --folds was said")
    else:
        splits = [make_split(labels, dataset.splits, groups, settings)]
        notes = splits[0].notes
    of_splits = [
        find_leaks(split.names, ids=dataset.ids, groups=dataset.groups, sha256=dataset.sha256, scenes=grouping.scenes)
        for split in splits
    ]
    return Plan(
        dataset=dataset,
        grouping=grouping,
        settings=settings,
        splits=splits,
        leaks=of_splits[0] if not folds else Leaks.of_tests(of_splits),
        notes=notes,
    )
