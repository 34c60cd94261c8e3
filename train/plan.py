"""The plan of a run: which videos belong together, and the part of the split of each video."""

from dataclasses import dataclass

import numpy as np

from haechi.cache.groups import group_summary
from haechi.cache.text import counted
from haechi.train.data.dataset import Dataset
from haechi.train.data.leaks import Leaks, find_leaks
from haechi.train.data.scenes import Scenes, find_scenes, merge_groups, same_files
from haechi.train.data.split import Split, make_folds, make_split, num_folds
from haechi.train.errors import TrainError
from haechi.train.policy import Policy
from haechi.train.settings import TrainSettings


@dataclass(frozen=True, kw_only=True)
class Grouping:
    """Groups of the N labelled videos that belong together and are never divided by a split."""

    groups: np.ndarray
    """(N,) str: the manifest's group or that of `group_by`, else the scene found in the cache; empty: no group."""
    source: str
    """Source of the groups: `manifest` or `group_by`, `scenes`, both with a comma, or `none`."""
    scenes: Scenes
    """Without `settings.scenes`, only files with the same bytes are one scene."""

    @classmethod
    def find(cls, dataset: Dataset, settings: TrainSettings) -> "Grouping":
        """Find the scenes of a dataset. Raises `CacheError` if the cache is damaged."""
        scenes = find_scenes(dataset.cache, dataset.videos) if settings.scenes else same_files(dataset.sha256)
        groups = merge_groups(dataset.groups, scenes)
        sources = {
            "group_by" if settings.group_by else "manifest": (dataset.groups != "").any(),
            "scenes": ((groups != "") & (dataset.groups == "")).any(),
        }
        return cls(
            groups=groups, source=", ".join(name for name, used in sources.items() if used) or "none", scenes=scenes
        )

    @property
    def count(self) -> int:
        """The number of groups, without videos that have none."""
        return len(set(self.groups[self.groups != ""].tolist()))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run before its first epoch."""

    dataset: Dataset
    grouping: Grouping
    settings: TrainSettings
    splits: list[Split]
    """One, or one for each fold of cross-validation."""
    leaks: Leaks
    """The leaks of the split, or of all folds: only a split or groups from the manifest can have any."""
    notes: list[str]
    """How the split was made, one sentence each, for the user."""

    @property
    def is_folds(self) -> bool:
        """Whether it cross-validates."""
        return len(self.splits) > 1

    @property
    def groups(self) -> np.ndarray:
        """(N,) str; empty: no group."""
        return self.grouping.groups

    @property
    def policy(self) -> Policy:
        """The policy for choosing the threshold."""
        return Policy.parse(self.settings.policy)

    @property
    def warnings(self) -> list[str]:
        """What makes the figures too good."""
        return self.leaks.warnings


def make_plan(dataset: Dataset, grouping: Grouping, settings: TrainSettings) -> Plan:
    """Draw the split, or the folds.

    Raises `TrainError` if train or val would lack a class, or if there are too few videos for the folds asked for.
    """
    try:
        return _plan(dataset, grouping, settings)
    except TrainError as error:
        if "scenes" not in grouping.source or not settings.scenes:
            raise
        raise TrainError(
            f"{error}\n{counted(grouping.count, 'group')} of near-duplicate videos kept whole; if they are not "
            "duplicates, use --no-scenes"
        ) from error


def _plan(dataset: Dataset, grouping: Grouping, settings: TrainSettings) -> Plan:
    labels, groups = dataset.labels, grouping.groups
    folds = num_folds(labels, dataset.splits, groups, settings)
    if folds:
        given = make_folds(labels, groups, settings, num_folds=folds)
        splits = [make_split(labels, names, groups, settings) for names in given]
        why = "" if settings.folds else ", since a test part would have too few videos of a class"
        notes = [
            f"cross-validation: {folds} folds, stratified, seed {settings.seed}, groups whole{why}",
            f"in each fold, a share of {settings.val_fraction:g} of the other videos chooses epoch and threshold"
            if settings.network
            else "in each fold, inner folds of the other videos choose regularisation, moments and threshold",
        ]
        if (dataset.splits != "").any():
            notes.append("the manifest's split column is ignored because of --folds")
    else:
        splits = [make_split(labels, dataset.splits, groups, settings)]
        notes = list(splits[0].notes)
    if dataset.num_not_sampled:
        total = len(dataset.ids) + dataset.num_not_sampled
        drawn = f"a sample of {len(dataset.ids):,} of {total:,} labelled videos"
        notes.insert(0, f"{drawn} (stratified, groups whole, seed {settings.seed})")
    if settings.group_by:
        notes = [f"group_by gives {group_summary(dataset.groups.tolist())}", *notes]
    if settings.unused:
        notes.append(f"no effect without a network: {', '.join(settings.unused)} (--preset network has one)")
    leaks = [
        find_leaks(split.names, ids=dataset.ids, groups=dataset.groups, sha256=dataset.sha256, scenes=grouping.scenes)
        for split in splits
    ]
    return Plan(
        dataset=dataset,
        grouping=grouping,
        settings=settings,
        splits=splits,
        leaks=Leaks.from_folds(leaks) if folds else leaks[0],
        notes=notes,
    )
