"""What a page is made of, without a run."""

from typing import Any

import numpy as np
from sklearn import metrics

from haechi.train.output.page import Page, Row

HOSTILE = "</script><img src=x onerror=\"document.title='owned'\">\u202egpj.exe{{ 7 * 7 }}"
JPEG = bytes.fromhex("ffd8ffe000104a46494600010100000100010000ffd9")


def figures_of(scores: np.ndarray, labels: np.ndarray, threshold: float) -> dict[str, Any]:
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


def epochs_of(rng: np.random.Generator, number: int) -> list[dict[str, Any]]:
    return [
        {
            "number": i + 1,
            "train_loss": 0.7 * 0.8**i,
            "val_loss": 0.7 * 0.9**i + 0.01 * i**2,
            "improved": i < number // 2,
            "best": {
                "threshold": float(rng.uniform(0.3, 0.6)),
                "f1": min(0.6 + 0.05 * i, 0.9),
                "precision": 0.8,
                "recall": 0.9,
            },
        }
        for i in range(number)
    ]


def calibration_of(scores: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    bins = np.clip((scores * 8).astype(int), 0, 7)
    curve = [
        {"score": float(scores[mine].mean()), "fraction": float(labels[mine].mean()), "count": int(mine.sum())}
        for b in range(8)
        if (mine := bins == b).any()
    ]
    after = [{**point, "fraction": (point["fraction"] + point["score"]) / 2} for point in curve]
    return {
        "temperature": 1.8,
        "part": "test",
        "before": {"ece": 0.14, "brier": 0.21, "curve": curve},
        "after": {"ece": 0.05, "brier": 0.17, "curve": after},
    }


def example(
    num_test: int = 40,
    *,
    num_folds: int = 0,
    has_test: bool = True,
    low: float = 0.0,
    high: float = 1.0,
    policy: str = "f1",
    bound: dict[str, Any] | None = None,
    hostile: bool = False,
    thumbnail: bytes = JPEG,
) -> Page:
    """A page of `num_test` test videos (half as many validate, thrice as many train), with a bit of everything."""
    rng = np.random.default_rng(num_test + num_folds)
    sizes = {"train": 3 * num_test, "val": max(num_test // 2, 6), "test": num_test}
    if not has_test:
        del sizes["test"]
    if num_folds:
        sizes = {"test": num_test}
    rows, threshold = [], low + 0.437215 * (high - low)
    for part, size in sizes.items():
        labels = (np.arange(size) % 4 > 0).astype(int)
        raw = 1 / (1 + np.exp(-rng.normal(1.1 * (2 * labels - 1), 1.2)))
        scores = low + (high - low) * raw
        for i in range(size):
            rows.append(
                Row(
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
    ids = {HOSTILE: thumbnail} | {row.id: thumbnail for row in rows if row.split != "train"}
    return Page(
        title=HOSTILE if hostile else "run",
        command=f"haechi train {HOSTILE if hostile else 'out/cache'} --out out/run --seed 3",
        metrics=metrics_of(rows, rng, threshold, num_folds=num_folds, policy=policy, bound=bound, hostile=hostile),
        rows=rows,
        thumbnails=ids,
    )


def metrics_of(
    rows: list[Row],
    rng: np.random.Generator,
    threshold: float,
    *,
    num_folds: int,
    policy: str,
    bound: dict[str, Any] | None,
    hostile: bool,
) -> dict[str, Any]:
    parts = {part: [r for r in rows if r.split == part] for part in ("train", "val", "test")}
    parts = {part: mine for part, mine in parts.items() if mine}
    headline = "test" if "test" in parts else "val"

    def arrays(mine: list[Row]) -> tuple[np.ndarray, np.ndarray]:
        return np.array([r.score for r in mine]), np.array([r.label for r in mine])

    figures = {part: figures_of(*arrays(mine), threshold) for part, mine in parts.items()}
    names = ["f1", "precision", "recall", "accuracy", "balanced_accuracy", "average_precision", "roc_auc"]
    intervals = {
        part: {
            n: None if figures[part][n] is None else [max(figures[part][n] - 0.08, 0), min(figures[part][n] + 0.06, 1)]
            for n in names
        }
        for part in parts
    }
    lead = parts[headline]
    baselines = {
        "majority": {p: figures_of(np.ones(len(mine)), arrays(mine)[1], 0.5) for p, mine in parts.items()},
        "logistic_regression": {
            p: figures_of(np.clip(arrays(mine)[0] + rng.normal(0, 0.05, len(mine)), 0, 1), arrays(mine)[1], threshold)
            for p, mine in parts.items()
        },
    }
    slices = [
        {
            "by": "group",
            "name": group,
            "count": len(mine),
            "harmful": sum(r.label for r in mine),
            "figures": figures_of(*arrays(mine), threshold),
        }
        for group in dict.fromkeys(r.group for r in lead)
        for mine in [[r for r in lead if r.group == group]]
    ] + [
        {
            "by": by,
            "name": name,
            "count": len(mine),
            "harmful": sum(r.label for r in mine),
            "figures": figures_of(*arrays(mine), threshold),
        }
        for by, name, mine in [
            ("duration", "up to 10 s", [r for r in lead if r.duration_seconds <= 10]),
            ("duration", "10 s to 30 s", [r for r in lead if 10 < r.duration_seconds <= 30]),
            ("duration", "over 30 s", [r for r in lead if r.duration_seconds > 30]),
            ("resolution", "up to 360 lines", [r for r in lead if r.height <= 360]),
            ("resolution", "over 360 lines", [r for r in lead if r.height > 360]),
        ]
        if mine
    ]
    pairs = [
        {
            "id": lead[i].id,
            "part": "test",
            "other_id": rows[i].id,
            "other_part": "train",
            "kind": ("same bytes", "same group", "near-duplicate")[i % 3],
            "similarity": None if i % 3 == 1 else 0.98,
        }
        for i in range(4)
    ]
    folds = [
        {
            "number": k + 1,
            "best_epoch": 4,
            "threshold": 0.4 + 0.02 * k,
            "counts": {},
            "metrics": figures_of(*arrays([r for r in rows if r.fold == k + 1]), threshold),
            "epochs": epochs_of(rng, 8),
        }
        for k in range(num_folds)
    ]
    odd = [HOSTILE] if hostile else []
    return {
        "format": "haechi-run",
        "format_version": 2,
        "fingerprint": "3f" * 32,
        "untrained": ["clip", "slowfast"],
        "settings": {
            "preset": "fast",
            "media": "video",
            "lr": 0.001,
            "batch_size": 64,
            "seed": 3,
            "threshold_policy": policy,
        },
        "streams": {"clip/features": 512, "slowfast/logits": 400},
        "counts": {
            p: {"harmful": sum(r.label for r in mine), "safe": sum(1 - r.label for r in mine)}
            for p, mine in parts.items()
        },
        "num_unlabelled": 2,
        "new_labels": {
            "file": HOSTILE,
            "sha256": "5a" * 32,
            "replaced": ["label", "split"],
            "named": 300,
            "removed": {"count": 1, "ids": [HOSTILE]},
            "unused": {"count": 0, "ids": [], "failures": {}},
        }
        if hostile
        else None,
        "failures": {"damaged": 3, "missing": 1} | dict.fromkeys(odd, 1),
        "mode": "folds" if num_folds else "holdout",
        "split_notes": ["split at random, stratified by label, seed 3", *odd],
        "split_warnings": [
            "2 groups stand in train and test, as the manifest says:\n  - recording 1\n  - recording 2",
            *odd,
        ],
        "groups": {"source": "scenes", "count": 31, "similarity_threshold": 0.97},
        "leaks": None
        if num_folds or headline == "val"
        else {"touched": 4, "pairs": pairs, "metrics_without": figures["test"]},
        "headline": headline,
        "metrics": figures,
        "intervals": intervals,
        "threshold": {
            "value": threshold,
            "policy": policy,
            "plateau": [threshold - 0.011, threshold + 0.011],
            "interval": [threshold - 0.15, threshold + 0.12],
            "met": True,
            "bound": bound,
            "notes": [f"only {len(lead)} videos chose the threshold; below 50 it is little more than luck", *odd],
        },
        "pos_weight": 0.35,
        "precision": "fp32",
        "best_epoch": 4,
        "calibration": calibration_of(*arrays(lead)),
        "baselines": baselines,
        "verdict": "The head beats the larger class; against logistic regression the difference is within chance.",
        "slices": slices,
        "epochs": epochs_of(rng, 8),
        **({"folds": folds} if num_folds else {}),
    }
