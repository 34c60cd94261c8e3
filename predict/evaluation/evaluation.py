"""The result of `haechi evaluate`: a frozen head on a set of videos that it was not trained on."""

from dataclasses import dataclass

import numpy as np

from haechi.predict.evaluation.causes import Causes, PolicyCheck
from haechi.predict.evaluation.disagreements import Disagreement
from haechi.predict.evaluation.fall import Change
from haechi.predict.evaluation.overlap import Overlap
from haechi.predict.evaluation.prevalence import AtPrevalence, Budget
from haechi.predict.evaluation.quantify import PrevalenceEstimate
from haechi.predict.evaluation.scored import Scored
from haechi.predict.evaluation.slices import Slice
from haechi.train.evaluate.calibration import Reliability
from haechi.train.evaluate.metrics import Figures
from haechi.train.evaluate.requirement import Verdict
from haechi.train.policy import Policy


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """The run that is evaluated."""

    name: str
    """Name of its folder."""
    kind: str
    """`video` or `image`."""
    head: str
    """What the head is (`Head.description`)."""
    part: str
    """The part that its own figures are from: `test`, or `val` where it has no test part."""
    is_folds: bool
    """Whether its own figures are out of fold."""
    policy: Policy
    threshold: float
    untrained: list[str]
    """Backbones with random weights whose features the head sees."""
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class SetFacts:
    """The set that the head is evaluated on."""

    name: str
    """Name of the cache, folder or manifest."""
    labels_file: str
    """Name of the file of labels; empty: the labels are those of the cache."""
    num_unlabelled: int
    """Videos without a label that were scored."""
    num_other_kind: int
    """Media of a kind that the head is not for."""
    failures: dict[str, int]
    """Reason -> files that could not be used."""
    num_groups: int
    """Groups of evaluated videos."""
    group_source: str
    """Where the groups come from, in words."""
    num_longer: int
    """Videos much longer than the longest training video (`prediction.LONGER`): their scores are doubtful."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A frozen head on N labelled and U unlabelled videos."""

    run: RunFacts
    data: SetFacts
    own: Scored | None
    """The run's own test part, or all its videos out of fold; None: the run has no such figures."""
    here: Scored
    """The N labelled videos, without overlap unless it was kept."""
    ids: np.ndarray
    """(N,) str"""
    unlabelled_ids: np.ndarray
    """(U,) str"""
    unlabelled: Scored
    """The U unlabelled videos; their labels are -1."""
    own_figures: Figures | None
    figures: Figures
    """`metrics_at` of the N videos."""
    changes: list[Change]
    """One for each metric; empty if no video is labelled."""
    causes: Causes | None
    policy_check: PolicyCheck | None
    own_reliability: tuple[Reliability, Reliability] | None
    """In the run's own part, before and after calibration."""
    reliability: tuple[Reliability, Reliability] | None
    """On this set; None if no video is labelled."""
    slices: list[Slice]
    prevalences: list[AtPrevalence]
    """Those that were asked for."""
    prevalence_curve: list[AtPrevalence]
    """At each of `prevalence.curve_prevalences`, for the page."""
    budgets: list[Budget]
    """Those that were asked for."""
    budget_curve: list[tuple[int, float]]
    """Points (reviewed, found)."""
    estimate: PrevalenceEstimate | None
    """Of the U unlabelled videos; None: there are none."""
    overlap: Overlap
    disagreements: list[Disagreement]
    verdicts: list[Verdict]
    """Of the requirements."""
    notices: list[str]
    """What the reader should know, one sentence each."""
