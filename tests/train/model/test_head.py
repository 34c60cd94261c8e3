import numpy as np
import pytest
import torch

from haechi.cache.errors import SettingsError
from haechi.train.model.head import Moments, build_head, num_heads, pool
from haechi.train.settings import PRESETS, TrainSettings
from tests.train import runs


@pytest.mark.parametrize(
    ("width", "expected"),
    [(912, 16), (923, 13), (512, 16), (400, 16), (2816, 16), (2304, 16), (13, 13), (17, 1), (1, 1)],
)
def test_heads_are_the_largest_divisor_up_to_16(width: int, expected: int) -> None:
    assert num_heads(width) == expected


def test_model_4_at_its_real_size() -> None:
    head = build_head((512, 400), TrainSettings())
    logits = head(torch.randn(3, 32, 512), torch.randn(3, 400), torch.ones(3, 32, dtype=torch.bool))
    assert logits.shape == (3,)
    layer = head.encoder.layers[0]
    assert len(head.encoder.layers) == 2
    assert (layer.self_attn.num_heads, layer.linear1.out_features, layer.dropout.p) == (16, 512, 0.4)
    kinds = [type(module).__name__ for module in head.mlp]
    assert kinds == ["Linear", "ReLU", "BatchNorm1d", "Dropout"] * 2 + ["Linear"]
    assert [m.out_features for m in head.mlp if isinstance(m, torch.nn.Linear)] == [256, 128, 1]
    assert [m.p for m in head.mlp if isinstance(m, torch.nn.Dropout)] == [0.5, 0.4]
    # 2 x (attention 4·912² + 4·912, feed-forward 2·912·512 + 912 + 512, norms 4·912), MLP with two BatchNorms.
    layer_size = 4 * 912**2 + 4 * 912 + 2 * 912 * 512 + 912 + 512 + 4 * 912
    mlp_size = 912 * 256 + 3 * 256 + 256 * 128 + 3 * 128 + 128 + 1
    assert sum(p.numel() for p in head.parameters()) == 2 * layer_size + mlp_size == 8_806_689


def test_model_4_sees_the_constant_part_on_every_row() -> None:
    head = build_head((8, 5), TrainSettings()).eval()
    alone = build_head((13, 0), TrainSettings()).eval()
    rows, constant, mask = torch.randn(4, 6, 8), torch.randn(4, 5), torch.ones(4, 6, dtype=torch.bool)
    joined = torch.cat([rows, constant[:, None].expand(4, 6, 5)], dim=2)
    with torch.no_grad():
        assert torch.equal(head(rows, constant, mask), alone(joined, torch.zeros(4, 0), mask))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("training", [False, True])
def test_padding_does_not_change_the_logits(preset: str, training: bool) -> None:
    settings = TrainSettings.from_preset(preset, dropout=0.0)
    head = build_head((13, 3), settings).train(training)
    for module in head.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    torch.manual_seed(0)
    if head.regression is not None:  # it starts with zeros
        runs.with_random_weights(head)
    rows, constant = torch.randn(4, 5, 13), torch.randn(4, 3)
    padded = torch.cat([rows, torch.full((4, 3, 13), 7.0)], dim=1)
    mask, all_real = torch.arange(8).expand(4, 8) < 5, torch.ones(4, 8, dtype=torch.bool)
    with torch.no_grad():
        torch.testing.assert_close(head(padded, constant, mask), head(rows, constant, all_real[:, :5]))
        assert not torch.allclose(head(padded, constant, all_real), head(padded, constant, mask))


def test_the_projection_is_one_linear_map_of_rows_constant_part_and_spread() -> None:
    head = build_head((6, 3), TrainSettings(projection=16)).eval()
    projection = head.projection
    rows, constant, mask = torch.randn(2, 4, 6), torch.randn(2, 3), torch.ones(2, 4, dtype=torch.bool)
    spread = pool(rows, mask).spread
    joined = torch.cat([rows, *(x[:, None].expand(-1, 4, -1) for x in (constant, spread))], dim=2)
    weight = torch.cat([projection.row.weight, projection.constant[1].weight, projection.spread.weight], dim=1)
    expected = projection.norm(
        joined / (1 + 1e-5) ** 0.5 @ weight.T + projection.row.bias
    )  # not trained: mean 0, var 1
    with torch.no_grad():
        torch.testing.assert_close(projection(rows, constant, mask, spread), expected)
    assert head.encoder.layers[0].self_attn.embed_dim == 16


def test_the_projection_standardises_what_it_was_trained_on() -> None:
    head = build_head((6, 3), TrainSettings(projection=16))
    rows, constant, mask = 5 + 0.01 * torch.randn(200, 4, 6), 100 * torch.randn(200, 3), torch.ones(200, 4) > 0
    for batch in torch.arange(200).split(50):
        spread = pool(rows[batch], mask[batch]).spread
        head.projection(rows[batch], constant[batch], mask[batch], spread)
    torch.testing.assert_close(head.projection.row_scale.running_mean, rows.mean(dim=(0, 1)))
    torch.testing.assert_close(head.projection.constant[0].running_var, constant.var(dim=0), rtol=0.1, atol=0)


def test_pooled_rows_are_their_mean_spread_and_step() -> None:
    rows = torch.tensor([[[1.0], [4.0], [1.0], [2.0]], [[3.0], [5.0], [99.0], [99.0]], [[7.0], [9.0], [9.0], [9.0]]])
    mask = torch.arange(4) < torch.tensor([[4], [2], [1]])
    mean, spread, step = (x.squeeze(1) for x in pool(rows, mask))
    torch.testing.assert_close(mean, torch.tensor([2.0, 4.0, 7.0]))
    torch.testing.assert_close(spread, torch.tensor([1.5**0.5, 1.0, 0.0]))
    torch.testing.assert_close(step, torch.tensor([7 / 3, 2.0, 0.0]))  # |3| + |-3| + |1|; a single row has no step


@pytest.mark.parametrize("preset", PRESETS)
def test_a_head_with_a_regression_starts_as_it(preset: str) -> None:
    head = build_head((6, 3), TrainSettings.from_preset(preset, regression=True)).eval()
    with torch.no_grad():
        for value in (head.regression.mean, head.regression.weight, head.regression.bias):
            value.normal_()
        head.regression.scale.uniform_(0.5, 2)
    rows, constant, mask = torch.randn(4, 5, 6), torch.randn(4, 3), torch.arange(5).expand(4, 5) < 3
    mean, spread, step = pool(rows, mask)
    columns = torch.cat([mean, spread, step, constant], dim=1)
    regression = head.regression
    expected = (columns - regression.mean) / regression.scale @ regression.weight + regression.bias
    with torch.no_grad():
        torch.testing.assert_close(head(rows, constant, mask), expected)
        if head.mlp is not None:
            head.mlp[-1].weight.normal_()
        if head.moments is not None:
            head.moments.directions.normal_()
            head.moments.weight.normal_()
        is_alone = head.mlp is None and head.moments is None
        assert torch.allclose(head(rows, constant, mask), expected) == is_alone


def test_behind_a_regression_the_projection_sees_the_steps() -> None:
    head = build_head((6, 3), TrainSettings.from_preset("network")).eval()
    torch.nn.init.zeros_(head.regression.weight)
    torch.nn.init.normal_(head.mlp[-1].weight)
    ordered = torch.randn(2, 4, 6)
    shuffled = ordered[:, [0, 2, 1, 3]]  # in another order the steps differ; rows, mean and spread do not
    constant, mask = torch.randn(2, 3), torch.ones(2, 4, dtype=torch.bool)
    with torch.no_grad():
        assert not torch.allclose(head(ordered, constant, mask), head(shuffled, constant, mask), atol=1e-4)
        without = build_head((6, 3), TrainSettings.from_preset("network", regression=False)).eval()
        torch.testing.assert_close(without(ordered, constant, mask), without(shuffled, constant, mask))


def test_the_regression_has_no_parameters_for_gradients() -> None:
    head = build_head((6, 3), TrainSettings.from_preset("network"))
    names = {name for name, _ in head.named_parameters()}
    assert not any(name.startswith("regression") for name in names)
    assert {"regression.mean", "regression.scale", "regression.weight", "regression.bias"} <= head.state_dict().keys()
    assert not list(build_head((6, 3), TrainSettings.from_preset("fast")).parameters())


def test_without_a_constant_part_there_is_nothing_to_project_it_with() -> None:
    head = build_head((6, 0), TrainSettings(projection=16)).eval()
    assert head(torch.randn(2, 4, 6), torch.zeros(2, 0), torch.ones(2, 4, dtype=torch.bool)).shape == (2,)


def test_settings_from_before_the_regression_have_none() -> None:
    values = TrainSettings.from_preset("network").to_dict()
    del values["regression"]
    head = build_head((6, 3), TrainSettings.from_dict(values))
    assert head.regression is None
    assert head.projection.constant[1].in_features == 3
    assert head.mlp[-1].weight.abs().min() > 0


def test_the_regression_is_on_or_off() -> None:
    with pytest.raises(SettingsError, match="regression is 1, expected true or false"):
        TrainSettings(regression=1)


def test_the_seed_alone_decides_the_first_weights() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    a = build_head((8, 5), TrainSettings(seed=1)).state_dict()
    assert torch.rand(1) == expected  # the caller's random state is as it was
    b = build_head((8, 5), TrainSettings(seed=1)).state_dict()
    c = build_head((8, 5), TrainSettings(seed=2)).state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["mlp.0.weight"], c["mlp.0.weight"])


def moments_of_a_video(moments: Moments, rows: np.ndarray) -> float:
    """The logit of one video's rows (T, F) without padding, computed with NumPy."""
    m = {name: value.double().numpy() for name, value in moments.named_buffers()}
    centred, steps = rows - rows.mean(axis=0), np.vstack([np.zeros((1, rows.shape[1])), np.diff(rows, axis=0)])
    logit = m["bias"]
    for kind, values in enumerate((centred, steps)):
        projected = values / m["scale"][kind] @ m["directions"][kind].T  # (T, K)
        pooled = np.log(np.exp(projected).mean(axis=0))
        logit = logit + (pooled - m["pooled_mean"][kind]) / m["pooled_scale"][kind] @ m["weight"][kind]
    places = np.linspace(-1, 1, len(rows)) if len(rows) > 1 else np.zeros(1)
    trend = (places[:, None] * centred).mean(axis=0)
    return float(logit + (trend - m["trend_mean"]) / m["trend_scale"] @ m["trend_weight"])


def test_moments_are_those_of_numpy() -> None:
    torch.manual_seed(0)
    head = runs.with_random_weights(build_head((5, 0), TrainSettings.from_preset("fast", moments=4)))
    lengths = torch.tensor([7, 1, 2, 4])
    mask = torch.arange(7) < lengths[:, None]
    rows = torch.randn(4, 7, 5).masked_fill(~mask.unsqueeze(2), 9.0)
    expected = [moments_of_a_video(head.moments, rows[i, :length].double().numpy()) for i, length in enumerate(lengths)]
    found = head.moments(rows, mask)
    assert np.std(expected) > 0.1
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4, rtol=1e-5)
    constant = torch.zeros(4, 0)
    torch.testing.assert_close(head(rows, constant, mask), head.regression(pool(rows, mask), constant) + found)


def test_moments_do_not_overflow() -> None:
    """The largest float16 in every row: exponentials of such values are infinite."""
    head = runs.with_random_weights(build_head((5, 0), TrainSettings.from_preset("fast", moments=4)))
    rows = 65504.0 * (torch.arange(6) % 2 * 2.0 - 1).view(1, 6, 1).expand(2, 6, 5)
    assert torch.isfinite(head.moments(rows, torch.ones(2, 6, dtype=torch.bool))).all()


def test_a_head_says_what_it_is() -> None:
    def described(preset: str) -> str:
        return build_head((5, 0), TrainSettings.from_preset(preset, media=None)).description

    found = {preset: described(preset) for preset in PRESETS}
    assert found == {
        "model4": "network",
        "fast": "logistic regression",
        "network": "network with logistic regression",
        "image": "logistic regression",
        "image_mlp": "network",
    }
    head = build_head((5, 0), TrainSettings.from_preset("fast", moments=4))
    head.moments.weight[1, 3] = 0.5
    head.moments.trend_weight[0] = -1.0
    assert head.moments.used == ["steps", "trend"]
    assert head.description == "logistic regression with moments (steps, trend)"


def test_logits_of_a_regression_are_scaled() -> None:
    regression = runs.with_random_weights(build_head((5, 2), TrainSettings.from_preset("image"))).regression
    rows, constant, mask = torch.randn(4, 3, 5), torch.randn(4, 2), torch.ones(4, 3, dtype=torch.bool)
    before = regression(pool(rows, mask), constant)
    regression.scale_logits(0.25)
    torch.testing.assert_close(regression(pool(rows, mask), constant), 0.25 * before)


def test_new_moments_change_nothing() -> None:
    settings = TrainSettings.from_preset("fast")
    head, alone = build_head((6, 3), settings), build_head((6, 3), TrainSettings.from_preset("fast", moments=0))
    for each in (head, alone):
        torch.manual_seed(0)
        each.regression.weight.normal_()
    rows, constant, mask = torch.randn(4, 5, 6), torch.randn(4, 3), torch.arange(5).expand(4, 5) < 3
    assert torch.equal(head(rows, constant, mask), alone(rows, constant, mask))
    assert alone.moments is None
    assert alone(rows, constant, mask).std() > 0.1
