import pytest
import torch

from train.head import build_head, num_heads
from train.settings import PRESETS, TrainSettings


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
    # By hand: 2 x (attention 4·912² + 4·912, feed-forward 2·912·512 + 912 + 512, norms 4·912), MLP with two BatchNorms.
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
    settings = TrainSettings.of_preset(preset, dropout=0.0)
    head = build_head((13, 3), settings).train(training)
    for module in head.mlp:
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    rows, constant = torch.randn(4, 5, 13), torch.randn(4, 3)
    padded = torch.cat([rows, torch.full((4, 3, 13), 7.0)], dim=1)
    mask, all_real = torch.arange(8).expand(4, 8) < 5, torch.ones(4, 8, dtype=torch.bool)
    with torch.no_grad():
        torch.testing.assert_close(head(padded, constant, mask), head(rows, constant, all_real[:, :5]))
        assert not torch.allclose(head(padded, constant, all_real), head(padded, constant, mask))


def test_the_projection_is_one_linear_map_of_all_that_is_known_of_a_video() -> None:
    head = build_head((6, 3), TrainSettings(projection=16)).eval()
    projection = head.projection
    rows, constant, mask = torch.randn(2, 4, 6), torch.randn(2, 3), torch.ones(2, 4, dtype=torch.bool)
    spread = rows.std(dim=1, correction=0)
    joined = torch.cat([rows, *(x[:, None].expand(-1, 4, -1) for x in (constant, spread))], dim=2)
    weight = torch.cat([projection.row.weight, projection.constant[1].weight, projection.spread.weight], dim=1)
    expected = projection.norm(
        joined / (1 + 1e-5) ** 0.5 @ weight.T + projection.row.bias
    )  # not trained: mean 0, var 1
    with torch.no_grad():
        torch.testing.assert_close(projection(rows, constant, mask), expected)
    assert head.encoder.layers[0].self_attn.embed_dim == 16


def test_the_projection_standardises_what_it_was_trained_on() -> None:
    head = build_head((6, 3), TrainSettings(projection=16))
    rows, constant, mask = 5 + 0.01 * torch.randn(200, 4, 6), 100 * torch.randn(200, 3), torch.ones(200, 4) > 0
    for batch in torch.arange(200).split(50):
        head.projection(rows[batch], constant[batch], mask[batch])
    torch.testing.assert_close(head.projection.row_scale.running_mean, rows.mean(dim=(0, 1)))
    torch.testing.assert_close(head.projection.constant[0].running_var, constant.var(dim=0), rtol=0.1, atol=0)


def test_without_a_constant_part_there_is_nothing_to_project_it_with() -> None:
    head = build_head((6, 0), TrainSettings(projection=16)).eval()
    assert head(torch.randn(2, 4, 6), torch.zeros(2, 0), torch.ones(2, 4, dtype=torch.bool)).shape == (2,)


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
