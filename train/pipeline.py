"""From a plan to a result: one head for a split; or one for each fold, and a last one for all videos."""

import statistics
from dataclasses import dataclass, replace

import numpy as np

from haechi.train.data.split import Split
from haechi.train.evaluate.calibration import Calibration
from haechi.train.evaluate.metrics import metrics_at
from haechi.train.evaluate.threshold import choose_shrunk_threshold
from haechi.train.experiment import Experiment, Trained, prepare, train_all, train_once
from haechi.train.model.baselines import baseline_scores
from haechi.train.model.scores import compute_scores
from haechi.train.plan import Plan
from haechi.train.progress import SILENT, TrainProgress
from haechi.train.result import Baseline, Fold, Result

# The score of the majority class is 1 or 0 for every video.
MAJORITY_THRESHOLD = 0.5


def carry_out(plan: Plan, *, progress: TrainProgress = SILENT) -> Result:
    """Train all heads of a plan and score every labelled video. Raises `DivergedError` when a loss is not finite."""
    if plan.is_folds:
        return _cross_validate(plan, progress)
    experiment = prepare(plan.dataset, plan.settings, plan.splits[0], groups=plan.groups)
    trained = train_once(experiment, progress=progress)
    best, calibration = trained.best, _calibration(trained)
    return Result(
        plan=plan,
        split=experiment.split,
        pos_weight=experiment.pos_weight,
        precision=experiment.precision,
        head=experiment.head,
        epochs=trained.epochs,
        best_epoch=best.number,
        threshold=best.best.threshold,
        choice=best.best,
        rehearsal=trained.rehearsal,
        scores=trained.scores,
        thresholds=np.full(len(trained.scores), best.best.threshold),
        calibration=calibration,
        calibrated=calibration.apply(trained.scores),
        baselines=_baselines(plan, trained),
        folds=[],
        fold=np.zeros(len(plan.dataset.ids), dtype=int),
        seconds=trained.seconds,
    )


def _cross_validate(plan: Plan, progress: TrainProgress) -> Result:
    dataset, labels = plan.dataset, plan.dataset.labels
    num_videos, total = len(labels), len(plan.splits)
    scores, thresholds, calibrated = (np.empty(num_videos) for _ in range(3))
    fold = np.zeros(num_videos, dtype=int)
    folds, calibrations, baselines, seconds = list[Fold](), list[Calibration](), list[dict[str, Baseline]](), 0.0
    for number, split in enumerate(plan.splits, start=1):
        experiment = prepare(dataset, plan.settings, split, groups=plan.groups, nested=True)
        trained = train_once(experiment, what=f"fold {number} of {total}", progress=progress)
        rows, threshold = split.rows("test"), trained.best.best.threshold
        calibrations.append(_calibration(trained))
        scores[rows], thresholds[rows], fold[rows] = trained.scores[rows], threshold, number
        calibrated[rows] = calibrations[-1].apply(scores[rows])
        baselines.append(_baselines(plan, trained))
        folds.append(
            Fold(
                number=number,
                split=split,
                epochs=trained.epochs,
                best_epoch=trained.best.number,
                threshold=threshold,
                num_chosen_on=len(trained.rehearsal.rows),
                met=trained.best.best.met,
                figures=metrics_at(trained.scores[rows], labels[rows], threshold),
                val_figures=trained.best.metrics,
            )
        )
        seconds += trained.seconds
        progress.fold(folds[-1])

    everything = Split(names=np.full(num_videos, "train", dtype=object), notes=[])
    last = prepare(dataset, plan.settings, everything, groups=plan.groups, nested=True)
    kept = _train_last(last, plan, folds, calibrations, progress)
    return Result(
        plan=plan,
        split=replace(everything, names=np.full(num_videos, "test", dtype=object)),
        pos_weight=last.pos_weight,
        precision=last.precision,
        head=last.head,
        epochs=[],
        best_epoch=kept.best_epoch,
        threshold=kept.threshold,
        choice=None,
        rehearsal=None,
        scores=scores,
        thresholds=thresholds,
        calibration=kept.calibration,
        calibrated=calibrated,
        baselines=_join_folds(baselines, folds),
        folds=folds,
        fold=fold,
        seconds=seconds + kept.seconds,
    )


@dataclass(frozen=True, kw_only=True)
class _Last:
    """The head that is trained on all videos."""

    best_epoch: int
    threshold: float
    calibration: Calibration
    seconds: float


def _train_last(
    experiment: Experiment, plan: Plan, folds: list[Fold], calibrations: list[Calibration], progress: TrainProgress
) -> _Last:
    """Train it: a head without a network makes its choices by inner folds as those of the folds did; else they are the
    medians of the folds'."""
    what = "on all videos"
    if experiment.is_nested:
        trained = train_once(experiment, what=what, progress=progress)
        return _Last(
            best_epoch=trained.best.number,
            threshold=trained.best.best.threshold,
            calibration=_calibration(trained),
            seconds=trained.seconds,
        )
    best_epoch = round(statistics.median(each.best_epoch for each in folds))
    return _Last(
        best_epoch=best_epoch,
        threshold=statistics.median(each.threshold for each in folds),
        calibration=Calibration(
            shift=statistics.median(each.shift for each in calibrations),
            temperature=statistics.median(each.temperature for each in calibrations),
        ),
        seconds=train_all(experiment, num_epochs=best_epoch, what=what, progress=progress),
    )


def _calibration(trained: Trained) -> Calibration:
    """The calibration fitted on the videos that the threshold was chosen on."""
    labels, rehearsal = trained.experiment.dataset.labels, trained.rehearsal
    return Calibration.fit(
        compute_scores(rehearsal.logits), labels[rehearsal.rows], pos_weight=trained.experiment.pos_weight
    )


def _baselines(plan: Plan, trained: Trained) -> dict[str, Baseline]:
    """The baselines fitted on the head's training videos; the regression's threshold is chosen as the head's is."""
    experiment, rehearsal = trained.experiment, trained.rehearsal
    labels = experiment.dataset.labels
    scores = baseline_scores(experiment.dataset.features, labels, experiment.fit_rows, trained.regression)
    held_out = compute_scores(rehearsal.regression_logits)
    shrunk_by = experiment.pos_weight if plan.settings.regression else None
    chosen = {
        "majority": MAJORITY_THRESHOLD,
        "logistic_regression": choose_shrunk_threshold(
            held_out, labels[rehearsal.rows], plan.policy, pos_weight=shrunk_by
        ).threshold,
    }
    return {
        name: Baseline(scores=scores[name], thresholds=np.full(len(labels), threshold))
        for name, threshold in chosen.items()
    }


def _join_folds(baselines: list[dict[str, Baseline]], folds: list[Fold]) -> dict[str, Baseline]:
    """Each baseline with the scores and thresholds that it has on the test videos of each fold."""
    result = {}
    for name in baselines[0]:
        scores, thresholds = (np.empty(len(baselines[0][name].scores)) for _ in range(2))
        for fitted, fold in zip(baselines, folds, strict=True):
            rows = fold.split.rows("test")
            scores[rows], thresholds[rows] = fitted[name].scores[rows], fitted[name].thresholds[rows]
        result[name] = Baseline(scores=scores, thresholds=thresholds)
    return result
