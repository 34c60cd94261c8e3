"""Example pages, without a run."""

from typing import Any

import numpy as np
from sklearn import metrics

from haechi.train.data.leaks import Pair
from haechi.train.data.relabel import NewLabels
from haechi.train.data.split import Split
from haechi.train.evaluate.calibration import Bin, Reliability
from haechi.train.evaluate.metrics import METRICS, Figures, metrics_at
from haechi.train.evaluate.subsets import Subset
from haechi.train.evaluate.threshold import Choice
from haechi.train.model.fit import Epoch
from haechi.train.output.page import DataCard, LeakSummary, Page, ScoredVideo
from haechi.train.output.verdict import Difference, Finding
from haechi.train.policy import Policy
from haechi.train.result import ChosenThreshold, Fold
from haechi.train.settings import TrainSettings

HOSTILE = "</script><img src=x onerror=\"document.title='owned'\">\u202egpj.exe{{ 7 * 7 }}"
JPEG = bytes.fromhex("ffd8ffe000104a46494600010100000100010000ffd9")

METRIC_NAMES = tuple(metric.name for metric in METRICS)


def scikit_figures(scores: np.ndarray, labels: np.ndarray, threshold: float) -> Figures:
    """What scikit-learn gives at a threshold; None: undefined."""
    called = scores >= threshold
    tn, fp, fn, tp = metrics.confusion_matrix(labels, called, labels=[0, 1]).ravel().tolist()
    both = tn + fp > 0 and tp + fn > 0
    return {
        "f1": metrics.f1_score(labels, called) if tp + fp + fn else None,
        "precision": metrics.precision_score(labels, called) if tp + fp else None,
        "recall": metrics.recall_score(labels, called) if tp + fn else None,
        "accuracy": metrics.accuracy_score(labels, called) if len(labels) else None,
        "balanced_accuracy": metrics.balanced_accuracy_score(labels, called) if both else None,
        "average_precision": metrics.average_precision_score(labels, scores) if both else None,
        "roc_auc": metrics.roc_auc_score(labels, scores) if both else None,
        "true_positive": tp,
        "false_positive": fp,
        "true_negative": tn,
        "false_negative": fn,
    }


def make_epochs(rng: np.random.Generator, number: int) -> list[Epoch]:
    return [
        Epoch(
            number=i + 1,
            train_loss=0.7 * 0.8**i,
            val_loss=0.7 * 0.9**i + 0.01 * i**2,
            table=[],
            best=Choice(
                threshold=float(rng.uniform(0.3, 0.6)),
                f1=min(0.6 + 0.05 * i, 0.9),
                precision=0.8,
                recall=0.9,
                low=0.3,
                high=0.6,
                value=0.8,
                met=True,
            ),
            metrics={},
            improved=i < number // 2,
            seconds=1.0,
        )
        for i in range(number)
    ]


def make_findings() -> list[Finding]:
    """Worse in ranking than logistic regression, better in decisions."""
    numbers = {"ranking": [("roc_auc", -0.08), ("average_precision", -0.01)], "decisions": [("f1", 0.06)]}
    metric_of = {metric.name: metric for metric in METRICS}
    return [
        Finding(
            baseline="logistic_regression",
            aspect=aspect,
            differences=[
                Difference(metric=metric_of[name], head=0.8 + d, baseline=0.8, interval=(d - 0.03, d + 0.04))
                for name, d in pairs
            ],
            is_equal=False,
            advice="Try fewer epochs.",
        )
        for aspect, pairs in numbers.items()
    ]


def make_reliability(scores: np.ndarray, labels: np.ndarray) -> tuple[Reliability, Reliability]:
    bins = np.clip((scores * 8).astype(int), 0, 7)
    curve = [
        Bin(score=float(scores[mine].mean()), fraction=float(labels[mine].mean()), count=int(mine.sum()))
        for b in range(8)
        if (mine := bins == b).any()
    ]
    after = [Bin(score=b.score, fraction=(b.fraction + b.score) / 2, count=b.count) for b in curve]
    return Reliability(ece=0.14, brier=0.21, curve=curve), Reliability(ece=0.05, brier=0.17, curve=after)


def example(
    num_test: int = 40,
    *,
    num_folds: int = 0,
    has_test: bool = True,
    low: float = 0.0,
    high: float = 1.0,
    policy: str = "f1",
    hostile: bool = False,
    thumbnail: bytes = JPEG,
) -> Page:
    """A page of `num_test` test videos, half as many validation and three times as many training videos."""
    rng = np.random.default_rng(num_test + num_folds)
    sizes = {"train": 3 * num_test, "val": max(num_test // 2, 6), "test": num_test}
    if not has_test:
        del sizes["test"]
    if num_folds:
        sizes = {"test": num_test}
    videos, threshold = [], low + 0.437215 * (high - low)
    for part, size in sizes.items():
        labels = (np.arange(size) % 4 > 0).astype(int)
        raw = 1 / (1 + np.exp(-rng.normal(1.1 * (2 * labels - 1), 1.2)))
        scores = low + (high - low) * raw
        for i in range(size):
            videos.append(
                ScoredVideo(
                    id=HOSTILE
                    if hostile and i < 3
                    else f"{'fights' if labels[i] else 'other'}/camera {i % 7}/{part}-{i:05d}.mp4",
                    label=int(labels[i]),
                    split=part,
                    score=float(scores[i]),
                    calibrated=float(raw[i] ** 1.2),
                    threshold=threshold,
                    prediction=int(scores[i] >= threshold),
                    group=HOSTILE if hostile and i == 0 else f"recording {i % min(max(size // 5, 1), 40)}",
                    duration_seconds=float(rng.uniform(2, 240)),
                    width=(320, 1280)[i % 2],
                    height=(240, 720)[i % 2],
                    fold=i % num_folds + 1 if num_folds else None,
                )
            )
    return Page(
        title=HOSTILE if hostile else "run",
        command=f"haechi train {HOSTILE if hostile else 'out/cache'} --out out/run --seed 3",
        videos=videos,
        thumbnails={HOSTILE: thumbnail} | {video.id: thumbnail for video in videos if video.split != "train"},
        settings=TrainSettings(lr=0.001, batch_size=64, seed=3, policy=policy),
        precision="fp32",
        pos_weight=0.35,
        head="logistic regression",
        best_epoch=4,
        temperature=1.8,
        findings=make_findings(),
        epochs=[] if num_folds else make_epochs(rng, 8),
        folds=[make_fold(rng, number, videos, threshold) for number in range(1, num_folds + 1)],
        **evaluated(videos, rng, threshold, num_folds=num_folds, policy=policy, hostile=hostile),
    )


def make_fold(rng: np.random.Generator, number: int, videos: list[ScoredVideo], threshold: float) -> Fold:
    mine = [video for video in videos if video.fold == number]
    return Fold(
        number=number,
        split=Split(names=np.array([video.split for video in mine], dtype=object), notes=[]),
        epochs=make_epochs(rng, 8),
        best_epoch=4,
        threshold=0.38 + 0.02 * number,
        num_chosen_on=len(videos) - len(mine),
        met=True,
        figures=metrics_at(*arrays(mine), threshold),
        val_figures={},
    )


def arrays(videos: list[ScoredVideo]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([video.score for video in videos]), np.array([video.label for video in videos])


def make_subset(by: str, name: str, videos: list[ScoredVideo], threshold: float) -> Subset:
    return Subset(
        by=by,
        name=name,
        count=len(videos),
        harmful=sum(video.label for video in videos),
        figures=metrics_at(*arrays(videos), threshold),
    )


def evaluated(
    videos: list[ScoredVideo],
    rng: np.random.Generator,
    threshold: float,
    *,
    num_folds: int,
    policy: str,
    hostile: bool,
) -> dict[str, Any]:
    """The fields of a page that are computed from its videos."""
    parts = {part: [v for v in videos if v.split == part] for part in ("train", "val", "test")}
    parts = {part: mine for part, mine in parts.items() if mine}
    headline = "test" if "test" in parts else "val"
    figures = {part: metrics_at(*arrays(mine), threshold) for part, mine in parts.items()}

    def interval(value: float | None) -> tuple[float, float] | None:
        return None if value is None else (max(value - 0.08, 0), min(value + 0.06, 1))

    lead = parts[headline]
    subsets = [
        make_subset("group", group, [v for v in lead if v.group == group], threshold)
        for group in dict.fromkeys(v.group for v in lead)
    ] + [
        make_subset(by, name, mine, threshold)
        for by, name, mine in [
            ("duration", "up to 10 s", [v for v in lead if v.duration_seconds <= 10]),
            ("duration", "10 s to 30 s", [v for v in lead if 10 < v.duration_seconds <= 30]),
            ("duration", "over 30 s", [v for v in lead if v.duration_seconds > 30]),
            ("resolution", "up to 360 lines", [v for v in lead if v.height <= 360]),
            ("resolution", "over 360 lines", [v for v in lead if v.height > 360]),
        ]
        if mine
    ]
    pairs = [
        Pair(
            id=lead[i].id,
            part="test",
            other_id=videos[i].id,
            other_part="train",
            kind=("same bytes", "same group", "near-duplicate")[i % 3],
            similarity=None if i % 3 == 1 else 0.98,
        )
        for i in range(4)
    ]
    odd = [HOSTILE] if hostile else []
    return {
        "headline": headline,
        "figures": figures,
        "intervals": {part: {name: interval(figures[part][name]) for name in METRIC_NAMES} for part in parts},
        "baselines": {
            "majority": {p: metrics_at(np.ones(len(mine)), arrays(mine)[1], 0.5) for p, mine in parts.items()},
            "logistic_regression": {
                p: metrics_at(
                    np.clip(arrays(mine)[0] + rng.normal(0, 0.05, len(mine)), 0, 1), arrays(mine)[1], threshold
                )
                for p, mine in parts.items()
            },
        },
        "threshold": ChosenThreshold(
            value=threshold,
            policy=Policy.parse(policy),
            met=True,
            plateau=(threshold - 0.011, threshold + 0.011),
            interval=(threshold - 0.15, threshold + 0.12),
            notes=[f"chosen on only {len(lead)} videos; with fewer than 50 it is unreliable", *odd],
        ),
        "reliability": make_reliability(*arrays(lead)),
        "subsets": subsets,
        "leaks": LeakSummary(num_videos=0, pairs=[], figures_without=None)
        if num_folds or headline == "val"
        else LeakSummary(num_videos=4, pairs=pairs, figures_without=figures["test"]),
        "data": DataCard(
            untrained=["clip", "slowfast"],
            fingerprint="3f" * 32,
            streams={"clip/features": 512, "slowfast/logits": 400},
            counts={
                p: {"harmful": sum(v.label for v in mine), "safe": sum(1 - v.label for v in mine)}
                for p, mine in parts.items()
            },
            failures={"damaged": 3, "missing": 1} | dict.fromkeys(odd, 1),
            num_unlabelled=2,
            new_labels=NewLabels(
                file=HOSTILE,
                sha256="5a" * 32,
                replaced=["label", "split"],
                media={},
                is_named=np.ones(300, dtype=bool),
                keep_unlisted=False,
                unlisted=[HOSTILE],
                unused=[],
                notes=[],
            )
            if hostile
            else None,
            group_source="scenes",
            num_groups=31,
            similarity_threshold=0.97,
            split_notes=["split at random, stratified by label, seed 3", *odd],
            split_warnings=["2 groups are in train and test:\n  - recording 1\n  - recording 2", *odd],
        ),
    }
