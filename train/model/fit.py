"""The training loop.

Its shuffle is the same for features in memory and streamed ones, so that both give the same run to the last bit:

    training videos, in the cache's order    │ piece 0 │ piece 1 │ piece 2 │ piece 3 │ …    `PIECE_VIDEOS` each
    windows: whole pieces, drawn each epoch    pieces 0 and 3        pieces 1 and 2 …       about `WINDOW_PIECES` each
    batches: cut from a shuffled window        ▪▪▪▪ ▪▪▪▪ ▪▪▪▪        ▪▪▪▪ ▪▪▪▪ …

Up to one window (16,384 training videos of 32 rows) that is a plain shuffle of all.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from haechi.train.data.features import Features, batches_of
from haechi.train.data.split import Split
from haechi.train.data.stream import Stream
from haechi.train.errors import TrainError
from haechi.train.evaluate.metrics import metrics_at
from haechi.train.evaluate.threshold import Choice, Threshold, choose_threshold, threshold_table
from haechi.train.model.baselines import fit_regression
from haechi.train.model.head import Head
from haechi.train.model.loss import Loss
from haechi.train.policy import Policy
from haechi.train.settings import TrainSettings

# No gradients are kept, so evaluation takes larger batches: of videos, and of their rows, padding included.
SCORE_BATCH_SIZE, SCORE_BATCH_ROWS = 256, 256 * 32

PIECE_VIDEOS = 256  # in one place of the cache: a few large reads
WINDOW_PIECES = 64  # as many places as are mixed
WINDOW_ROWS = 64 * 256 * 32  # of longer videos fewer: two windows of Model 4's input take 1.1 GB

FEWEST_CYCLE_STEPS = 4  # of fewer, the share in which OneCycleLR raises the learning rate is less than one


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What one pass over the training split brought."""

    number: int
    """From 1."""
    train_loss: float
    """Mean over the training videos as they were trained on: with dropout, weights changing on the way."""
    val_loss: float
    """Mean over the validation videos, by the same weighted loss."""
    table: list[Threshold]
    """The report's nine rows, on the validation videos."""
    best: Choice
    """The exact best threshold on the validation videos."""
    metrics: dict[str, int | float | None]
    """Of the validation videos at that threshold."""
    improved: bool
    """Whether this was the best epoch so far; the last such epoch is the one that is kept."""
    seconds: float


class DivergedError(TrainError):
    """Training in which a loss was not finite."""


def pos_weight_of(labels: np.ndarray, settings: TrainSettings) -> float:
    """Weight of a harmful video in the loss: safe / harmful of the training `labels` (n,), unless the settings say."""
    if settings.pos_weight is not None:
        return settings.pos_weight
    return float((labels == 0).sum() / (labels == 1).sum())


def shuffled_windows(rows: Tensor, *, num_windows: int, generator: torch.Generator) -> list[Tensor]:
    """`rows` (n,), ascending, cut into pieces, and those in random order into windows; each window is ascending.

    Windows hold as many pieces as each other, or one more: none is left with a single video.
    """
    pieces = torch.split(rows, PIECE_VIDEOS)
    if num_windows == 1:
        return [rows]
    order = torch.randperm(len(pieces), generator=generator)
    return [torch.cat([pieces[i] for i in chosen.sort().values]) for chosen in order.tensor_split(num_windows)]


def shuffled_batches(rows: Tensor, *, batch_size: int, generator: torch.Generator) -> list[Tensor]:
    """`rows` (n,) in random order, cut into batches.

    A last batch of one joins the batch before it: BatchNorm cannot train on one video, and to drop it would waste it.
    """
    batches = list(torch.split(rows[torch.randperm(len(rows), generator=generator)], batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def num_windows_of(lengths: np.ndarray) -> int:
    """Into how many windows training videos of so many rows, `lengths` (n,), are cut; none is a piece alone."""
    num_pieces = math.ceil(len(lengths) / PIECE_VIDEOS)
    by_rows = min(num_pieces // 2, math.ceil(int(lengths.sum()) / WINDOW_ROWS))
    return max(math.ceil(num_pieces / WINDOW_PIECES), by_rows)


def num_steps_of(num_videos: int, *, batch_size: int, num_windows: int) -> int:
    """Steps of an epoch; where it has several windows, the most that it can take."""
    if num_windows == 1:
        return max(1, math.ceil(num_videos / batch_size) - (num_videos % batch_size == 1))
    return math.ceil(num_videos / batch_size) + num_windows - 1


def logits_of(head: Head, features: Features | Stream, rows: Tensor) -> Tensor:
    """The head's logits (n,) for the videos of `rows` (n,), ascending, on the head's device.

    Without dropout, and in float32 whatever the precision of training, so that a score never depends on the device's
    taste for bfloat16.
    """
    head.eval()
    with torch.no_grad():
        batches = batches_of(rows, features.lengths, max_videos=SCORE_BATCH_SIZE, max_rows=SCORE_BATCH_ROWS)
        return torch.cat([head(*features.batch(batch)) for batch in features.windows(batches)])


def scores_of(logits: Tensor) -> np.ndarray:
    """Scores (n,) float64 in [0, 1]; in double precision, confident videos keep distinct scores for longer."""
    scores: np.ndarray = torch.sigmoid(logits.double()).cpu().numpy()
    return scores


def passes(
    head: Head,
    features: Features | Stream,
    labels: np.ndarray,
    rows: np.ndarray,
    settings: TrainSettings,
    *,
    precision: str = "fp32",
    track: Callable[[list[Tensor]], Iterable[Tensor]] = iter,
) -> Iterator[float]:
    """Train `head` on the videos of `rows` (n,), yielding the mean loss of each of `settings.epochs` passes over them.

    While it has yielded, the head is as it is to be judged: with the averaged weights, where they are averaged. Its
    regression, where it has one, is fitted first, on the same videos.

    `features` and `labels` (N,) are those of the dataset; head and features are on one device. With `precision` bf16,
    training steps are autocast. `track` is given a window's batches and passes them on: a place to count them.
    """
    device = next(head.parameters()).device
    truth = torch.from_numpy(labels).to(device, torch.float32)  # (N,)
    train_rows = torch.from_numpy(rows).to(device)
    criterion = loss_of(labels[rows], settings, device)
    # Model 4 has 8.8 million weights: at batch 4 on a CPU, Adam unfused takes as long as the backward pass.
    optimizer = torch.optim.Adam(head.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
    if head.regression is not None:
        regression = fit_regression(features, labels, rows, pos_weight=settings.pos_weight)
        head.regression.load_state_dict(regression.state_dict())
    num_windows = num_windows_of(features.lengths[rows])
    num_steps = num_steps_of(len(rows), batch_size=settings.batch_size, num_windows=num_windows)
    scheduler = _scheduler(optimizer, settings, num_steps=settings.epochs * num_steps)
    averaged = _averaged(head, settings, num_steps=num_steps)
    generator = torch.Generator().manual_seed(settings.seed)

    for _ in range(settings.epochs):
        head.train()
        loss_sum = torch.zeros((), device=device)
        dropout_seed = int(torch.randint(1 << 62, (), generator=generator))
        windows = shuffled_windows(train_rows, num_windows=num_windows, generator=generator)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(dropout_seed)
            for window in features.windows(windows):
                batches = shuffled_batches(window, batch_size=settings.batch_size, generator=generator)
                for batch in track(batches):
                    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                        logits = head(*features.batch(batch))
                    loss = criterion(logits.float(), truth[batch])
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    if scheduler is not None:
                        scheduler.step()
                    if averaged is not None:
                        averaged.update_parameters(head)
                    loss_sum += loss.detach() * len(batch)
        if averaged is None:
            yield float(loss_sum) / len(train_rows)
        else:
            state = _copied(head)
            head.load_state_dict(averaged.module.state_dict())
            yield float(loss_sum) / len(train_rows)
            head.load_state_dict(state)
    head.eval()


def fit(
    head: Head,
    features: Features | Stream,
    labels: np.ndarray,
    split: Split,
    settings: TrainSettings,
    *,
    precision: str = "fp32",
    track: Callable[[list[Tensor]], Iterable[Tensor]] = iter,
) -> Iterator[Epoch]:
    """Train `head` on the train split, yielding each epoch; at the end the head holds the best one's weights.

    The best epoch is that whose best threshold does most for the policy on the val split (by default the highest F1);
    of equal ones that of the lower val loss, then the earlier. Training ends after `patience` epochs in a row that were
    not better. Rows of the test split are not looked at. The other arguments are those of `passes`.

    Raises `DivergedError` where a loss is not finite.
    """
    device = next(head.parameters()).device
    val_rows = torch.from_numpy(split.rows("val")).to(device)
    val_labels = labels[split.rows("val")]
    criterion = loss_of(labels[split.rows("train")], settings, device)
    policy = Policy.parse(settings.policy)
    best_key, best_state, num_worse = (False, -math.inf, -math.inf), head.state_dict(), 0
    start_seconds = time.perf_counter()
    losses = passes(head, features, labels, split.rows("train"), settings, precision=precision, track=track)

    for number, train_loss in enumerate(losses, start=1):
        logits = logits_of(head, features, val_rows)
        val_loss = float(criterion(logits, torch.from_numpy(val_labels).to(device, torch.float32)))
        check_finite(number, settings, training=train_loss, validation=val_loss)
        scores = scores_of(logits)
        best = choose_threshold(scores, val_labels, policy)
        key = (best.met, best.value, -val_loss)
        improved = key > best_key
        num_worse = 0 if improved else num_worse + 1
        if improved:
            best_key = key
            best_state = _copied(head)
        yield Epoch(
            number=number,
            train_loss=train_loss,
            val_loss=val_loss,
            table=threshold_table(scores, val_labels),
            best=best,
            metrics=metrics_at(scores, val_labels, best.threshold),
            improved=improved,
            seconds=time.perf_counter() - start_seconds,
        )
        if num_worse == settings.patience:
            break
        start_seconds = time.perf_counter()
    head.load_state_dict(best_state)
    head.eval()


def step_decay(ema: float, *, num_steps: int) -> float:
    """What a step leaves of the averaged weights, so that `num_steps` of them leave `ema`."""
    return float(ema ** (1 / num_steps))


def _scheduler(optimizer: torch.optim.Optimizer, settings: TrainSettings, *, num_steps: int) -> LRScheduler | None:
    """Sets the learning rate of each of `num_steps` steps; None: it stays."""
    if settings.schedule == "cosine":
        return CosineAnnealingLR(optimizer, T_max=num_steps)
    if settings.schedule == "onecycle":
        return OneCycleLR(optimizer, max_lr=settings.lr, total_steps=max(num_steps, FEWEST_CYCLE_STEPS))
    return None


def _averaged(head: Head, settings: TrainSettings, *, num_steps: int) -> AveragedModel | None:
    """The moving average of the weights, from those after the first step on; None: they are not averaged."""
    if not settings.ema:
        return None
    decay = step_decay(settings.ema, num_steps=num_steps)
    return AveragedModel(head, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]


def _copied(head: Head) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in head.state_dict().items()}


def loss_of(labels: np.ndarray, settings: TrainSettings, device: torch.device) -> Loss:
    """What is minimised on training videos of `labels` (n,)."""
    return Loss(
        torch.tensor(pos_weight_of(labels, settings), device=device),
        focal_gamma=settings.focal_gamma if settings.loss == "focal" else 0.0,
        label_smoothing=settings.label_smoothing,
    )


def check_finite(number: int, settings: TrainSettings, **losses: float) -> None:
    """Raise `DivergedError` where a loss of an epoch is not finite."""
    if not all(map(math.isfinite, losses.values())):
        told = ", ".join(f"{name} loss {loss:g}" for name, loss in losses.items())
        raise DivergedError(
            f"epoch {number}: {told}: training diverged; try a learning rate below {settings.lr:g} (--lr)"
        )
