"""Moments find what the mean over a video hides, and nothing where there is nothing."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from haechi.train.data.features import Features
from haechi.train.data.split import inner_folds
from haechi.train.model import moments as module
from haechi.train.model import regression
from haechi.train.model.head import MOMENTS, Head, build_head
from haechi.train.model.judge import Judge
from haechi.train.model.moments import Part, Scale, choose_parts, fit_moments, use_parts
from haechi.train.model.regression import FittedRegression, class_weights, fit_regression, regression_logits
from haechi.train.model.scores import compute_logits
from haechi.train.settings import TrainSettings
from tests.train.planted import HARMFUL, SAFE, WIDTH, plant

NUM_FITTED, NUM_NEW = 200, 200

LABELS = (np.arange(NUM_FITTED + NUM_NEW) % 2).astype(np.int8)
ROWS = np.arange(NUM_FITTED)
NEW = np.arange(NUM_FITTED, NUM_FITTED + NUM_NEW)
FOLDS = inner_folds(LABELS[ROWS], np.full(NUM_FITTED, "", dtype=object), seed=0)


def planted(what: str, *, seed: int = 0, lengths: tuple[int, ...] = (8, 10, 16)) -> Features:
    return plant(what, LABELS, seed=seed, lengths=lengths)


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A head fitted on the videos of `ROWS`."""

    head: Head
    fitted: FittedRegression
    parts: dict[str, Part]
    scales: dict[str, Scale]

    def auc(self, features: Features) -> tuple[float, float]:
        """Of the regression alone and of the head, on new videos."""
        logits = regression_logits(features, self.fitted.regression, NEW)
        both = (logits, compute_logits(self.head, features, torch.from_numpy(NEW)).numpy())
        return tuple(float(roc_auc_score(LABELS[NEW], each)) for each in both)  # type: ignore[return-value]


def fit_parts(features: Features, *, pos_weight: float = 1.0, num_directions: int = 4) -> dict[str, Part]:
    weights = class_weights(LABELS[ROWS], pos_weight)
    return fit_moments(features, LABELS, ROWS, FOLDS, weights=weights, num_directions=num_directions)


def fit(features: Features, *, pos_weight: float = 1.0) -> Fit:
    head = build_head(features.widths, TrainSettings.from_preset("fast", moments=4))
    fitted = fit_regression(features, LABELS, ROWS, FOLDS, pos_weight=pos_weight)
    head.regression.load_state_dict(fitted.regression.state_dict())
    parts = fit_parts(features, pos_weight=pos_weight)
    scales = choose_parts(parts, fitted.held_out, Judge(LABELS[ROWS], pos_weight=pos_weight))
    use_parts(head.moments, parts, scales, factor=1.0)
    return Fit(head=head, fitted=fitted, parts=parts, scales=scales)


@pytest.mark.parametrize(("what", "part"), [("rare rows", "rows"), ("spread", "rows"), ("ramp", "trend")])
def test_what_the_mean_hides_is_found_in_new_videos(what: str, part: str) -> None:
    features = planted(what)
    found = fit(features)
    alone, together = found.auc(features)
    assert alone <= 0.65
    assert together >= 0.9
    assert part in found.scales


def test_a_change_from_row_to_row_is_found_by_the_steps() -> None:
    """Harmful videos jump back and forth in one direction, safe ones go through the same rows in order."""
    features = planted("nothing", lengths=(12,))
    walk = np.where(LABELS[:, None] == 1, np.resize([-1, 1], 12), np.repeat([-1, 1], 6))  # (N, T)
    rows = features.rows.view(len(LABELS), 12, WIDTH) + 1.2 * torch.from_numpy(walk[:, :, None] * HARMFUL).float()
    features = dataclasses.replace(features, rows=rows.flatten(0, 1))
    parts = fit_parts(features)
    auc = {name: roc_auc_score(LABELS[ROWS], part.held_out) for name, part in parts.items()}
    assert auc["steps"] >= 0.9
    assert auc["steps"] > auc["rows"] + 0.1


def test_where_there_is_nothing_the_head_is_the_regression() -> None:
    features = planted("nothing")
    found = fit(features)
    assert found.scales == {}
    logits = compute_logits(found.head, features, torch.from_numpy(NEW)).double().numpy()
    assert (logits == regression_logits(features, found.fitted.regression, NEW)).all()
    assert all(not value.any() for name, value in found.head.moments.named_buffers() if not name.endswith("scale"))


def test_parts_that_know_nothing_of_the_labels_are_not_accepted() -> None:
    """Fitting the scale of a part that is z standard errors from nothing gains z² / 2 with an error of about z: the two
    errors that the judge asks for are four of chance."""
    accepted = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        labels = np.resize([1, 0], 100)
        parts = {name: Part(held_out=rng.normal(size=100), bias=0.0, buffers={}) for name in MOMENTS}
        accepted += bool(
            choose_parts(parts, 0.5 * (2 * labels - 1) + rng.normal(size=100), Judge(labels, pos_weight=1))
        )
    assert accepted <= 1


def part_logits(name: str, part: Part, rows: np.ndarray) -> float:
    """The part's own logit of a video's rows (T, F), computed with NumPy."""
    buffers = {key: value.double().numpy() for key, value in part.buffers.items()}
    values = rows - rows.mean(axis=0)
    if name == "trend":
        places = np.linspace(-1, 1, len(rows))
        trend = (places[:, None] * values).mean(axis=0)
        found = (trend - buffers["trend_mean"]) / buffers["trend_scale"] @ buffers["trend_weight"]
        return float(found + part.bias)
    if name == "steps":
        values = np.vstack([np.zeros((1, WIDTH)), np.diff(rows, axis=0)])
    pooled = np.log(np.exp(values / buffers["scale"] @ buffers["directions"].T).mean(axis=0))
    return float((pooled - buffers["pooled_mean"]) / buffers["pooled_scale"] @ buffers["weight"] + part.bias)


def test_the_head_is_the_regression_plus_the_scaled_parts() -> None:
    features = planted("ramp")
    found = fit(features)
    parts, start = found.parts, regression_logits(features, found.fitted.regression, NEW)
    ends = features.lengths.cumsum()
    videos = [features.rows[ends[i] - features.lengths[i] : ends[i]].double().numpy() for i in NEW]
    for names, factor in (
        ({"rows"}, 1.0),
        ({"steps"}, 1.0),
        ({"trend"}, 1.0),
        ({"rows", "trend"}, 0.5),
        (set(MOMENTS), 3.0),
    ):
        scales = {name: Scale(factor=1.5 + i, shift=0.1 - i) for i, name in enumerate(MOMENTS) if name in names}
        head = build_head(features.widths, TrainSettings.from_preset("fast", moments=4))
        head.regression.load_state_dict(found.fitted.regression.state_dict())
        use_parts(head.moments, parts, scales, factor=factor)
        assert set(head.moments.used) == names
        expected = start.copy()
        for name, scale in scales.items():
            expected += factor * scale.applied(np.array([part_logits(name, parts[name], rows) for rows in videos]))
        logits = compute_logits(head, features, torch.from_numpy(NEW)).numpy()
        np.testing.assert_allclose(logits, expected, atol=1e-4, rtol=1e-5)


def test_a_part_is_scaled_to_the_least_loss() -> None:
    rng = np.random.default_rng(0)
    true, start = 2 * rng.normal(size=4000), rng.normal(size=4000)
    labels = (rng.random(4000) < 1 / (1 + np.exp(-true - start))).astype(np.int8)
    judge = Judge(labels, pos_weight=1.0)
    part = Part(held_out=1000 * (true - 0.5), bias=0.0, buffers={})
    (scale,) = choose_parts({"rows": part}, start, judge).values()
    assert scale.factor == pytest.approx(1e-3, rel=0.1)
    assert scale.shift == pytest.approx(0.5, abs=0.15)
    against = Part(held_out=-true, bias=0.0, buffers={})
    assert choose_parts({"rows": against}, start, judge) == {}  # a part is never turned round


def test_a_part_that_says_the_same_as_another_is_left_out() -> None:
    rng = np.random.default_rng(0)
    true = 2 * rng.normal(size=500)
    labels = (rng.random(500) < 1 / (1 + np.exp(-true))).astype(np.int8)
    better, same = (Part(held_out=true + noise * rng.normal(size=500), bias=0.0, buffers={}) for noise in (0.0, 1.0))
    judge = Judge(labels, pos_weight=1.0)
    assert set(choose_parts({"rows": same}, np.zeros(500), judge)) == {"rows"}
    assert set(choose_parts({"rows": same, "trend": better}, np.zeros(500), judge)) == {"trend"}


@pytest.mark.parametrize("what", ["rare rows", "ramp"])
def test_a_held_out_videos_own_label_has_no_part_in_its_logit(what: str) -> None:
    features = planted(what)
    expected = fit_parts(features)
    _, held_out = FOLDS[1]
    changed = LABELS.copy()
    changed[held_out] = 1 - changed[held_out]
    found = fit_moments(features, changed, ROWS, FOLDS, weights=class_weights(LABELS[ROWS], 1.0), num_directions=4)
    for name in MOMENTS[:2]:  # sums of both classes are rounded in another way
        np.testing.assert_allclose(found[name].held_out[held_out], expected[name].held_out[held_out], atol=1e-4)
    for name in MOMENTS:
        change = np.delete(found[name].held_out, held_out) - np.delete(expected[name].held_out, held_out)
        assert np.abs(change).mean() > 0.01


def test_of_the_trend_only_the_strength_is_chosen_on_all_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regression, "PRIOR_DEVIATIONS", (0.8,))
    features = planted("ramp")
    expected = fit_parts(features)["trend"].held_out
    _, held_out = FOLDS[1]
    changed = LABELS.copy()
    changed[held_out] = 1 - changed[held_out]
    parts = fit_moments(features, changed, ROWS, FOLDS, weights=class_weights(LABELS[ROWS], 1.0), num_directions=4)
    assert (parts["trend"].held_out[held_out] == expected[held_out]).all()


def test_other_videos_have_no_part() -> None:
    features = planted("spread")
    expected = fit_parts(features)
    rows = features.rows.clone()
    rows[int(features.lengths[:NUM_FITTED].sum()) :] = float("nan")
    labels = LABELS.copy()
    labels[NEW] = 1 - labels[NEW]
    features = dataclasses.replace(features, rows=rows)
    found = fit_moments(features, labels, ROWS, FOLDS, weights=class_weights(LABELS[ROWS], 1.0), num_directions=4)
    for name, part in found.items():
        assert (part.held_out == expected[name].held_out).all()
        assert all(torch.equal(value, expected[name].buffers[key]) for key, value in part.buffers.items())


@pytest.mark.parametrize("what", ["rare rows", "ramp"])
def test_the_unit_of_a_column_does_not_matter(what: str) -> None:
    features = planted(what)
    scaled = dataclasses.replace(features, rows=features.rows * torch.tensor([1000.0, *[1.0] * (WIDTH - 1)]))
    one, other = fit(features), fit(scaled)
    assert one.scales.keys() == other.scales.keys()
    logits = [
        compute_logits(each.head, x, torch.from_numpy(NEW)).numpy() for each, x in ((one, features), (other, scaled))
    ]
    assert logits[0].std() > 1
    np.testing.assert_allclose(logits[1], logits[0], atol=0.02 * logits[0].std())


def test_videos_of_one_row_among_longer_ones() -> None:
    features = planted("ramp", lengths=(1, 12, 12))
    found = fit(features)
    long = NEW[features.lengths[NEW] > 1]
    logits = compute_logits(found.head, features, torch.from_numpy(NEW)).numpy()
    assert np.isfinite(logits).all()
    assert roc_auc_score(LABELS[long], logits[long - NUM_FITTED]) >= 0.9
    alone = torch.cat([compute_logits(found.head, features, torch.tensor([i])) for i in NEW[:30]])
    np.testing.assert_allclose(logits[:30], alone, atol=1e-4)


@pytest.mark.parametrize("num_directions", [2, 4, 16, 64])
def test_videos_of_one_row_have_no_moments(num_directions: int) -> None:
    """Rows less their mean are 0, and there are no steps: as without CLIP, where a video may have one window."""
    parts = fit_parts(planted("nothing", lengths=(1,)), num_directions=num_directions)
    for part in parts.values():
        assert (part.held_out == part.held_out[0]).all()
        assert all(torch.isfinite(value).all() for value in part.buffers.values())


def test_directions_are_used_in_both_senses_and_are_those_of_the_difference() -> None:
    features = planted("spread")
    found = fit_parts(features, num_directions=8)["rows"].buffers["directions"].double().numpy()
    np.testing.assert_array_equal(found[4:], -found[:4])
    np.testing.assert_allclose(found[:4] @ found[:4].T, np.eye(4), atol=1e-5)
    ends = features.lengths.cumsum()
    covariance, counts, total = np.zeros((2, WIDTH, WIDTH)), np.zeros(2), np.zeros(WIDTH)
    for i in ROWS:
        rows = features.rows[ends[i] - features.lengths[i] : ends[i]].double().numpy()
        centred = rows - rows.mean(axis=0)
        covariance[LABELS[i]] += centred.T @ centred
        counts[LABELS[i]] += len(rows)
    total = covariance.sum(axis=0).diagonal() / counts.sum()
    safe, harmful = (each / count for each, count in zip(covariance, counts, strict=True))
    values, vectors = np.linalg.eigh((harmful - safe) / np.sqrt(total[:, None] * total))
    largest = vectors[:, np.argsort(-np.abs(values))[:4]].T
    np.testing.assert_allclose(np.abs(found[:4] @ largest.T).max(axis=1), 1, atol=1e-3)
    assert np.abs(found[:4] @ HARMFUL).max() > 0.9
    assert np.abs(found[:4] @ SAFE).max() > 0.9


def test_more_directions_than_columns_leave_the_rest_empty() -> None:
    part = fit_parts(planted("spread"), num_directions=64)["rows"]
    assert part.buffers["directions"].shape == (64, WIDTH)
    assert (part.buffers["directions"].norm(dim=1) > 0.5).sum() == 2 * WIDTH
    assert roc_auc_score(LABELS[ROWS], part.held_out) >= 0.9


@pytest.mark.parametrize("num_harmful", [2, 3, 7])
def test_a_rare_class_is_not_lost_in_a_large_cache(num_harmful: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_DIRECTION_VIDEOS", 10)
    monkeypatch.setattr(regression, "MAX_CHOICE_VIDEOS", 10)
    labels = np.zeros_like(LABELS)
    labels[np.random.default_rng(0).choice(NUM_FITTED, num_harmful, replace=False)] = 1
    folds = inner_folds(labels[ROWS], np.full(NUM_FITTED, "", dtype=object), seed=0)
    weights = class_weights(labels[ROWS], 3.0)
    parts = fit_moments(planted("spread"), labels, ROWS, folds, weights=weights, num_directions=4)
    for part in parts.values():
        assert np.isfinite(part.held_out).all()
        assert part.held_out.std() > 0
        assert all(torch.isfinite(value).all() for value in part.buffers.values())


def test_directions_are_found_in_a_share_of_a_large_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_DIRECTION_VIDEOS", 60)
    for what, name in (("spread", "rows"), ("ramp", "trend")):
        part = fit_parts(planted(what))[name]
        assert roc_auc_score(LABELS[ROWS], part.held_out) >= 0.9
        assert part.held_out.shape == (NUM_FITTED,)
