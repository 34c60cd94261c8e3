"""The training loop.

Features in memory and streamed features are shuffled in the same way, so that both give the same run to the last bit:

    training videos, in the cache's order        │ block 0 │ block 1 │ block 2 │ block 3 │ …  `BLOCK_VIDEOS` videos each
    shuffle buffers: random blocks, each epoch     blocks 0 and 3       blocks 1 and 2 …      about `BUFFER_BLOCKS` each
    batches: random videos of one buffer           ▪▪▪▪ ▪▪▪▪ ▪▪▪▪       ▪▪▪▪ ▪▪▪▪ …

Up to 16,384 training videos of 32 rows fit in one buffer: then all videos are shuffled together.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from haechi.cache.progress import SILENT, Progress
from haechi.train.data.features import Features
from haechi.train.data.split import Split
from haechi.train.data.stream import Stream
from haechi.train.errors import TrainError
from haechi.train.evaluate.metrics import metrics_at
from haechi.train.evaluate.threshold import Choice, Threshold, choose_shrunk_threshold, threshold_table
from haechi.train.model.adam import Adam
from haechi.train.model.head import Head
from haechi.train.model.judge import Judge
from haechi.train.model.loss import make_loss
from haechi.train.model.regression import FittedRegression, regression_logits
from haechi.train.model.scores import compute_logits, compute_scores
from haechi.train.policy import Policy
from haechi.train.settings import TrainSettings

BLOCK_VIDEOS = 256  # neighbours in the cache: a block takes a few large reads
BUFFER_BLOCKS = 64  # blocks that are mixed in one buffer
BUFFER_ROWS = 64 * 256 * 32  # limit for long videos: two buffers of Model 4's input take 1.1 GB

FEWEST_CYCLE_STEPS = 4  # with fewer, OneCycleLR has less than one step to raise the learning rate


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One pass over the training split, and how the head then does on validation."""

    number: int
    """From 1; 0 is the regression alone, from which a head starts. Without a network, 1 is the regression with the
    moments that improve it."""
    train_loss: float
    """Mean loss over the training videos during the epoch: with dropout, while the weights change."""
    val_loss: float
    """Mean of the same weighted loss over the validation videos, after the epoch."""
    table: list[Threshold]
    """The report's table of nine thresholds, on the validation videos."""
    best: Choice
    """The exact best threshold on the validation videos."""
    metrics: dict[str, int | float | None]
    """Figures of the validation videos at that threshold."""
    improved: bool
    """Whether this is the best epoch so far; the head of the last such epoch is kept."""
    seconds: float


class DivergedError(TrainError):
    """A loss was not finite."""


def shuffle_buffers(rows: Tensor, *, num_buffers: int, generator: torch.Generator) -> list[Tensor]:
    """Assign the blocks of `rows` (n,), which ascend, to `num_buffers` buffers at random. Each buffer's rows ascend.

    The numbers of blocks of two buffers differ by at most one, so that no buffer is left with a single video.
    """
    blocks = torch.split(rows, BLOCK_VIDEOS)
    if num_buffers == 1:
        return [rows]
    order = torch.randperm(len(blocks), generator=generator)
    return [torch.cat([blocks[i] for i in chosen.sort().values]) for chosen in order.tensor_split(num_buffers)]


def shuffle_batches(rows: Tensor, *, batch_size: int, generator: torch.Generator) -> list[Tensor]:
    """`rows` (n,) in random order, split into batches.

    A single video at the end joins the batch before it: BatchNorm cannot train on one video, and no video is dropped.
    """
    batches = list(torch.split(rows[torch.randperm(len(rows), generator=generator)], batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def count_buffers(lengths: np.ndarray) -> int:
    """The number of shuffle buffers for n training videos with `lengths` (n,) rows; each gets at least two blocks."""
    num_blocks = math.ceil(len(lengths) / BLOCK_VIDEOS)
    by_rows = min(num_blocks // 2, math.ceil(int(lengths.sum()) / BUFFER_ROWS))
    return max(math.ceil(num_blocks / BUFFER_BLOCKS), by_rows)


def count_steps(num_videos: int, *, batch_size: int, num_buffers: int) -> int:
    """Steps of an epoch; with several buffers, an upper bound."""
    if num_buffers == 1:
        return max(1, math.ceil(num_videos / batch_size) - (num_videos % batch_size == 1))
    return math.ceil(num_videos / batch_size) + num_buffers - 1


def passes(
    head: Head,
    features: Features | Stream,
    labels: np.ndarray,
    rows: np.ndarray,
    settings: TrainSettings,
    *,
    offset: np.ndarray | None = None,
    precision: str = "fp32",
    progress: Progress = SILENT,
) -> Iterator[float]:
    """Train `head` on the videos of `rows` (n,); yield the mean loss of each of `settings.epochs` passes over them.

    After each yield the head holds the weights to validate or keep: with `settings.ema`, the averaged ones.

    `features` and `labels` (N,) are those of the dataset; head and features are on one device. `offset` (N,) is added
    to the logits. With `precision` bf16, training steps use autocast. `progress.advance` gets the number of videos of
    each batch.
    """
    device = next(head.parameters()).device
    truth = torch.from_numpy(labels).to(device, torch.float32)  # (N,)
    shift = None if offset is None else torch.from_numpy(offset).to(device, torch.float32)  # (N,)
    train_rows = torch.from_numpy(rows).to(device)
    criterion = make_loss(labels[rows], settings, device)
    # Model 4 has 8.8 million weights: at batch 4 on a CPU, Adam unfused takes as long as the backward pass.
    optimizer = Adam(head.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
    num_buffers = count_buffers(features.lengths[rows])
    num_steps = count_steps(len(rows), batch_size=settings.batch_size, num_buffers=num_buffers)
    scheduler = _scheduler(optimizer, settings, num_steps=settings.epochs * num_steps)
    averaged = _averaged(head, settings, num_steps=num_steps)
    generator = torch.Generator().manual_seed(settings.seed)

    for _ in range(settings.epochs):
        head.train()
        loss_sum = torch.zeros((), device=device)
        dropout_seed = int(torch.randint(1 << 62, (), generator=generator))
        buffers = shuffle_buffers(train_rows, num_buffers=num_buffers, generator=generator)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(dropout_seed)
            for buffer in features.buffers(buffers):
                for batch in shuffle_batches(buffer, batch_size=settings.batch_size, generator=generator):
                    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                        logits = head(*features.batch(batch))
                    logits = logits.float() if shift is None else logits.float() + shift[batch]
                    loss = criterion(logits, truth[batch])
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    if scheduler is not None:
                        scheduler.step()
                    if averaged is not None:
                        averaged.update_parameters(head)
                    loss_sum += loss.detach() * len(batch)
                    progress.advance(len(batch))
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
    fitted: FittedRegression | None = None,
    precision: str = "fp32",
    progress: Progress = SILENT,
) -> Iterator[Epoch]:
    """Train `head` on the train split, yielding each epoch; at the end the head has the weights of the best epoch.

    Without a regression, the best epoch is the one whose best threshold on the val split has the highest value of the
    policy (by default the highest F1); if equal, the one with the lower val loss, then the earlier one. With a
    regression, which is `fitted` and in the head already, epoch 0 is the regression alone, and the best epoch is the
    one with the lowest val loss if that is significantly lower than the regression's (see `Judge`). Training stops
    after `settings.patience` epochs without improvement. The test split is not used. The other arguments are those of
    `passes`.

    Raises `DivergedError` when a loss is not finite.
    """
    device = next(head.parameters()).device
    train_rows, val_rows = split.rows("train"), split.rows("val")
    val_index, val_labels = torch.from_numpy(val_rows).to(device), labels[val_rows]
    criterion = make_loss(labels[train_rows], settings, device)
    policy = Policy.parse(settings.policy)

    def mean_loss(logits: Tensor | np.ndarray, truth: np.ndarray) -> float:
        return float(criterion(*(torch.as_tensor(values).to(device, torch.float32) for values in (logits, truth))))

    offset, judge = None, None
    best_key, best_state, num_worse = (False, -math.inf, -math.inf), _copied(head), 0
    if fitted is not None:
        pos_weight = float(criterion.pos_weight)
        best_key = (True, -math.inf, 0.0)  # an epoch replaces the regression only if it is significantly better
        start = regression_logits(features, fitted.regression, val_rows)
        judge = Judge(val_labels, pos_weight=pos_weight)
        yield make_epoch(
            0,
            train_loss=mean_loss(fitted.held_out, labels[train_rows[fitted.kept]]),
            val_loss=mean_loss(start, val_labels),
            logits=start,
            labels=val_labels,
            policy=policy,
            pos_weight=pos_weight,
            improved=True,
            seconds=0.0,
        )
        offset = fitted.offset(features, train_rows)
    start_seconds = time.perf_counter()
    losses = passes(head, features, labels, train_rows, settings, offset=offset, precision=precision, progress=progress)
    for number, train_loss in enumerate(losses, start=1):
        logits = compute_logits(head, features, val_index)
        val_loss = mean_loss(logits, val_labels)
        check_finite(number, settings, training=train_loss, validation=val_loss)
        epoch = make_epoch(
            number,
            train_loss=train_loss,
            val_loss=val_loss,
            logits=logits.double().cpu().numpy(),
            labels=val_labels,
            policy=policy,
            pos_weight=None if judge is None else float(criterion.pos_weight),
            improved=False,
            seconds=time.perf_counter() - start_seconds,
        )
        if judge is None:
            key = (epoch.best.met, epoch.best.value, -val_loss)
        else:
            key = (judge.prefers(logits.double().cpu().numpy(), start), -val_loss, 0.0)
        epoch = replace(epoch, improved=key > best_key)
        num_worse = 0 if epoch.improved else num_worse + 1
        if epoch.improved:
            best_key = key
            best_state = _copied(head)
        yield epoch
        if num_worse == settings.patience:
            break
        start_seconds = time.perf_counter()
    head.load_state_dict(best_state)
    head.eval()


def make_epoch(
    number: int,
    *,
    train_loss: float,
    val_loss: float,
    logits: np.ndarray,
    labels: np.ndarray,
    policy: Policy,
    pos_weight: float | None,
    improved: bool,
    seconds: float,
) -> Epoch:
    """An epoch with its figures, from the `logits` (n,) of the validation videos and their `labels` (n,).

    `pos_weight` as for `choose_shrunk_threshold`.
    """
    scores = compute_scores(logits)
    best = choose_shrunk_threshold(scores, labels, policy, pos_weight=pos_weight)
    return Epoch(
        number=number,
        train_loss=train_loss,
        val_loss=val_loss,
        table=threshold_table(scores, labels),
        best=best,
        metrics=metrics_at(scores, labels, best.threshold),
        improved=improved,
        seconds=seconds,
    )


def step_decay(ema: float, *, num_steps: int) -> float:
    """The average's decay per step that gives the decay `ema` per epoch of `num_steps` steps."""
    return float(ema ** (1 / num_steps))


def _scheduler(optimizer: torch.optim.Optimizer, settings: TrainSettings, *, num_steps: int) -> LRScheduler | None:
    """Sets the learning rate of each of `num_steps` steps; None: the rate is constant."""
    if settings.schedule == "cosine":
        return CosineAnnealingLR(optimizer, T_max=num_steps)
    if settings.schedule == "onecycle":
        return OneCycleLR(optimizer, max_lr=settings.lr, total_steps=max(num_steps, FEWEST_CYCLE_STEPS))
    return None


def _averaged(head: Head, settings: TrainSettings, *, num_steps: int) -> AveragedModel | None:
    """The moving average of the weights, which starts after the first step; None: no averaging."""
    if not settings.ema:
        return None
    decay = step_decay(settings.ema, num_steps=num_steps)
    return AveragedModel(head, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]


def _copied(head: Head) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in head.state_dict().items()}


def check_finite(number: int, settings: TrainSettings, **losses: float) -> None:
    """Raise `DivergedError` when a loss of epoch `number` is not finite."""
    if not all(map(math.isfinite, losses.values())):
        text = ", ".join(f"{name} loss {loss:g}" for name, loss in losses.items())
        raise DivergedError(
            f"epoch {number}: {text}: training diverged; try a learning rate below {settings.lr:g} (--lr)"
        )
