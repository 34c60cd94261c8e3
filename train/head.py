"""The classifier on top of the frozen backbones: the report's Model 4."""

import torch
from torch import Tensor, nn

from train.settings import TrainSettings

MAX_HEADS = 16  # the report's plan for Model 5: the largest divisor of the width up to this

# The report's Model 4: 256-128-1, dropout 0.5 and 0.4 behind the two hidden layers.
MLP_WIDTHS = (256, 128)
MLP_DROPOUTS = (0.5, 0.4)


def num_heads(width: int) -> int:
    """Attention heads for an input of this width: its largest divisor up to 16 (912 -> 16, 923 -> 13)."""
    return max(heads for heads in range(1, MAX_HEADS + 1) if width % heads == 0)


class Head(nn.Module):
    """Transformer encoder over a video's rows, mean over the real ones, MLP to one logit.

    There is no position encoding, as in the report: the order of the rows does not matter.
    """

    def __init__(self, width: int, settings: TrainSettings) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            d_model=width,
            nhead=num_heads(width),
            dim_feedforward=settings.feedforward,
            dropout=settings.dropout,
            batch_first=True,
        )
        self.encoder = nn.TransformerEncoder(layer, settings.num_layers, enable_nested_tensor=False)
        layers: list[nn.Module] = []
        for hidden, dropout in zip(MLP_WIDTHS, MLP_DROPOUTS, strict=True):
            layers += [nn.Linear(width, hidden), nn.ReLU(), nn.BatchNorm1d(hidden), nn.Dropout(dropout)]
            width = hidden
        self.mlp = nn.Sequential(*layers, nn.Linear(width, 1))

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """Logits (B,), positive: harmful. `features` is (B, T, D) float32, `mask` (B, T) bool: True on real rows."""
        x = self.encoder(features, src_key_padding_mask=~mask)  # (B, T, D)
        real = mask.unsqueeze(2).to(x.dtype)  # (B, T, 1)
        x = (x * real).sum(dim=1) / real.sum(dim=1)  # (B, T, D) -> (B, D)
        logits: Tensor = self.mlp(x).squeeze(1)  # (B, 1) -> (B,)
        return logits


def build_head(width: int, settings: TrainSettings) -> Head:
    """A new head whose first weights depend on `settings.seed` alone; the caller's random state stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return Head(width, settings)
