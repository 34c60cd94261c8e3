"""The loss: binary cross-entropy or focal loss, with a weight for harmful videos and label smoothing."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from haechi.train.settings import TrainSettings


class Loss(nn.Module):
    """The mean loss of a batch; by default PyTorch's `BCEWithLogitsLoss`, as in the report.

    `pos_weight` () float32 is the weight of a harmful video; a safe one has weight 1.

    With `focal_gamma`, the loss of a video is multiplied by (1 - p)^gamma, where p is the predicted probability of its
    true class (Lin et al. 2017, "Focal Loss for Dense Object Detection", equation 5, up to a factor; their alpha is
    pos_weight / (1 + pos_weight)).

    `label_smoothing` is the share of each label that is spread evenly over both classes (Szegedy et al. 2016,
    "Rethinking the Inception Architecture", section 7): with 0.1, labels are 0.05 and 0.95.
    """

    def __init__(self, pos_weight: Tensor, *, focal_gamma: float = 0.0, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.pos_weight, self.focal_gamma, self.label_smoothing = pos_weight, focal_gamma, label_smoothing

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Scalar loss of `logits` (B,) and `labels` (B,) of 0 and 1, both float32."""
        targets = labels + self.label_smoothing * (0.5 - labels) if self.label_smoothing else labels
        if not self.focal_gamma:
            return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=self.pos_weight)
        entropy = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=self.pos_weight, reduction="none")
        log_wrong = F.logsigmoid(logits * (1 - 2 * labels))  # (B,) log(1 - p): gradients stay finite when p is 1
        return (entropy * (self.focal_gamma * log_wrong).exp()).mean()


def make_loss(labels: np.ndarray, settings: TrainSettings, device: torch.device) -> Loss:
    """The loss that the settings choose, for training videos with `labels` (n,). A new loss is added here."""
    return Loss(
        torch.tensor(compute_pos_weight(labels, settings), device=device),
        focal_gamma=settings.focal_gamma if settings.loss == "focal" else 0.0,
        label_smoothing=settings.label_smoothing,
    )


def compute_pos_weight(labels: np.ndarray, settings: TrainSettings) -> float:
    """The weight of a harmful video in the loss: `settings.pos_weight`, else safe / harmful training `labels`."""
    if settings.pos_weight is not None:
        return settings.pos_weight
    return float((labels == 0).sum() / (labels == 1).sum())
