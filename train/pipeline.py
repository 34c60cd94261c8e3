"""From a plan to a result: one head on a split, or one a fold and a last one on everything."""

import statistics
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from haechi.train.data.split import Split
from haechi.train.evaluate.calibration import Calibration
from haechi.train.evaluate.metrics import metrics_at
from haechi.train.evaluate.threshold import choose_threshold
from haechi.train.experiment import Experiment, Track, Trained, prepare, train_all, train_once
from haechi.train.model.baselines import fit_baselines
from haechi.train.model.fit import Epoch
from haechi.train.plan import Plan
from haechi.train.result import Baseline, Fold, Result

# The majority class has the score 1 or 0 everywhere.
MAJORITY_THRESHOLD = 0.5


def carry_out(
    plan: Plan,
    *,
    begin: Callable[[Experiment, str], Track] = lambda experiment, title: iter,
    show: Callable[[Epoch], object] = lambda epoch: None,
    show_fold: Callable[[Fold], object] = lambda fold: None,
) -> Result:
    """Train all heads of a plan and score every labelled video.

    `begin` is told of each head that will be trained and gives what is told of its batches (see `fit`); `show` is given
    each epoch of a split into parts, `show_fold` each fold when it is over. Raises `DivergedError` where a loss is not
    finite.
    """
    if plan.is_folds:
        return _cross_validated(plan, begin, show_fold)
    experiment = prepare(plan.dataset, plan.settings, plan.splits[0])
    trained = train_once(experiment, show=show, track=begin(experiment, "training"))
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
        scores=trained.scores,
        thresholds=np.full(len(trained.scores), best.best.threshold),
        calibration=calibration,
        calibrated=calibration.apply(trained.scores),
        baselines=_baselines(plan, experiment),
        folds=[],
        fold=np.zeros(len(plan.dataset.ids), dtype=int),
        seconds=trained.seconds,
    )


def _cross_validated(
    plan: Plan, begin: Callable[[Experiment, str], Track], show_fold: Callable[[Fold], object]
) -> Result:
    dataset, labels = plan.dataset, plan.dataset.labels
    num_videos, total = len(labels), len(plan.splits)
    scores, thresholds, calibrated = (np.empty(num_videos) for _ in range(3))
    fold = np.zeros(num_videos, dtype=int)
    folds, calibrations, of_baselines, seconds = list[Fold](), list[Calibration](), list[dict[str, Baseline]](), 0.0
    for number, split in enumerate(plan.splits, start=1):
        experiment = prepare(dataset, plan.settings, split)
        trained = train_once(experiment, track=begin(experiment, f"fold {number} of {total}"))
        rows, threshold = split.rows("test"), trained.best.best.threshold
        calibrations.append(_calibration(trained))
        scores[rows], thresholds[rows], fold[rows] = trained.scores[rows], threshold, number
        calibrated[rows] = calibrations[-1].apply(scores[rows])
        of_baselines.append(_baselines(plan, experiment))
        folds.append(
            Fold(
                number=number,
                split=split,
                epochs=trained.epochs,
                best_epoch=trained.best.number,
                threshold=threshold,
                met=trained.best.best.met,
                figures=metrics_at(trained.scores[rows], labels[rows], threshold),
                val_figures=trained.best.metrics,
            )
        )
        seconds += trained.seconds
        show_fold(folds[-1])

    calibration = Calibration(
        shift=statistics.median(of_fold.shift for of_fold in calibrations),
        temperature=statistics.median(of_fold.temperature for of_fold in calibrations),
    )
    best_epoch = round(statistics.median(of_fold.best_epoch for of_fold in folds))
    everything = Split(names=np.full(num_videos, "train", dtype=object), notes=[])
    last = prepare(dataset, plan.settings, everything)
    seconds += train_all(last, num_epochs=best_epoch, track=begin(last, "on all videos"))
    return Result(
        plan=plan,
        split=replace(everything, names=np.full(num_videos, "test", dtype=object)),
        pos_weight=last.pos_weight,
        precision=last.precision,
        head=last.head,
        epochs=[],
        best_epoch=best_epoch,
        threshold=statistics.median(of_fold.threshold for of_fold in folds),
        choice=None,
        scores=scores,
        thresholds=thresholds,
        calibration=calibration,
        calibrated=calibrated,
        baselines=_joined(of_baselines, folds),
        folds=folds,
        fold=fold,
        seconds=seconds,
    )


def _calibration(trained: Trained) -> Calibration:
    """Fitted on the validation videos."""
    rows = trained.experiment.split.rows("val")
    labels = trained.experiment.dataset.labels
    return Calibration.fit(trained.scores[rows], labels[rows], pos_weight=trained.experiment.pos_weight)


def _baselines(plan: Plan, experiment: Experiment) -> dict[str, Baseline]:
    """Fitted on the videos that the head is trained on, the regression's threshold chosen where the head's is."""
    dataset, val = plan.dataset, experiment.split.rows("val")
    labels = dataset.labels
    scores = fit_baselines(
        dataset.features,
        labels,
        experiment.split.rows("train"),
        pos_weight=experiment.pos_weight,
        regression=experiment.head.regression,
    ).scores
    chosen = {
        "majority": MAJORITY_THRESHOLD,
        "logistic_regression": choose_threshold(scores["logistic_regression"][val], labels[val], plan.policy).threshold,
    }
    return {
        name: Baseline(scores=scores[name], thresholds=np.full(len(labels), threshold))
        for name, threshold in chosen.items()
    }


def _joined(of_folds: list[dict[str, Baseline]], folds: list[Fold]) -> dict[str, Baseline]:
    """Each baseline as it is on every fold's own videos."""
    result = {}
    for name in of_folds[0]:
        scores, thresholds = (np.empty(len(of_folds[0][name].scores)) for _ in range(2))
        for baselines, fold in zip(of_folds, folds, strict=True):
            rows = fold.split.rows("test")
            scores[rows], thresholds[rows] = baselines[name].scores[rows], baselines[name].thresholds[rows]
        result[name] = Baseline(scores=scores, thresholds=thresholds)
    return result
