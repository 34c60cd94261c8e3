import pytest
import torch
from torch import nn

from haechi.cache.errors import SettingsError
from haechi.train.model.loss import Loss
from haechi.train.settings import TrainSettings

LOGITS = torch.tensor([-3.0, -0.5, 0.0, 0.7, 4.0, 30.0, -30.0])
LABELS = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0])
WEIGHT = torch.tensor(0.4)


def test_by_default_it_is_pytorchs_to_the_last_bit() -> None:
    expected = nn.BCEWithLogitsLoss(pos_weight=WEIGHT)(LOGITS, LABELS)
    assert torch.equal(Loss(WEIGHT)(LOGITS, LABELS), expected)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_is_torchvisions_up_to_the_factor_of_alpha(gamma: float) -> None:
    ops = pytest.importorskip("torchvision.ops", reason="torchvision is not installed: nothing to compare with")
    alpha = float(WEIGHT / (1 + WEIGHT))
    expected = (1 + WEIGHT) * ops.sigmoid_focal_loss(LOGITS, LABELS, alpha=alpha, gamma=gamma, reduction="mean")
    torch.testing.assert_close(Loss(WEIGHT, focal_gamma=gamma)(LOGITS, LABELS), expected)


def test_focal_without_gamma_is_cross_entropy() -> None:
    almost = Loss(WEIGHT, focal_gamma=1e-9)(LOGITS, LABELS)
    torch.testing.assert_close(almost, Loss(WEIGHT)(LOGITS, LABELS))


def test_focal_gives_hard_videos_more_weight() -> None:
    logits = torch.tensor([3.0, -1.0], requires_grad=True)  # two harmful videos, the first classified correctly
    shares = []
    for gamma in (0.0, 2.0):
        (gradient,) = torch.autograd.grad(Loss(WEIGHT, focal_gamma=gamma)(logits, torch.ones(2)), logits)
        shares.append(float(gradient[0] / gradient[1]))
    assert 0 < shares[1] < shares[0] / 10


def test_smoothed_labels_are_cross_entropy_with_soft_labels() -> None:
    soft = torch.where(LABELS == 1, 0.95, 0.05)
    expected = nn.BCEWithLogitsLoss(pos_weight=WEIGHT)(LOGITS, soft)
    torch.testing.assert_close(Loss(WEIGHT, label_smoothing=0.1)(LOGITS, LABELS), expected)


def test_smoothing_leaves_the_focal_weight_alone() -> None:
    both = Loss(WEIGHT, focal_gamma=2.0, label_smoothing=0.1)
    smooth = Loss(WEIGHT, label_smoothing=0.1)
    for logit, label in zip(LOGITS[:5], LABELS[:5], strict=True):
        p = logit.sigmoid() if label == 1 else 1 - logit.sigmoid()
        torch.testing.assert_close(both(logit[None], label[None]), (1 - p) ** 2 * smooth(logit[None], label[None]))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_extreme_logits_have_finite_gradients(gamma: float) -> None:
    logits = torch.tensor([200.0, -200.0, 200.0, -200.0], requires_grad=True)
    loss = Loss(WEIGHT, focal_gamma=gamma)(logits, torch.tensor([1.0, 1.0, 0.0, 0.0]))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("loss", "hinge"),
        ("focal_gamma", -0.1),
        ("focal_gamma", True),
        ("label_smoothing", 1.0),
        ("label_smoothing", -0.1),
    ],
)
def test_a_setting_out_of_range_is_named(field: str, value: object) -> None:
    with pytest.raises(SettingsError, match=f"{field} is {value!r}, expected "):
        TrainSettings(**{field: value})
