"""The files of an evaluation for programs: evaluation.json and scores.csv."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from haechi.predict.evaluation.causes import Causes, PolicyCheck
from haechi.predict.evaluation.evaluation import Evaluation
from haechi.predict.evaluation.scored import Scored
from haechi.predict.evaluation.slices import Slice
from haechi.train import run_folder
from haechi.train.evaluate.calibration import Reliability
from haechi.train.evaluate.threshold import predict
from haechi.train.output.csv_columns import write_columns


def evaluation_record(evaluation: Evaluation) -> dict[str, Any]:
    """The contents of evaluation.json. It has no times and no paths, so that equal evaluations give equal records."""
    run, overlap = evaluation.run, evaluation.overlap
    return {
        "format": run_folder.EVALUATION_FORMAT,
        "format_version": run_folder.EVALUATION_VERSION,
        "run": {
            "name": run.name,
            "kind": run.kind,
            "head": run.head,
            "part": run.part,
            "is_folds": run.is_folds,
            "policy": run.policy.text,
            "threshold": run.threshold,
            "untrained": run.untrained,
            "fingerprint": run.fingerprint,
        },
        "data": asdict(evaluation.data),
        "notices": evaluation.notices,
        "counts": {"own": _counts(evaluation.own), "here": _counts(evaluation.here)},
        "metrics": {"own": evaluation.own_figures, "here": evaluation.figures},
        "changes": {
            change.metric.name: {
                "own": change.own,
                "own_interval": change.own_interval,
                "here": change.here,
                "here_interval": change.here_interval,
                "difference": change.difference,
                "difference_interval": change.difference_interval,
            }
            for change in evaluation.changes
        },
        "causes": _causes(evaluation.causes),
        "policy": _policy(evaluation.policy_check),
        "calibration": {
            "own": _reliability(evaluation.own_reliability),
            "here": _reliability(evaluation.reliability),
        },
        "slices": [_slice(each) for each in evaluation.slices],
        "prevalences": [asdict(each) for each in evaluation.prevalences],
        "prevalence_curve": [asdict(each) for each in evaluation.prevalence_curve],
        "budgets": [asdict(each) for each in evaluation.budgets],
        "budget_curve": evaluation.budget_curve,
        "estimate": asdict(evaluation.estimate) if evaluation.estimate else None,
        "overlap": {
            "count": len(overlap.pairs),
            "kept": overlap.kept,
            "num_test": overlap.num_test,
            "num_same_group": overlap.num_same_group,
            "unchecked": overlap.unchecked,
            "pairs": [asdict(pair) for pair in overlap.pairs],
        },
        "disagreements": {
            "count": len(evaluation.disagreements),
            "likely_label_errors": sum(each.is_likely_label_error for each in evaluation.disagreements),
        },
        "requirements": [verdict.record() for verdict in evaluation.verdicts],
    }


def write_evaluation(path: Path, evaluation: Evaluation) -> None:
    """Write evaluation.json."""
    text = json.dumps(evaluation_record(evaluation), indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def write_scores(path: Path, evaluation: Evaluation) -> None:
    """Write scores.csv: one row for each video that was scored and used; label and group are empty where unknown.

    Scores have all their digits, as in the predictions.csv of a run.
    """
    both = evaluation.here, evaluation.unlabelled
    labels = evaluation.here.labels.astype(object), np.full(len(evaluation.unlabelled), "", dtype=object)
    columns = {
        "id": (evaluation.ids, evaluation.unlabelled_ids),
        "label": labels,
        "group": [each.groups for each in both],
        "score": [each.scores for each in both],
        "calibrated": [each.calibrated for each in both],
        "threshold": [each.thresholds for each in both],
        "prediction": [predict(each.scores, each.thresholds) for each in both],
    }
    write_columns(path, {name: np.concatenate(parts) for name, parts in columns.items()})


def _counts(scored: Scored | None) -> dict[str, int] | None:
    return None if scored is None else {"harmful": scored.num_harmful, "safe": scored.num_safe}


def _causes(causes: Causes | None) -> dict[str, Any] | None:
    return None if causes is None else {"metric": causes.metric, **asdict(causes)}


def _policy(check: PolicyCheck | None) -> dict[str, Any] | None:
    if check is None:
        return None
    return {
        "policy": check.policy.text,
        "figure": check.figure,
        "promised": check.promised,
        "own": check.own,
        "here": check.here,
        "here_interval": check.here_interval,
        "kept": check.kept,
    }


def _reliability(both: tuple[Reliability, Reliability] | None) -> dict[str, Any] | None:
    return None if both is None else {"before": asdict(both[0]), "after": asdict(both[1])}


def _slice(each: Slice) -> dict[str, Any]:
    return {
        **asdict(each.subset),
        "mistakes": each.mistakes,
        "other_mistakes": each.other_mistakes,
        "difference_interval": each.difference_interval,
        "is_worse": each.is_worse,
    }
