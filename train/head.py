"""The classifier on top of the frozen backbones: the report's Model 4, or a narrower one behind a projection."""

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


class Projection(nn.Module):
    """A linear map of [row ; constant ; spread] to a narrower width, where spread is the rows' standard deviation over
    the video: how much it changes, which a mean over the rows cannot show.

    The map is a sum of three, so that what is constant is projected once a video and not once a row. Inputs are
    standardised first, since a CLIP embedding is a hundred times smaller than logits are.
    """

    def __init__(self, row_width: int, constant_width: int, width: int) -> None:
        super().__init__()
        self.row_scale, self.row = _standardise(row_width), nn.Linear(row_width, width)
        self.spread_scale, self.spread = _standardise(row_width), nn.Linear(row_width, width, bias=False)
        self.constant: nn.Module | None = None
        if constant_width:
            self.constant = nn.Sequential(_standardise(constant_width), nn.Linear(constant_width, width, bias=False))
        self.norm = nn.LayerNorm(width)

    def forward(self, rows: Tensor, constant: Tensor, mask: Tensor) -> Tensor:
        """Rows (B, T, F), constant (B, V) and mask (B, T) to (B, T, width)."""
        centred = (rows - mean_of_rows(rows, mask).unsqueeze(1)) * mask.unsqueeze(2)  # (B, T, F)
        spread = mean_of_rows(centred.square(), mask).sqrt()  # (B, F)
        scaled = torch.zeros_like(rows)
        scaled[mask] = self.row_scale(rows[mask])  # padding is no part of the mean and deviation
        once = self.spread(self.spread_scale(spread))  # (B, width)
        if self.constant is not None:
            once = once + self.constant(constant)
        x: Tensor = self.norm(self.row(scaled) + once.unsqueeze(1))
        return x


def _standardise(width: int) -> nn.BatchNorm1d:
    """To mean 0 and deviation 1; when scoring, by the mean over all batches that were trained on."""
    return nn.BatchNorm1d(width, affine=False, momentum=None)


def mean_of_rows(x: Tensor, mask: Tensor) -> Tensor:
    """The mean over each video's real rows: (B, T, D) and (B, T) to (B, D)."""
    real = mask.unsqueeze(2).to(x.dtype)  # (B, T, 1)
    return (x * real).sum(dim=1) / real.sum(dim=1)


class Head(nn.Module):
    """Transformer encoder over a video's rows, mean over the real ones, MLP to one logit.

    There is no position encoding, as in the report: the order of the rows does not matter.
    """

    def __init__(self, row_width: int, constant_width: int, settings: TrainSettings) -> None:
        super().__init__()
        self.projection: Projection | None = None
        width = row_width + constant_width
        if settings.projection:
            width = settings.projection
            self.projection = Projection(row_width, constant_width, width)
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

    def forward(self, rows: Tensor, constant: Tensor, mask: Tensor) -> Tensor:
        """Logits (B,), positive: harmful.

        `rows` is (B, T, F) float32, `constant` (B, V) float32, `mask` (B, T) bool: True on real rows.
        """
        if self.projection is None:  # the constant part repeated on every row
            x = torch.cat([rows, constant.unsqueeze(1).expand(-1, rows.shape[1], -1)], dim=2)  # (B, T, D = F + V)
        else:
            x = self.projection(rows, constant, mask)  # (B, T, D)
        x = self.encoder(x, src_key_padding_mask=~mask)  # (B, T, D)
        logits: Tensor = self.mlp(mean_of_rows(x, mask)).squeeze(1)  # (B, 1) -> (B,)
        return logits


def build_head(widths: tuple[int, int], settings: TrainSettings) -> Head:
    """A new head whose first weights depend on `settings.seed` alone; the caller's random state stays as it is.

    `widths` are F and V: of a row, and of what is constant over a video (see `Features`).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return Head(*widths, settings)
