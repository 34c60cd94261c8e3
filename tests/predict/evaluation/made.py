"""Evaluations made by hand from seeded numbers: intervals and parts of the fall are plausible, not computed."""

import functools

import numpy as np
from scipy.special import expit, logit

from haechi.predict.evaluation.causes import Causes, Loss, PolicyCheck
from haechi.predict.evaluation.disagreements import Disagreement
from haechi.predict.evaluation.evaluation import Evaluation, RunFacts, SetFacts
from haechi.predict.evaluation.fall import Change
from haechi.predict.evaluation.overlap import Overlap, OverlapPair
from haechi.predict.evaluation.prevalence import PER_VIDEOS, AtPrevalence, Budget
from haechi.predict.evaluation.quantify import PrevalenceEstimate
from haechi.predict.evaluation.scored import Scored
from haechi.predict.evaluation.slices import Slice
from haechi.train.evaluate.bootstrap import Interval
from haechi.train.evaluate.calibration import measure_reliability
from haechi.train.evaluate.metrics import METRICS, Figures, metrics_at
from haechi.train.evaluate.requirement import Requirement, Verdict
from haechi.train.evaluate.subsets import Subset
from haechi.train.policy import Policy

HOSTILE = "</script><img src=x onerror=\"document.title='owned'\">\u202egpj.exe{{ 7 * 7 }}" + "long" * 60
THRESHOLD = 0.437


def make_scored(
    count: int, *, share: float, distance: float, seed: int, shift: float = 0.0, thresholds: int = 1
) -> Scored:
    """`count` videos, a `share` of them harmful; the mean logits of the classes are 2 x `distance` apart."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) < round(share * count)).astype(np.int8)
    scores = expit(rng.normal(distance * (2.0 * labels - 1) + shift, 1.3))
    return Scored(
        scores=scores,
        labels=labels,
        thresholds=np.linspace(0.35, 0.55, thresholds)[np.arange(count) % thresholds]
        if thresholds > 1
        else np.full(count, THRESHOLD),
        calibrated=expit(logit(scores) / 1.7 - 0.3),
        groups=np.array([f"camera {i % 9}" for i in range(count)], dtype=object),
    )


def around(value: float | None, width: float = 0.07) -> Interval | None:
    return None if value is None else (max(value - width, 0.0), min(value + 0.8 * width, 1.0))


def make_changes(own: Figures | None, here: Figures) -> list[Change]:
    """A recall that fell, a precision that rose, and others by their numbers."""
    changes = []
    for metric in METRICS:
        before, after = own[metric.name] if own else None, here[metric.name]
        difference = None if before is None or after is None else after - before
        changes.append(
            Change(
                metric=metric,
                own=before,
                own_interval=around(before, 0.04),
                here=after,
                here_interval=around(after),
                difference_interval=None if difference is None else (difference - 0.06, difference + 0.05),
            )
        )
    return changes


def make_causes(own: Scored, here: Scored) -> Causes:
    own_f1 = metrics_at(own.scores, own.labels, own.thresholds)["f1"] or 0.0
    here_f1 = metrics_at(here.scores, here.labels, here.thresholds)["f1"] or 0.0
    fall = own_f1 - here_f1

    def loss(share: float) -> Loss:
        return Loss(value=share * fall, interval=(share * fall - 0.06, share * fall + 0.05))

    return Causes(
        beta=1.0,
        own=own_f1,
        here=here_f1,
        best=here_f1 + 0.2 * fall,
        best_threshold=0.561,
        fall=loss(1.0),
        ranking=loss(0.8),
        threshold=loss(0.2),
        class_mix=loss(0.3),
        separation=loss(0.5),
    )


def make_point(here: Scored, prevalence: float) -> AtPrevalence:
    is_flagged = here.scores >= here.thresholds
    recall, alarms = is_flagged[here.labels == 1].mean(), is_flagged[here.labels == 0].mean()
    alerts = PER_VIDEOS * (prevalence * recall + (1 - prevalence) * alarms)
    precision = float(PER_VIDEOS * prevalence * recall / alerts) if alerts else None
    misses = float(PER_VIDEOS * prevalence * (1 - recall))
    return AtPrevalence(
        prevalence=prevalence,
        precision=precision,
        precision_interval=None if precision is None else (0.8 * precision, min(1.2 * precision, 1.0)),
        alerts=float(alerts),
        alerts_interval=(0.8 * float(alerts), 1.2 * float(alerts)),
        misses=misses,
        misses_interval=(0.7 * misses, 1.4 * misses),
    )


def make_budget(here: Scored, reviewed: int) -> Budget:
    found = float(here.labels[np.argsort(-here.scores)[:reviewed]].sum())
    share = found / here.num_harmful if here.num_harmful else None
    return Budget(
        reviewed=reviewed,
        of_videos=len(here),
        found=found,
        share_found=share,
        share_found_interval=around(share),
        precision=found / reviewed,
        precision_interval=around(found / reviewed),
    )


def slice_figures(scored: Scored) -> Figures:
    """The figures of slices that the page shows: scikit-learn would take a second for all."""
    is_flagged, is_harmful = scored.scores >= scored.thresholds, scored.labels == 1
    found, flagged, harmful = (int(rows.sum()) for rows in (is_flagged & is_harmful, is_flagged, is_harmful))
    return {
        "recall": found / harmful if harmful else None,
        "precision": found / flagged if flagged else None,
        "f1": 2 * found / (flagged + harmful) if flagged + harmful else None,
    }


def make_slice(here: Scored, by: str, name: str, rows: np.ndarray, *, is_worse: bool = False) -> Slice:
    mine, is_wrong = here.select(rows), (here.scores >= here.thresholds) != (here.labels == 1)
    others = np.delete(is_wrong, rows)
    mistakes = float(is_wrong[rows].mean())
    return Slice(
        subset=Subset(
            by=by,
            name=name,
            count=len(mine),
            harmful=mine.num_harmful,
            figures=slice_figures(mine),
        ),
        mistakes=mistakes,
        other_mistakes=float(others.mean()) if len(others) else None,
        difference_interval=None if by == "group" and not is_worse else (0.02 if is_worse else -0.1, 0.2),
    )


def make_slices(here: Scored, *, odd: str) -> list[Slice]:
    rows = np.arange(len(here))
    groups = [make_slice(here, "group", f"camera {i}", rows[rows % 9 == i], is_worse=i == 4) for i in range(9)]
    bands = [
        make_slice(here, "duration", "up to 5 s", rows[rows % 3 == 0]),
        make_slice(here, "duration", "5 s to 15 s", rows[rows % 3 > 0], is_worse=True),
        make_slice(here, "resolution", "up to 240 pixels", rows),
    ]
    columns = [make_slice(here, odd or "city", f"{odd or 'place'} {i}", rows[rows % 40 == i]) for i in range(40)]
    return groups + bands + [each for each in columns if each.subset.count]


@functools.cache
def make_evaluation(
    count: int = 412,
    *,
    num_unlabelled: int = 1200,
    has_own: bool = True,
    num_folds: int = 0,
    part: str = "test",
    share: float = 0.25,
    hostile: bool = False,
    kind: str = "video",
    num_pairs: int = 63,
) -> Evaluation:
    """A head that was tested on 300 videos, and is worse on `count` labelled ones of which a `share` is harmful."""
    rng = np.random.default_rng(count)
    odd = HOSTILE if hostile else ""
    here = make_scored(count, share=share, distance=0.9, seed=1, shift=-0.6)
    own = make_scored(300, share=0.73, distance=1.6, seed=2, thresholds=num_folds or 1) if has_own else None
    own_figures = metrics_at(own.scores, own.labels, own.thresholds) if own else None
    figures = (
        metrics_at(here.scores, here.labels, here.thresholds)
        if count
        else dict.fromkeys([metric.name for metric in METRICS])
        | dict.fromkeys(["true_positive", "false_positive", "true_negative", "false_negative"], 0)
    )
    has_both = here.num_harmful > 0 and here.num_safe > 0
    ids = [f"{odd}uploads/2026-03/clip-{i:06d}.mp4" for i in range(count)]
    wrong = np.flatnonzero((here.scores >= here.thresholds) != (here.labels == 1))
    confidence = np.where(here.labels == 1, here.calibrated, 1 - here.calibrated)
    order = wrong[np.argsort(confidence[wrong])]
    found = np.append(0, np.cumsum(here.labels[np.argsort(-here.scores)], dtype=np.int64))  # (count + 1,)
    policy = Policy.parse("precision>=0.9")
    scores = expit(rng.normal(-1.5, 1.4, num_unlabelled))
    return Evaluation(
        run=RunFacts(
            name=odd or "run-7",
            kind=kind,
            head="logistic regression",
            part=part,
            is_folds=num_folds > 0,
            policy=policy,
            threshold=THRESHOLD,
            untrained=["clip"] if hostile else [],
            fingerprint="3f" * 32,
        ),
        data=SetFacts(
            name=odd or "uploads",
            labels_file=odd or "labels.csv",
            num_unlabelled=num_unlabelled,
            num_other_kind=3,
            failures={"damaged": 4, "missing": 1} | ({odd: 1} if odd else {}),
            num_groups=min(count, 9),
            group_source="the column group of the labels",
            num_longer=2,
        ),
        own=own,
        here=here,
        ids=np.array(ids, dtype=object),
        unlabelled_ids=np.array([f"unlabelled-{i}" for i in range(num_unlabelled)], dtype=object),
        unlabelled=Scored(
            scores=scores,
            labels=np.full(num_unlabelled, -1, np.int8),
            thresholds=np.full(num_unlabelled, THRESHOLD),
            calibrated=scores,
            groups=np.full(num_unlabelled, "", dtype=object),
        ),
        own_figures=own_figures,
        figures=figures,
        changes=make_changes(own_figures, figures) if count else [],
        causes=make_causes(own, here) if own and has_both else None,
        policy_check=PolicyCheck(
            policy=policy,
            figure="precision",
            promised=0.9,
            own=own_figures["precision"] if own_figures else None,
            here=figures["precision"],
            here_interval=around(figures["precision"]),
            kept=None if figures["precision"] is None else figures["precision"] >= 0.9,
        )
        if count
        else None,
        own_reliability=(
            measure_reliability(own.scores, own.labels),
            measure_reliability(own.calibrated, own.labels),
        )
        if own
        else None,
        reliability=(measure_reliability(here.scores, here.labels), measure_reliability(here.calibrated, here.labels))
        if count
        else None,
        slices=make_slices(here, odd=odd) if count >= 40 else [],
        prevalences=[make_point(here, p) for p in (0.01, 0.05)] if has_both else [],
        prevalence_curve=[make_point(here, float(p)) for p in expit(np.linspace(logit(0.001), 0, 61))]
        if has_both
        else [],
        budgets=[make_budget(here, n) for n in (20, 200) if n <= count],
        budget_curve=[
            (n, float(found[n])) for n in np.unique(np.linspace(0, count, min(count, 199) + 1).astype(int)).tolist()
        ],
        estimate=PrevalenceEstimate(
            num_videos=num_unlabelled,
            source="here",
            value=0.041,
            interval=(0.023, 0.069),
            flagged=float((scores >= THRESHOLD).mean()),
            fit_p_value=0.41,
            reason="",
        )
        if num_unlabelled
        else None,
        overlap=Overlap(
            pairs=[
                OverlapPair(
                    id=f"{odd}uploads/copy-{i}.mp4",
                    other_id=f"{odd}train/clip-{i}.mp4",
                    other_part=("train", "val")[i % 2],
                    kind=("same bytes", "near-duplicate")[i % 2],
                    similarity=None if i % 2 == 0 else 0.981,
                )
                for i in range(num_pairs)
            ],
            kept=False,
            num_same_group=0,
            num_test=2 if count else 0,
            unchecked=odd,
        ),
        disagreements=[
            Disagreement(row=int(i), self_confidence=float(confidence[i]), is_likely_label_error=n % 3 == 0)
            for n, i in enumerate(order)
        ],
        verdicts=[
            Verdict(
                requirement=Requirement(text=f"{name}>={least}", metric=name, least=least),
                value=figures[name],
                interval=around(figures[name]),
                by_point=by_point,
                met=figures[name] is not None and (figures[name] if by_point else around(figures[name])[0]) >= least,
            )
            for name, least, by_point in [("f1", 0.75, False), ("roc_auc", 0.6, True)]
        ],
        notices=["2 videos are much longer than the longest training video.", *([odd] if odd else [])],
    )
