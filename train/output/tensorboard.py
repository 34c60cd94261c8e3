"""The event file of a run for TensorBoard."""

from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from haechi.train.model.fit import Epoch
from haechi.train.result import Result


def write_events(path: Path, result: Result) -> None:
    """Write one event file: losses and metrics of every epoch (of each fold), PR curve of the headline part."""
    folder = path.parent / f"{path.name}.partial"
    writer = SummaryWriter(folder)
    try:
        for fold in result.folds:
            _add_epochs(writer, fold.epochs, prefix=f"fold {fold.number}/")
        _add_epochs(writer, result.epochs, prefix="")
        rows = result.split.rows(result.headline)
        writer.add_pr_curve(result.headline, result.labels[rows], result.scores[rows])
    finally:
        writer.close()
    (written,) = folder.iterdir()
    written.replace(path)
    folder.rmdir()


def _add_epochs(writer: SummaryWriter, epochs: list[Epoch], *, prefix: str) -> None:
    for epoch in epochs:
        values = {
            "loss/train": epoch.train_loss,
            "loss/val": epoch.val_loss,
            "val/threshold": epoch.best.threshold,
            **{f"val/{name}": value for name, value in epoch.metrics.items() if value is not None},
        }
        for name, value in values.items():
            writer.add_scalar(prefix + name, value, epoch.number)
