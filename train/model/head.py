"""The classifier on top of the frozen backbones: the report's Model 4, a narrower one, or its MLP for images."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from haechi.cache.kinds import IMAGE, VIDEO
from haechi.train.settings import TrainSettings

MAX_HEADS = 16  # the report's plan for Model 5: the largest divisor of the width up to this

# Widths and dropouts of the MLP's hidden layers: the report's Model 4, and its model of images.
MLPS = {VIDEO: ((256, 128), (0.5, 0.4)), IMAGE: ((256, 128, 64), (0.5, 0.5, 0.3))}


def num_heads(width: int) -> int:
    """Attention heads for an input of this width: its largest divisor up to 16 (912 -> 16, 923 -> 13)."""
    return max(heads for heads in range(1, MAX_HEADS + 1) if width % heads == 0)


def mean_of_rows(x: Tensor, mask: Tensor) -> Tensor:
    """The mean over each video's real rows: (B, T, D) and (B, T) to (B, D)."""
    real = mask.unsqueeze(2).to(x.dtype)  # (B, T, 1)
    return (x * real).sum(dim=1) / real.sum(dim=1)


class Pooled(NamedTuple):
    """What a video's rows are over time, each (B, F): what the video shows, how much it changes, how fast."""

    mean: Tensor
    spread: Tensor
    """Standard deviation over the rows."""
    step: Tensor
    """Mean absolute difference of a row and the next; 0 where there is only one."""


def pool(rows: Tensor, mask: Tensor) -> Pooled:
    """Rows (B, T, F) in time order and mask (B, T), True on real rows, all before the padding."""
    mean = mean_of_rows(rows, mask)
    centred = (rows - mean.unsqueeze(1)) * mask.unsqueeze(2)  # (B, T, F)
    steps = (rows[:, 1:] - rows[:, :-1]).abs() * mask[:, 1:].unsqueeze(2)  # (B, T - 1, F)
    num_steps = mask[:, 1:].sum(dim=1, keepdim=True).clamp(min=1)  # (B, 1)
    return Pooled(mean, mean_of_rows(centred.square(), mask).sqrt(), steps.sum(dim=1) / num_steps)


class Regression(nn.Module):
    """Logistic regression on a video's pooled rows and its constant part, standardised.

    Nothing of it is trained by gradients: `baselines.fit_regression` sets its weights. Until then its logits are 0.
    """

    mean: Tensor
    """(D,) float32, as the two below: the columns of `Pooled`, then those of the constant part."""
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
        """Logits (B,). In float32 under autocast too: there are no matrix products in it."""
        columns = torch.cat([*pooled, constant], dim=1)  # (B, D)
        logits: Tensor = ((columns - self.mean) / self.scale * self.weight).sum(dim=1) + self.bias
        return logits


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

    def forward(self, rows: Tensor, constant: Tensor, mask: Tensor, spread: Tensor) -> Tensor:
        """Rows (B, T, F), constant (B, V), mask (B, T) and spread (B, F) to (B, T, width)."""
        if self.training:
            scaled = torch.zeros_like(rows)
            scaled[mask] = self.row_scale(rows[mask])  # padding is no part of the mean and deviation
        else:
            scaled = self.row_scale(rows.flatten(0, 1)).view_as(rows)
        once = self.spread(self.spread_scale(spread))  # (B, width)
        if self.constant is not None:
            once = once + self.constant(constant)
        x: Tensor = self.norm(self.row(scaled) + once.unsqueeze(1))
        return x


def _standardise(width: int) -> nn.BatchNorm1d:
    """To mean 0 and deviation 1; when scoring, by the mean over all batches that were trained on."""
    return nn.BatchNorm1d(width, affine=False, momentum=None)


class Head(nn.Module):
    """Transformer encoder over a video's rows (none with `num_layers` 0), mean over the real ones, MLP to one logit.

    There is no position encoding, as in the report: to the encoder, the order of the rows does not matter.

    With `settings.regression`, the MLP's logit is added to that of a logistic regression. The MLP's last layer starts
    at zero, so that the head starts as the regression and learns what that one misses (as the last layer of a residual
    branch in Goyal et al. 2017, "Accurate, Large Minibatch SGD", section 5.1). A projection then sees the steps too.
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
        """Logits (B,), positive: harmful.

        `rows` is (B, T, F) float32, `constant` (B, V) float32, `mask` (B, T) bool: True on real rows.
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
    """A new head whose first weights depend on `settings.seed` alone; the caller's random state stays as it is.

    `widths` are F and V: of a row, and of what is constant over a video (see `Features`).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return Head(*widths, settings)
