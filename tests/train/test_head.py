import pytest
import torch

from train.head import build_head, num_heads
from train.settings import TrainSettings


@pytest.mark.parametrize(
    ("width", "expected"),
    [(912, 16), (923, 13), (512, 16), (400, 16), (2816, 16), (2304, 16), (13, 13), (17, 1), (1, 1)],
)
def test_heads_are_the_largest_divisor_up_to_16(width: int, expected: int) -> None:
    assert num_heads(width) == expected


def test_model_4_at_its_real_size() -> None:
    head = build_head(912, TrainSettings())
    logits = head(torch.randn(3, 32, 912), torch.ones(3, 32, dtype=torch.bool))
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


def test_padding_does_not_change_the_logits() -> None:
    head = build_head(13, TrainSettings()).eval()
    x = torch.randn(4, 5, 13)
    padded = torch.cat([x, torch.full((4, 3, 13), 7.0)], dim=1)
    mask = torch.arange(8).expand(4, 8) < 5
    with torch.no_grad():
        torch.testing.assert_close(head(padded, mask), head(x, torch.ones(4, 5, dtype=torch.bool)))
        assert not torch.allclose(head(padded, torch.ones(4, 8, dtype=torch.bool)), head(padded, mask))


def test_the_seed_alone_decides_the_first_weights() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    a = build_head(13, TrainSettings(seed=1)).state_dict()
    assert torch.rand(1) == expected  # the caller's random state is as it was
    b = build_head(13, TrainSettings(seed=1)).state_dict()
    c = build_head(13, TrainSettings(seed=2)).state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["mlp.0.weight"], c["mlp.0.weight"])
