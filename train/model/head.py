"""The classifier on the frozen features: the report's Model 4, a narrower variant, or the report's MLP for images."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from haechi.cache.kinds import IMAGE, VIDEO
from haechi.train.settings import TrainSettings

MAX_HEADS = 16  # as the report plans for Model 5

# Widths and dropouts of the MLP's hidden layers: the report's Model 4, and its model for images.
MLPS = {VIDEO: ((256, 128), (0.5, 0.4)), IMAGE: ((256, 128, 64), (0.5, 0.5, 0.3))}


def num_heads(width: int) -> int:
    """Attention heads for an input of this width: its largest divisor up to 16 (912 -> 16, 923 -> 13)."""
    return max(heads for heads in range(1, MAX_HEADS + 1) if width % heads == 0)


def mean_of_rows(x: Tensor, mask: Tensor) -> Tensor:
    """The mean over each video's rows without padding: (B, T, D) and the mask (B, T) to (B, D)."""
    real = mask.unsqueeze(2).to(x.dtype)  # (B, T, 1)
    return (x * real).sum(dim=1) / real.sum(dim=1)


class Pooled(NamedTuple):
    """Statistics of a video's rows over time, each (B, F): what it shows, how much it changes, and how fast."""

    mean: Tensor
    spread: Tensor
    """Standard deviation over the rows."""
    step: Tensor
    """Mean absolute difference between consecutive rows; 0 if there is only one row."""


def pool(rows: Tensor, mask: Tensor) -> Pooled:
    """Pool rows (B, T, F) in time order; the mask (B, T) is False on padding, which is at the end."""
    mean = mean_of_rows(rows, mask)
    centred = (rows - mean.unsqueeze(1)) * mask.unsqueeze(2)  # (B, T, F)
    steps = (rows[:, 1:] - rows[:, :-1]).abs() * mask[:, 1:].unsqueeze(2)  # (B, T - 1, F)
    num_steps = mask[:, 1:].sum(dim=1, keepdim=True).clamp(min=1)  # (B, 1)
    return Pooled(mean, mean_of_rows(centred.square(), mask).sqrt(), steps.sum(dim=1) / num_steps)


class Regression(nn.Module):
    """Logistic regression on a video's pooled rows and its constant part, standardised.

    It has no parameters for gradients: `baselines.fit_regression` sets its weights. Until then its logits are 0.
    """

    mean: Tensor
    """(D,) float32, like `scale` and `weight`: the columns of `Pooled`, then those of the constant part."""
    scale: Tensor
    weight: Tensor
    bias: Tensor
    """() float32"""

    def __init__(self, row_width: int, constant_width: int) -> None:
        super().__init__()
        num_columns = 3 * row_width + constant_width  # D
        self.register_buffer("mean", torch.zeros(num_columns))
        self.register_buffer("scale", torch.ones(num_columns))
        self.register_buffer("weight", torch.zeros(num_columns))
        self.register_buffer("bias", torch.zeros(()))

    def forward(self, pooled: Pooled, constant: Tensor) -> Tensor:
        """Logits (B,); float32 under autocast too, since there are no matrix products."""
        columns = torch.cat([*pooled, constant], dim=1)  # (B, D)
        logits: Tensor = ((columns - self.mean) / self.scale * self.weight).sum(dim=1) + self.bias
        return logits


class Projection(nn.Module):
    """A linear map of [row ; constant ; spread] to a narrower width. The spread is the standard deviation of the rows
    over the video: how much the video changes, which the mean over the rows does not contain.

    The map is a sum of three, so that the parts that are constant are projected once per video, not once per row.
    Inputs are standardised first, since the values of a CLIP embedding are a hundred times smaller than logits.
    """

    def __init__(self, row_width: int, constant_width: int, width: int) -> None:
        super().__init__()
        self.row_scale, self.row = _standardise(row_width), nn.Linear(row_width, width)
        self.spread_scale, self.spread = _standardise(row_width), nn.Linear(row_width, width, bias=False)
        self.constant: nn.Module | None = None
        if constant_width:
            self.constant = nn.Sequential(_standardise(constant_width), nn.Linear(constant_width, width, bias=False))
        self.norm = nn.LayerNorm(width)

    def forward(self, rows: Tensor, constant: Tensor, mask: Tensor, spread: Tensor) -> Tensor:
        """Rows (B, T, F), constant (B, V), mask (B, T) and spread (B, F) to (B, T, width)."""
        if self.training:
            scaled = torch.zeros_like(rows)
            scaled[mask] = self.row_scale(rows[mask])  # without padding, which would change mean and deviation
        else:
            scaled = self.row_scale(rows.flatten(0, 1)).view_as(rows)
        once = self.spread(self.spread_scale(spread))  # (B, width)
        if self.constant is not None:
            once = once + self.constant(constant)
        x: Tensor = self.norm(self.row(scaled) + once.unsqueeze(1))
        return x


def _standardise(width: int) -> nn.BatchNorm1d:
    """Scales to mean 0 and deviation 1. For scoring, uses the statistics averaged over all training batches."""
    return nn.BatchNorm1d(width, affine=False, momentum=None)


class Head(nn.Module):
    """Transformer encoder over a video's rows (none if `num_layers` is 0), mean over the rows, MLP to one logit.

    There is no position encoding, as in the report: the encoder does not depend on the order of the rows.

    With `settings.regression`, the MLP's logit is added to that of a logistic regression. The MLP's last layer starts
    at zero, so that the head starts as the regression and learns what the regression misses (as the last layer of a
    residual branch in Goyal et al. 2017, "Accurate, Large Minibatch SGD", section 5.1). The projection then gets
    `Pooled.step` too.
    """

    def __init__(self, row_width: int, constant_width: int, settings: TrainSettings) -> None:
        super().__init__()
        self.projection: Projection | None = None
        width = row_width + constant_width
        if settings.projection:
            width = settings.projection
            self.projection = Projection(row_width, constant_width + row_width * settings.regression, width)
        self.encoder: nn.TransformerEncoder | None = None
        if settings.num_layers:
            layer = nn.TransformerEncoderLayer(
                d_model=width,
                nhead=num_heads(width),
                dim_feedforward=settings.feedforward,
                dropout=settings.dropout,
                batch_first=True,
            )
            self.encoder = nn.TransformerEncoder(layer, settings.num_layers, enable_nested_tensor=False)
        layers: list[nn.Module] = []
        for hidden, dropout in zip(*MLPS[settings.media], strict=True):
            layers += [nn.Linear(width, hidden), nn.ReLU(), nn.BatchNorm1d(hidden), nn.Dropout(dropout)]
            width = hidden
        last = nn.Linear(width, 1)
        self.mlp = nn.Sequential(*layers, last)
        self.regression: Regression | None = None
        if settings.regression:
            self.regression = Regression(row_width, constant_width)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, rows: Tensor, constant: Tensor, mask: Tensor) -> Tensor:
        """Logits (B,); above 0 means harmful.

        `rows` is (B, T, F) float32, `constant` (B, V) float32, `mask` (B, T) bool: False on padding.
        """
        pooled: Pooled | None = None
        if self.projection is None:  # the constant part repeated on every row
            x = torch.cat([rows, constant.unsqueeze(1).expand(-1, rows.shape[1], -1)], dim=2)  # (B, T, D = F + V)
        else:
            pooled = pool(rows, mask)
            once = constant if self.regression is None else torch.cat([constant, pooled.step], dim=1)  # (B, V or V + F)
            x = self.projection(rows, once, mask, pooled.spread)  # (B, T, D)
        if self.encoder is not None:
            x = self.encoder(x, src_key_padding_mask=~mask)  # (B, T, D)
        logits: Tensor = self.mlp(mean_of_rows(x, mask)).squeeze(1)  # (B, 1) -> (B,)
        if self.regression is not None:
            logits = logits + self.regression(pooled or pool(rows, mask), constant)
        return logits


def build_head(widths: tuple[int, int], settings: TrainSettings) -> Head:
    """A new head whose initial weights depend only on `settings.seed`; the caller's random state does not change.

    `widths` are F, the width of a row, and V, the width of the part that is constant over a video (see `Features`).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return Head(*widths, settings)
