"""The training loop."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from train.dataset import Features
from train.errors import TrainError
from train.head import Head
from train.metrics import metrics_at
from train.settings import TrainSettings
from train.split import Split
from train.threshold import Threshold, best_threshold, threshold_table

SCORE_BATCH_SIZE = 256  # no gradients are kept, so evaluation takes larger batches


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
    best: Threshold
    """The exact best threshold on the validation videos."""
    metrics: dict[str, int | float | None]
    """Of the validation videos at that threshold."""
    improved: bool
    """Whether this was the best epoch so far; the last such epoch is the one that is kept."""
    seconds: float


def find_device(settings: TrainSettings) -> torch.device:
    """The device that the settings mean. Raises `TrainError` where there is no such CUDA device."""
    if settings.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(settings.device)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise TrainError(
            f"device {settings.device!r}: torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices; "
            "use --device cpu or auto"
        )
    return device


def pos_weight_of(labels: np.ndarray, settings: TrainSettings) -> float:
    """Weight of a harmful video in the loss: safe / harmful of the training `labels` (n,), unless the settings say."""
    if settings.pos_weight is not None:
        return settings.pos_weight
    return float((labels == 0).sum() / (labels == 1).sum())


def shuffled_batches(rows: Tensor, *, batch_size: int, generator: torch.Generator) -> list[Tensor]:
    """`rows` (n,) in random order, cut into batches.

    A last batch of one joins the batch before it: BatchNorm cannot train on one video, and to drop it would waste it.
    """
    batches = list(torch.split(rows[torch.randperm(len(rows), generator=generator)], batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def logits_of(head: Head, features: Features, rows: Tensor) -> Tensor:
    """The head's logits (n,) for the videos of `rows` (n,), on the head's device, without dropout."""
    head.eval()
    with torch.no_grad():
        return torch.cat([head(*features.batch(batch)) for batch in torch.split(rows, SCORE_BATCH_SIZE)])


def scores_of(logits: Tensor) -> np.ndarray:
    """Scores (n,) float64 in [0, 1]; in double precision, confident videos keep distinct scores for longer."""
    scores: np.ndarray = torch.sigmoid(logits.double()).cpu().numpy()
    return scores


def fit(
    head: Head,
    features: Features,
    labels: np.ndarray,
    split: Split,
    settings: TrainSettings,
    *,
    track: Callable[[list[Tensor]], Iterable[Tensor]] = iter,
) -> Iterator[Epoch]:
    """Train `head` on the train split, yielding each epoch; at the end the head holds the best one's weights.

    The best epoch is that of the highest F1 on the val split, each at its own best threshold; of equal ones that of the
    lower val loss, then the earlier. Training ends after `patience` epochs in a row that were not better. Rows of the
    test split are not looked at. `features` and `labels` (N,) are those of the dataset; head and features are on one
    device. `track` is given an epoch's batches and passes them on: a place to count them.

    Raises `TrainError` where a loss is not finite.
    """
    device = features.rows.device
    truth = torch.from_numpy(labels).to(device, torch.float32)  # (N,)
    train_rows = torch.from_numpy(split.rows("train")).to(device)
    val_rows = torch.from_numpy(split.rows("val")).to(device)
    val_labels = labels[split.rows("val")]
    pos_weight = torch.tensor(pos_weight_of(labels[split.rows("train")], settings), device=device)
    criterion = nn.BCEWithLogitsLoss(pos_weight=pos_weight)
    # Model 4 has 8.8 million weights: at batch 4 on a CPU, Adam unfused takes as long as the backward pass.
    optimizer = torch.optim.Adam(head.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
    generator = torch.Generator().manual_seed(settings.seed)
    best_key, best_state, num_worse = (-math.inf, -math.inf), head.state_dict(), 0

    for number in range(1, settings.epochs + 1):
        start_seconds = time.perf_counter()
        head.train()
        loss_sum = torch.zeros((), device=device)
        dropout_seed = int(torch.randint(1 << 62, (), generator=generator))
        batches = shuffled_batches(train_rows, batch_size=settings.batch_size, generator=generator)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(dropout_seed)
            for batch in track(batches):
                loss = criterion(head(*features.batch(batch)), truth[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                loss_sum += loss.detach() * len(batch)

        logits = logits_of(head, features, val_rows)
        train_loss, val_loss = float(loss_sum) / len(train_rows), float(criterion(logits, truth[val_rows]))
        if not (math.isfinite(train_loss) and math.isfinite(val_loss)):
            raise TrainError(
                f"epoch {number}: training loss {train_loss:g}, validation loss {val_loss:g}: training diverged; "
                f"try a learning rate below {settings.lr:g} (--lr)"
            )
        scores = scores_of(logits)
        best = best_threshold(scores, val_labels)
        key = (best.f1, -val_loss)
        improved = key > best_key
        num_worse = 0 if improved else num_worse + 1
        if improved:
            best_key = key
            best_state = {name: value.clone() for name, value in head.state_dict().items()}
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
    head.load_state_dict(best_state)
    head.eval()
