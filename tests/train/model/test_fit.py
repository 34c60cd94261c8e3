import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from haechi.cache.errors import SettingsError
from haechi.train.data.features import Features
from haechi.train.data.split import Split, inner_folds
from haechi.train.evaluate.threshold import choose_threshold
from haechi.train.experiment import prepare, train_once
from haechi.train.model import fit
from haechi.train.model.adam import Adam
from haechi.train.model.fit import (
    DivergedError,
    Epoch,
    count_buffers,
    count_steps,
    passes,
    shuffle_batches,
    shuffle_buffers,
)
from haechi.train.model.head import build_head
from haechi.train.model.loss import compute_pos_weight
from haechi.train.model.regression import fit_regression, regression_logits
from haechi.train.model.scores import compute_logits
from haechi.train.policy import Policy
from haechi.train.settings import PRESETS, TrainSettings
from tests.train import runs


def test_pos_weight_is_safe_over_harmful() -> None:
    labels = np.repeat([1, 0], [2393, 893])  # the report's training split
    assert round(compute_pos_weight(labels, TrainSettings()), 4) == 0.3732
    assert compute_pos_weight(labels, TrainSettings(pos_weight=2.5)) == 2.5


@pytest.mark.parametrize(
    ("num_rows", "sizes"), [(8, [4, 4]), (9, [4, 5]), (10, [4, 4, 2]), (5, [5]), (4, [4]), (2, [2]), (1, [1])]
)
def test_no_batch_of_one_is_left_behind(num_rows: int, sizes: list) -> None:
    rows = torch.arange(100, 100 + num_rows)
    batches = shuffle_batches(rows, batch_size=4, generator=torch.Generator().manual_seed(0))
    assert [len(batch) for batch in batches] == sizes
    assert sorted(torch.cat(batches).tolist()) == rows.tolist()


def test_every_epoch_has_its_own_order() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.cat(shuffle_batches(torch.arange(50), batch_size=4, generator=generator)) for _ in range(2))
    assert not torch.equal(first, second)


def test_buffers_hold_whole_blocks_from_all_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "BLOCK_VIDEOS", 4)
    monkeypatch.setattr(fit, "BUFFER_BLOCKS", 3)
    rows = torch.arange(100, 129)  # 8 blocks, the last of a single video
    generator = torch.Generator().manual_seed(0)
    epochs = [
        [buffer.tolist() for buffer in shuffle_buffers(rows, num_buffers=3, generator=generator)] for _ in range(2)
    ]
    for buffers in epochs:
        assert len(buffers) == 3
        assert sorted(itertools.chain(*buffers)) == rows.tolist()
        assert all(buffer == sorted(buffer) and len(buffer) >= 5 for buffer in buffers)
        blocks = [{(row - 100) // 4 for row in buffer} for buffer in buffers]
        assert sorted(map(len, blocks)) == [2, 3, 3]
        assert not any(a & b for a in blocks for b in blocks if a is not b)
    assert epochs[0] != epochs[1]


def test_one_buffer_is_all_videos_and_draws_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    (buffer,) = shuffle_buffers(torch.arange(16_384), num_buffers=1, generator=generator)
    assert torch.equal(buffer, torch.arange(16_384))
    assert torch.equal(generator.get_state(), torch.Generator().manual_seed(0).get_state())


@pytest.mark.parametrize(
    ("num_videos", "num_rows", "expected"),
    [
        *[(1, 32, 1), (16_384, 32, 1), (16_384, 1, 1), (16_385, 32, 2), (16_385, 1, 2), (1024, 512, 1), (2048, 512, 2)],
        *[(256, 1 << 20, 1), (513, 1 << 20, 1), (1024, 1 << 20, 2)],
    ],
)
def test_there_are_as_many_buffers_as_the_rows_need(num_videos: int, num_rows: int, expected: int) -> None:
    """Each buffer gets at least two blocks: BatchNorm cannot train on a block of a single video."""
    assert count_buffers(np.full(num_videos, num_rows)) == expected


def test_a_training_split_of_one_more_than_a_batch_trains(tmp_path: Path) -> None:
    dataset, split = runs.prepare(tmp_path, num_harmful=4, num_safe=4)
    split = dataclasses.replace(split, names=np.array(["train"] * 5 + ["val"] * 3, dtype=object))
    split.names[np.flatnonzero(dataset.labels == 1)[0]] = "val"
    split.names[np.flatnonzero(split.names == "val")[-1]] = "train"
    assert len(split.rows("train")) == 5
    _, epochs = runs.train(dataset, split)
    assert len(epochs) == 3


@pytest.mark.parametrize("num_videos", [1, 2, 4, 5, 8, 9, 10, 11, 12, 13, 29, 64])
def test_steps_are_known_before_the_epoch(num_videos: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "BLOCK_VIDEOS", 4)
    monkeypatch.setattr(fit, "BUFFER_BLOCKS", 3)
    generator = torch.Generator().manual_seed(0)
    num_buffers = count_buffers(np.ones(num_videos))
    buffers = shuffle_buffers(torch.arange(num_videos), num_buffers=num_buffers, generator=generator)
    taken = sum(len(shuffle_batches(buffer, batch_size=4, generator=generator)) for buffer in buffers)
    steps = count_steps(num_videos, batch_size=4, num_buffers=num_buffers)
    assert taken == steps if len(buffers) == 1 else taken <= steps <= taken + len(buffers)


def plain(epochs: list[Epoch]) -> list[dict]:
    return [{**dataclasses.asdict(epoch), "seconds": 0} for epoch in epochs]


def test_the_same_seed_gives_the_same_run_to_the_last_bit(tmp_path: Path) -> None:
    dataset, split = runs.prepare(tmp_path, shift=0.1)
    head_a, epochs_a = runs.train(dataset, split)
    torch.rand(7)  # the caller's random state has no effect
    head_b, epochs_b = runs.train(dataset, split)
    assert plain(epochs_a) == plain(epochs_b)
    assert (runs.score(head_a, dataset) == runs.score(head_b, dataset)).all()
    _, epochs_c = runs.train(dataset, split, dataclasses.replace(runs.QUICK, seed=1))
    assert plain(epochs_a) != plain(epochs_c)


def test_training_leaves_the_callers_random_state_alone(tmp_path: Path) -> None:
    dataset, split = runs.prepare(tmp_path)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    runs.train(dataset, split)
    assert torch.rand(1) == expected


@pytest.mark.parametrize("preset", PRESETS)
def test_separable_videos_are_learned(tmp_path: Path, preset: str) -> None:
    settings = TrainSettings.from_preset(preset, media="video", device="cpu")
    dataset, split = runs.prepare(tmp_path, settings, num_harmful=60, num_safe=40, shift=1.0)
    epochs = train_once(prepare(dataset, settings, split)).epochs
    assert max(epoch.best.f1 for epoch in epochs) > 0.9


def test_the_head_ends_with_the_best_epochs_weights(tmp_path: Path) -> None:
    settings = dataclasses.replace(runs.QUICK, epochs=8, patience=8)
    dataset, split = runs.prepare(tmp_path, settings, num_harmful=20, num_safe=20, shift=0.0)
    head, epochs = runs.train(dataset, split, settings)
    best = [epoch for epoch in epochs if epoch.improved][-1]
    assert best is max(epochs, key=lambda epoch: (epoch.best.f1, -epoch.val_loss))
    assert best.number < len(epochs)  # otherwise this test would prove nothing
    rows = split.rows("val")
    assert choose_threshold(runs.score(head, dataset, rows), dataset.labels[rows], Policy.parse("f1")) == best.best


def test_bf16_trains_other_weights_that_are_kept_in_fp32(tmp_path: Path) -> None:
    settings = TrainSettings.from_preset("network", feedforward=32, epochs=1, projection=32, batch_size=4)
    dataset, split = runs.prepare(tmp_path, settings)
    states = []
    for precision in ("fp32", "bf16"):
        head = build_head(dataset.features.widths, settings)
        rows = split.rows("train")
        list(passes(head, dataset.features, dataset.labels, rows, settings, precision=precision))
        states.append(head.state_dict())
    name = "projection.row.weight"
    assert states[1][name].dtype == torch.float32
    assert not torch.equal(states[0][name], states[1][name])
    torch.testing.assert_close(states[0][name], states[1][name], atol=5e-3, rtol=0)


def learning_rates(tmp_path: Path, schedule: str, monkeypatch: pytest.MonkeyPatch, **changes: object) -> list[float]:
    """The learning rate of every step."""
    rates: list[float] = []

    class Watched(Adam):
        def step(self, *args: object, **options: object) -> None:
            rates.append(self.param_groups[0]["lr"])
            super().step(*args, **options)

    settings = dataclasses.replace(runs.QUICK, schedule=schedule, lr=0.5e-3, patience=99, **changes)
    dataset, split = runs.prepare(tmp_path, settings)
    monkeypatch.setattr(fit, "Adam", Watched)
    runs.train(dataset, split, settings)
    num_videos = len(split.rows("train"))
    assert len(rates) == settings.epochs * count_steps(num_videos, batch_size=settings.batch_size, num_buffers=1)
    return rates


def test_schedules_span_all_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(learning_rates(tmp_path / "a", "constant", monkeypatch)) == {0.5e-3}
    cosine = learning_rates(tmp_path / "b", "cosine", monkeypatch)
    expected = 0.5e-3 * (1 + np.cos(np.pi * np.arange(len(cosine)) / len(cosine))) / 2
    np.testing.assert_allclose(cosine, expected)
    cycle = learning_rates(tmp_path / "c", "onecycle", monkeypatch)
    top = int(np.argmax(cycle))
    assert 0 < top < len(cycle) / 2
    assert cycle[top] == pytest.approx(0.5e-3, rel=0.1)
    assert cycle[:top] == sorted(cycle[:top])
    assert cycle[top:] == sorted(cycle[top:], reverse=True)
    assert cycle[-1] < 1e-3 * cycle[top]


def test_one_cycle_of_one_step_still_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (rate,) = learning_rates(tmp_path, "onecycle", monkeypatch, epochs=1, batch_size=64)
    assert rate > 0.5e-3 / 100


@pytest.mark.parametrize(("field", "value"), [("schedule", "linear"), ("ema", 1.0), ("ema", -0.1)])
def test_a_setting_out_of_range_is_named(field: str, value: object) -> None:
    with pytest.raises(SettingsError, match=f"{field} is {value!r}, expected "):
        TrainSettings(**{field: value})


def weights_by_step(tmp_path: Path, ema: float) -> list[torch.Tensor]:
    """The weights that are validated after each of three epochs of one step."""
    settings = dataclasses.replace(runs.QUICK, batch_size=64, epochs=3, ema=ema)
    dataset, split = runs.prepare(tmp_path, settings)
    head = build_head(dataset.features.widths, settings)
    training = passes(head, dataset.features, dataset.labels, split.rows("train"), settings)
    return [head.mlp[0].weight.detach().clone() for _ in training]


def test_averaged_weights_are_validated_and_the_others_trained_on(tmp_path: Path) -> None:
    plain = weights_by_step(tmp_path / "a", 0.0)
    averaged = weights_by_step(tmp_path / "b", 0.25)
    expected = plain[0]
    for found, new in zip(averaged, plain, strict=True):
        expected = 0.25 * expected + 0.75 * new
        torch.testing.assert_close(found, expected)
    assert not torch.equal(averaged[2], plain[2])


def test_the_decay_per_epoch_does_not_depend_on_its_number_of_steps() -> None:
    assert fit.step_decay(0.5, num_steps=1) == 0.5
    assert fit.step_decay(0.5, num_steps=52) ** 52 == pytest.approx(0.5)


def test_the_head_ends_with_the_best_epochs_averaged_weights(tmp_path: Path) -> None:
    settings = dataclasses.replace(runs.QUICK, epochs=6, patience=6, ema=0.5)
    dataset, split = runs.prepare(tmp_path, settings, shift=0.0)
    head, epochs = runs.train(dataset, split, settings)
    best = [epoch for epoch in epochs if epoch.improved][-1]
    rows = split.rows("val")
    assert choose_threshold(runs.score(head, dataset, rows), dataset.labels[rows], Policy.parse("f1")) == best.best


@pytest.mark.parametrize("loss", [{"loss": "focal"}, {"label_smoothing": 0.2}])
def test_the_loss_is_the_settings(tmp_path: Path, loss: dict) -> None:
    dataset, split = runs.prepare(tmp_path, shift=0.1)
    _, expected = runs.train(dataset, split)
    _, epochs = runs.train(dataset, split, dataclasses.replace(runs.QUICK, **loss))
    assert epochs[0].train_loss != expected[0].train_loss
    assert epochs[0].val_loss != expected[0].val_loss


def test_gamma_has_no_part_in_cross_entropy(tmp_path: Path) -> None:
    dataset, split = runs.prepare(tmp_path, shift=0.1)
    _, expected = runs.train(dataset, split)
    _, epochs = runs.train(dataset, split, dataclasses.replace(runs.QUICK, focal_gamma=5.0))
    assert plain(epochs) == plain(expected)


def same_signs(*, is_noise: bool = False) -> tuple[Features, np.ndarray, Split]:
    """A video is harmful if two columns have the same sign, which no weighted sum of columns can separate.

    With `is_noise`, labels are random.
    """
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, (1200, 1, 2), generator=generator) * 2.0 - 1
    rows = torch.cat([signs.expand(-1, 2, -1), torch.zeros(1200, 2, 2)], dim=2)
    rows += 0.3 * torch.randn(rows.shape, generator=generator)
    features = Features(rows=rows.flatten(0, 1), lengths=np.full(1200, 2), constant=torch.zeros(1200, 0))
    labels = (signs.prod(dim=2).squeeze(1) > 0).numpy().astype(np.int8)
    if is_noise:
        labels = np.random.default_rng(1).permutation(labels)
    return features, labels, Split(names=np.repeat(np.array(["train", "val"], dtype=object), [900, 300]), notes=[])


def test_the_head_learns_what_the_regression_misses() -> None:
    features, labels, split = same_signs()
    settings = TrainSettings.from_preset("network", projection=32, feedforward=32)
    head, fitted = runs.start(features, labels, split, settings)
    epochs = list(fit.fit(head, features, labels, split, settings, fitted=fitted))
    val = split.rows("val")
    assert roc_auc_score(labels[val], regression_logits(features, fitted.regression, val)) < 0.6
    assert roc_auc_score(labels[val], compute_logits(head, features, torch.from_numpy(val))) > 0.95
    best = [epoch for epoch in epochs if epoch.improved][-1]
    assert best is min(epochs, key=lambda epoch: epoch.val_loss)
    assert best.number > 0
    assert best.val_loss < epochs[0].val_loss - 0.1


def test_a_head_that_is_not_better_by_more_than_chance_stays_the_regression() -> None:
    features, labels, split = same_signs(is_noise=True)
    settings = TrainSettings.from_preset("network", projection=32, feedforward=32, lr=1e-4, patience=4)
    head, fitted = runs.start(features, labels, split, settings)
    epochs = list(fit.fit(head, features, labels, split, settings, fitted=fitted))
    assert [epoch.number for epoch in epochs] == [0, 1, 2, 3, 4]
    assert [epoch.improved for epoch in epochs] == [True, False, False, False, False]
    assert min(epoch.val_loss for epoch in epochs) < epochs[0].val_loss  # else any rule would keep the regression
    val = split.rows("val")
    found = compute_logits(head, features, torch.from_numpy(val)).double().numpy()
    assert (found == regression_logits(features, fitted.regression, val)).all()


def test_the_losses_of_all_epochs_are_of_the_same_kind(tmp_path: Path) -> None:
    """Epoch 0, before any step, has the loss of the regression by the same formula as the epochs after it."""
    for loss in ({}, {"loss": "focal"}, {"label_smoothing": 0.2}):
        settings = TrainSettings.from_preset("network", epochs=1, lr=1e-12, pos_weight=3.0, batch_size=64, **loss)
        dataset, split = runs.prepare(tmp_path / str(loss), settings, shift=0.1)
        _, epochs = runs.train(dataset, split, settings)
        assert epochs[1].val_loss == pytest.approx(epochs[0].val_loss, rel=1e-5)
        assert epochs[1].train_loss == pytest.approx(epochs[0].train_loss, rel=1e-5)


def test_the_regression_is_that_of_the_training_videos(tmp_path: Path) -> None:
    settings = TrainSettings.from_preset("network", epochs=2, pos_weight=0.7, device="cpu")
    dataset, split = runs.prepare(tmp_path, settings, shift=0.1)
    rows = split.rows("train")
    experiment = prepare(dataset, settings, split)
    train_once(experiment)
    folds = inner_folds(dataset.labels[rows], dataset.groups[rows], seed=0)
    expected = fit_regression(dataset.features, dataset.labels, rows, folds, pos_weight=0.7).regression.state_dict()
    found = experiment.head.regression.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())
    head = build_head(dataset.features.widths, settings)
    list(passes(head, dataset.features, dataset.labels, rows, settings))
    assert head.mlp[-1].weight.abs().max() > 0
    assert not any(value.any() for value in (head.regression.weight, head.regression.bias))


def test_patience_ends_training(tmp_path: Path) -> None:
    settings = dataclasses.replace(runs.QUICK, epochs=50, patience=2)
    dataset, split = runs.prepare(tmp_path, settings, shift=0.0)
    _, epochs = runs.train(dataset, split, settings)
    assert len(epochs) < 50
    assert [epoch.improved for epoch in epochs[-3:]] == [True, False, False]


def test_the_test_split_has_no_part_in_choosing(tmp_path: Path) -> None:
    dataset, split = runs.prepare(tmp_path, num_harmful=15, num_safe=15)
    split.names[split.rows("train")[:6]] = "test"
    _, expected = runs.train(dataset, split)
    test_rows = split.rows("test")
    dataset.labels[test_rows] = 1 - dataset.labels[test_rows]
    num_rows = dataset.features.num_rows
    dataset.features.rows.unflatten(0, (-1, num_rows))[torch.from_numpy(test_rows)] = float("nan")
    _, epochs = runs.train(dataset, split)
    assert plain(epochs) == plain(expected)


def test_divergence_is_an_error(tmp_path: Path) -> None:
    settings = dataclasses.replace(runs.QUICK, lr=1e30)
    dataset, split = runs.prepare(tmp_path, settings)
    with pytest.raises(DivergedError, match=r"epoch 1: .*diverged.*below 1e\+30"):
        runs.train(dataset, split, settings)
