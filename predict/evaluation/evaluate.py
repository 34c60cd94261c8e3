"""From the media of a set and a finished run to an `Evaluation`. It trains nothing and chooses nothing."""

import numpy as np

from haechi.cache.reader import Cache
from haechi.cache.schema import UNLABELLED
from haechi.cache.text import counted
from haechi.predict.evaluation.causes import check_policy, find_causes
from haechi.predict.evaluation.disagreements import find_disagreements
from haechi.predict.evaluation.evaluation import Evaluation, RunFacts, SetFacts
from haechi.predict.evaluation.fall import find_changes
from haechi.predict.evaluation.media import Media
from haechi.predict.evaluation.overlap import Overlap, find_overlap
from haechi.predict.evaluation.prevalence import at_prevalences, budget_curve, curve_prevalences, review
from haechi.predict.evaluation.quantify import PrevalenceEstimate, estimate_prevalence
from haechi.predict.evaluation.questions import Questions
from haechi.predict.evaluation.scored import Scored
from haechi.predict.evaluation.slices import find_slices
from haechi.predict.prediction import LONGER
from haechi.train.data.relabel import NewLabels
from haechi.train.data.scenes import find_scenes_of, merge_groups, same_files
from haechi.train.errors import TrainError
from haechi.train.evaluate.calibration import Reliability, measure_reliability
from haechi.train.evaluate.compare import FinishedRun
from haechi.train.model.checkpoint import Checkpoint
from haechi.train.policy import Policy
from haechi.train.training_set import TrainingSet

# With at least this many labelled videos of each class in the set, the share of harmful ones among its unlabelled
# videos is estimated from these and not from the run's own part: they are of the same traffic. Our choice.
ENOUGH_LABELLED = 50


def evaluate(
    run: FinishedRun,
    model: Checkpoint,
    known: TrainingSet | None,
    media: Media,
    cache: Cache,
    *,
    name: str,
    new_labels: NewLabels | None,
    questions: Questions,
) -> Evaluation:
    """Evaluate the head of a run on the media of a set. `name` is the set's, `known` the videos of the run.

    Nothing is trained or chosen: threshold and calibration are those of the run. Raises `TrainError` if the head was
    trained or chosen on all of the media, and they are not kept.
    """
    policy = Policy.parse(model.settings.policy)
    overlap, overlaps = find_overlap(known, media, keep=questions.keep_overlap)
    used = np.ones(len(media), bool) if questions.keep_overlap else ~overlaps
    groups, group_source = _groups(known, media)
    scored = _scored(model, media, groups)
    if not used.any():
        raise TrainError(
            f"{name}: the head of {run.path} was trained or chosen on all of its {counted(len(media), 'video')}: none "
            "is left to evaluate; --keep-overlap evaluates them nevertheless"
        )
    labelled = used & (media.labels != UNLABELLED)
    is_unlabelled = used & (media.labels == UNLABELLED)
    own, here, unlabelled = _own(run), scored.select(labelled), scored.select(is_unlabelled)
    changes = find_changes(own, here) if len(here) else []
    intervals = {change.metric.name: change.here_interval for change in changes}
    return Evaluation(
        run=RunFacts(
            name=run.path.resolve().name,
            kind=model.settings.media,
            head=model.head.description,
            part=run.part,
            is_folds=run.is_folds,
            policy=policy,
            threshold=model.best_threshold,
            untrained=model.untrained,
            fingerprint=model.fingerprint,
        ),
        data=SetFacts(
            name=name,
            labels_file=new_labels.file if new_labels else "",
            num_unlabelled=len(unlabelled),
            num_other_kind=media.num_other_kind,
            failures=cache.failure_counts,
            num_groups=len(set(here.groups.tolist()) - {""}),
            group_source=group_source,
            num_longer=int((media.durations_seconds[used] > LONGER * model.longest_seconds).sum()),
        ),
        own=own,
        here=here,
        ids=media.ids[labelled],
        unlabelled_ids=media.ids[is_unlabelled],
        unlabelled=unlabelled,
        own_figures=own.figures,
        figures=here.figures,
        changes=changes,
        causes=find_causes(own, here, policy) if len(here) else None,
        policy_check=check_policy(own, here, policy) if len(here) else None,
        own_reliability=_reliability(own),
        reliability=_reliability(here) if len(here) else None,
        slices=find_slices(
            here,
            durations_seconds=media.durations_seconds[labelled],
            short_sides=media.short_sides[labelled].astype(np.float64),
            columns={name: values[labelled] for name, values in media.columns.items()},
        )
        if len(here)
        else [],
        prevalences=at_prevalences(here, questions.prevalences),
        prevalence_curve=at_prevalences(here, curve_prevalences().tolist()),
        budgets=review(here, questions.budgets),
        budget_curve=budget_curve(here),
        estimate=_estimate(unlabelled, own, here, model) if len(unlabelled) else None,
        overlap=overlap,
        disagreements=find_disagreements(here),
        verdicts=[each.judge(here.figures, intervals, by_point=questions.by_point) for each in questions.requirements],
        notices=_notices(run, overlap, media, here, new_labels),
    )


def _own(run: FinishedRun) -> Scored:
    return Scored(
        scores=run.scores, labels=run.labels, thresholds=run.thresholds, calibrated=run.calibrated, groups=run.groups
    )


def _scored(model: Checkpoint, media: Media, groups: np.ndarray) -> Scored:
    return Scored(
        scores=media.scores,
        labels=media.labels,
        thresholds=np.full(len(media), model.best_threshold),
        calibrated=model.calibration.apply(media.scores),
        groups=groups,
    )


def _groups(known: TrainingSet | None, media: Media) -> tuple[np.ndarray, str]:
    """The group (n,) of each of n media, and where the groups come from, in words."""
    if known is not None and known.scenes is not None and media.means is not None:
        scenes, found = find_scenes_of(media.means, media.sha256, known.scenes.space), "near-duplicate scenes"
    else:
        scenes, found = same_files(media.sha256), "equal files"
    groups = merge_groups(media.groups, scenes)
    sources = {
        "the manifest": (media.groups != "").any(),
        found: ((groups != "") & (media.groups == "")).any(),
    }
    return groups, " and ".join(source for source, is_used in sources.items() if is_used) or "none"


def _reliability(scored: Scored) -> tuple[Reliability, Reliability]:
    before, after = (measure_reliability(each, scored.labels) for each in (scored.scores, scored.calibrated))
    return before, after


def _estimate(unlabelled: Scored, own: Scored, here: Scored, model: Checkpoint) -> PrevalenceEstimate:
    is_enough = min(here.num_harmful, here.num_safe) >= ENOUGH_LABELLED
    return estimate_prevalence(
        unlabelled.scores,
        unlabelled.calibrated,
        unlabelled.groups,
        threshold=model.best_threshold,
        source=here if is_enough else own,
        name="here" if is_enough else "own",
    )


def _notices(run: FinishedRun, overlap: Overlap, media: Media, here: Scored, new_labels: NewLabels | None) -> list[str]:
    notices = []
    if run.part == "val" and not run.is_folds:
        notices.append(
            "The run has no test part: its own figures are from the validation videos that its threshold was chosen "
            "on. They are too good, so a fall from them is too large."
        )
    if overlap.num_same_group:
        videos = counted(overlap.num_same_group, "labelled video of this set is", "labelled videos of this set are")
        notices.append(
            f"{videos} in groups of the same name as groups that the head was trained or chosen on; if these are the "
            "same sources, leave them out of the set."
        )
    if media.num_unlisted:
        notices.append(f"{counted(media.num_unlisted, 'video')} left out that the file of labels does not list.")
    if new_labels is not None and new_labels.unused:
        spelling = (
            f"; {counted(len(new_labels.others), 'of them is', 'of them are')} there under another spelling"
            if new_labels.others
            else ""
        )
        notices.append(
            f"{counted(len(new_labels.unused), 'row')} of the file of labels not used: this set has no features for "
            f"these ids{spelling}."
        )
    if len(here) and not here.num_harmful:
        notices.append("No labelled video of this set is harmful: recall, F1 and what rests on them are undefined.")
    if len(here) and not here.num_safe:
        notices.append("No labelled video of this set is safe: precision says nothing about false alarms.")
    return notices
