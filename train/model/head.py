"""The classifier on the frozen features: a regression with moments, the report's Model 4, or its MLP for images."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from haechi.cache.kinds import IMAGE, VIDEO
from haechi.train.settings import TrainSettings

# The parts of `Moments`.
MOMENTS = ("rows", "steps", "trend")

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

    It has no parameters for gradients: `regression.fit_regression` sets its weights. Until then its logits are 0.
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

    @torch.no_grad()
    def scale_logits(self, factor: float) -> None:
        """Multiply its logits by a factor."""
        self.weight *= factor
        self.bias *= factor

    def columns(self, pooled: Pooled, constant: Tensor) -> Tensor:
        """What it sees of each video, (B, D)."""
        return torch.cat([*pooled, constant], dim=1)

    def forward(self, pooled: Pooled, constant: Tensor) -> Tensor:
        """Logits (B,); float32 under autocast too, since there are no matrix products."""
        columns = self.columns(pooled, constant)
        logits: Tensor = ((columns - self.mean) / self.scale * self.weight).sum(dim=1) + self.bias
        return logits


class Moments(nn.Module):
    """Finds what the mean over a video hides. Its logit is the sum of three parts, `MOMENTS`:

    - `rows`: some directions in which each row is projected and pooled over time by a smooth maximum (log of the mean
      of exponentials), so that a few rows count, or one
    - `steps`: the same for the step from a row to the next
    - `trend`: how each value grows or falls over the video

    Rows are centred on the mean of their video. It has no parameters for gradients: `moments.fit_moments` sets its
    weights. Until then its logits are 0.
    """

    directions: Tensor
    """(2, K, F) for rows and for steps, like all that begins with a 2"""
    scale: Tensor
    """(2, F) deviations of centred rows and of steps"""
    pooled_mean: Tensor
    """(2, K), like `pooled_scale` and `weight`"""
    pooled_scale: Tensor
    weight: Tensor
    trend_mean: Tensor
    """(F,), like `trend_scale` and `trend_weight`"""
    trend_scale: Tensor
    trend_weight: Tensor
    bias: Tensor
    """() float32"""

    def __init__(self, row_width: int, num_directions: int) -> None:
        """`num_directions`: K, for rows and again for steps."""
        super().__init__()
        self.register_buffer("directions", torch.zeros(2, num_directions, row_width))
        self.register_buffer("scale", torch.ones(2, row_width))
        for name, start in (("pooled_mean", 0.0), ("pooled_scale", 1.0), ("weight", 0.0)):
            self.register_buffer(name, torch.full((2, num_directions), start))
        for name, start in (("trend_mean", 0.0), ("trend_scale", 1.0), ("trend_weight", 0.0)):
            self.register_buffer(name, torch.full((row_width,), start))
        self.register_buffer("bias", torch.zeros(()))

    def forward(self, rows: Tensor, mask: Tensor) -> Tensor:
        """Logits (B,) of rows (B, T, F) with their mask (B, T)."""
        centred, steps = centred_and_steps(rows, mask)
        logits: Tensor = ((trends(centred, mask) - self.trend_mean) / self.trend_scale * self.trend_weight).sum(dim=1)
        for kind, values in enumerate((centred, steps)):
            pooled = pool_directions(values / self.scale[kind], mask, self.directions[kind])
            pooled = (pooled - self.pooled_mean[kind]) / self.pooled_scale[kind]
            logits = logits + (pooled * self.weight[kind]).sum(dim=1)
        return logits + self.bias

    @property
    def used(self) -> list[str]:
        """The parts whose logits are not 0."""
        is_used = [*self.weight.any(dim=1).tolist(), bool(self.trend_weight.any())]
        return [part for part, used in zip(MOMENTS, is_used, strict=True) if used]


def centred_and_steps(rows: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (B, T, F) less the mean of their video, and less the row before; 0 on padding, and for the first step."""
    real = mask.unsqueeze(2)
    centred = (rows - mean_of_rows(rows, mask).unsqueeze(1)) * real
    steps = torch.cat([torch.zeros_like(rows[:, :1]), rows[:, 1:] - rows[:, :-1]], dim=1) * real
    return centred, steps


def trends(centred: Tensor, mask: Tensor) -> Tensor:
    """(B, F): the mean of centred rows (B, T, F), weighted from -1 for the first to 1 for the last."""
    num_steps = mask[:, 1:].sum(dim=1, keepdim=True).clamp(min=1)  # (B, 1)
    places = torch.arange(centred.shape[1], device=centred.device) * (2 / num_steps) - 1  # (B, T)
    return mean_of_rows(centred * places.unsqueeze(2), mask)


def pool_directions(values: Tensor, mask: Tensor, directions: Tensor) -> Tensor:
    """The smooth maximum of `values` (B, T, F) over a video's rows in each of `directions` (K, F): (B, K)."""
    projected = (values @ directions.T).masked_fill(~mask.unsqueeze(2), -math.inf)
    return projected.logsumexp(dim=1) - mask.sum(dim=1, keepdim=True).log()


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
    """A sum of up to three parts: a network, a logistic regression, and moments.

    The network: Transformer encoder over a video's rows (none if `num_layers` is 0), mean over the rows, MLP to one
    logit. There is no position encoding, as in the report: the encoder does not depend on the order of the rows.

    Beside a regression, the MLP's last layer starts at zero, so that the head starts as the regression and learns what
    the regression misses (as the last layer of a residual branch in Goyal et al. 2017, "Accurate, Large Minibatch SGD",
    section 5.1). The projection then gets `Pooled.step` too. Moments start at zero as well.
    """

    def __init__(self, row_width: int, constant_width: int, settings: TrainSettings) -> None:
        super().__init__()
        self.regression: Regression | None = None
        if settings.regression:
            self.regression = Regression(row_width, constant_width)
        self.moments: Moments | None = Moments(row_width, settings.moments) if settings.moments else None
        self.projection: Projection | None = None
        self.encoder: nn.TransformerEncoder | None = None
        self.mlp: nn.Sequential | None = None
        if settings.network:
            self._build_network(row_width, constant_width, settings)

    def _build_network(self, row_width: int, constant_width: int, settings: TrainSettings) -> None:
        width = row_width + constant_width
        if settings.projection:
            width = settings.projection
            self.projection = Projection(row_width, constant_width + row_width * settings.regression, width)
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
        if settings.regression:
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, rows: Tensor, constant: Tensor, mask: Tensor) -> Tensor:
        """Logits (B,); above 0 means harmful.

        `rows` is (B, T, F) float32, `constant` (B, V) float32, `mask` (B, T) bool: False on padding.
        """
        pooled = None if self.regression is None and self.projection is None else pool(rows, mask)
        parts: list[Tensor] = []
        if self.mlp is not None:
            parts.append(self._network(rows, constant, mask, pooled))
        if self.regression is not None:
            assert pooled is not None
            parts.append(self.regression(pooled, constant))
        if self.moments is not None:
            parts.append(self.moments(rows, mask))
        return torch.stack(parts).sum(dim=0) if len(parts) > 1 else parts[0]

    def drop_unused(self) -> None:
        """Remove moments whose logits are all 0, so that scoring does not compute them."""
        if self.moments is not None and not self.moments.used and not self.moments.bias:
            self.moments = None

    @property
    def description(self) -> str:
        """What the head is, such as `logistic regression with moments (rows, trend)`."""
        parts = [
            "network" if self.mlp is not None else "",
            "logistic regression" if self.regression is not None else "",
            f"moments ({', '.join(used)})" if self.moments is not None and (used := self.moments.used) else "",
        ]
        return " with ".join(part for part in parts if part)

    def _network(self, rows: Tensor, constant: Tensor, mask: Tensor, pooled: Pooled | None) -> Tensor:
        """The MLP's logits (B,). The arguments are those of `forward`; `pooled` is needed by the projection."""
        assert self.mlp is not None
        if self.projection is None:  # the constant part repeated on every row
            x = torch.cat([rows, constant.unsqueeze(1).expand(-1, rows.shape[1], -1)], dim=2)  # (B, T, D = F + V)
        else:
            assert pooled is not None
            once = constant if self.regression is None else torch.cat([constant, pooled.step], dim=1)  # (B, V or V + F)
            x = self.projection(rows, once, mask, pooled.spread)  # (B, T, D)
        if self.encoder is not None:
            x = self.encoder(x, src_key_padding_mask=~mask)  # (B, T, D)
        logits: Tensor = self.mlp(mean_of_rows(x, mask)).squeeze(1)  # (B, 1) -> (B,)
        return logits


def build_head(widths: tuple[int, int], settings: TrainSettings) -> Head:
    """A new head whose initial weights depend only on `settings.seed`; the caller's random state does not change.

    `widths` are F, the width of a row, and V, the width of the part that is constant over a video (see `Features`).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return Head(*widths, settings)
