"""`haechi train`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from train.settings import SLOWFAST_CHOICES, TrainSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor


@click.command()
@click.argument("cache", type=click.Path(path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder of the run; an earlier run in it is replaced."
)
@click.option("--clip/--no-clip", default=TrainSettings.clip, help="Use the CLIP embedding of each frame.")
@click.option(
    "--slowfast",
    type=click.Choice(SLOWFAST_CHOICES),
    default=TrainSettings.slowfast,
    help="What to use of SlowFast: the features before its classifier, its Kinetics logits, or nothing.",
)
@click.option("--epochs", type=int, default=TrainSettings.epochs, help="Passes over the training videos, at most.")
@click.option(
    "--patience",
    type=int,
    default=TrainSettings.patience,
    help="Stop after so many epochs in a row without a better one.",
)
@click.option("--batch-size", type=int, default=TrainSettings.batch_size, help="Videos a step, at least 2.")
@click.option("--lr", type=float, default=TrainSettings.lr, help="Adam's learning rate.")
@click.option("--weight-decay", type=float, default=TrainSettings.weight_decay, help="Adam's weight decay.")
@click.option(
    "--pos-weight",
    type=float,
    default=TrainSettings.pos_weight,
    show_default="safe / harmful training videos",
    help="Weight of a harmful video in the loss.",
)
@click.option(
    "--layers", "num_layers", type=int, default=TrainSettings.num_layers, help="Layers of the Transformer encoder."
)
@click.option("--feedforward", type=int, default=TrainSettings.feedforward, help="Feed-forward width of each layer.")
@click.option("--dropout", type=float, default=TrainSettings.dropout, help="Dropout inside the encoder.")
@click.option(
    "--val-fraction",
    type=float,
    default=TrainSettings.val_fraction,
    help="Share of the videos drawn for validation where the cache names none.",
)
@click.option("--seed", type=int, default=TrainSettings.seed, help="Decides split, first weights, order and dropout.")
@click.option("--device", default=TrainSettings.device, help="cpu, cuda, cuda:1, or auto: CUDA where there is one.")
def train(cache: Path, out: Path, **flags: Any) -> None:
    """Stage 2: a feature cache to a trained head with its threshold.

    Trains on the labelled videos of CACHE; the defaults are the report's Model 4. The best epoch by validation F1 is
    kept; videos of a test split are scored once, at the end, with the threshold frozen.
    """
    settings = TrainSettings(**flags)

    import numpy as np
    import torch
    from rich.console import Console
    from rich.markup import escape

    from cache.reader import Cache
    from train import screen
    from train.checkpoint import Checkpoint, features_of
    from train.dataset import load_dataset
    from train.fit import find_device, fit, logits_of, pos_weight_of, scores_of
    from train.head import build_head, num_heads
    from train.report import Result, write_report
    from train.run import MODEL_FILE, run_folder
    from train.split import make_split, same_bytes

    console = Console(highlight=False, emoji=False)
    device = find_device(settings)
    opened = Cache.open(cache)
    with run_folder(out) as partial:
        dataset = load_dataset(opened, settings)
        labels = dataset.labels
        split = make_split(labels, dataset.splits, dataset.groups, settings)
        split.warnings.extend(same_bytes(split.names, dataset.sha256, dataset.ids))
        features = dataset.features.to(device)
        head = build_head(features.width, settings).to(device)
        pos_weight = pos_weight_of(labels[split.rows("train")], settings)

        if opened.untrained:
            console.print(screen.untrained_warning(opened.untrained))
        console.print(screen.counts_table(split.counts(labels)))
        if dataset.num_unlabelled:
            console.print(f"{dataset.num_unlabelled:,} unlabelled videos are left out")
        for note in split.notes:
            console.print(f"split: {escape(note)}")
        for warning in split.warnings:
            console.print(f"[bold yellow]warning[/]: {escape(warning)}")
        console.print(
            f"pos_weight {pos_weight:.4f}"
            + (" (given)" if settings.pos_weight is not None else " (safe / harmful, training)")
        )
        console.print(
            f"input (B, {features.rows.shape[1]}, {features.width}): {' + '.join(dataset.streams)}, "
            f"{num_heads(features.width)} heads, on {device}\n"
        )

        epochs = []
        with screen.progress_bar(console) as progress:
            task = progress.add_task("training", total=settings.epochs * len(split.rows("train")))

            def track(batches: "list[Tensor]") -> "Iterator[Tensor]":
                for batch in batches:
                    yield batch
                    progress.advance(task, len(batch))

            for epoch in fit(head, features, labels, split, settings, track=track):
                epochs.append(epoch)
                console.print(screen.epoch_table(epoch, num_epochs=settings.epochs), "")
        if len(epochs) < settings.epochs:
            console.print(f"stopped: {settings.patience} epochs in a row without a better one\n")

        scores = np.empty(len(labels))
        for name in split.counts(labels):  # a part at a time, in the batches in which the threshold was chosen
            rows = split.rows(name)
            scores[rows] = scores_of(logits_of(head, features, torch.from_numpy(rows).to(device)))
        result = Result(
            settings=settings,
            dataset=dataset,
            split=split,
            pos_weight=pos_weight,
            epochs=epochs,
            scores=scores,
            fingerprint=opened.fingerprint,
            untrained=opened.untrained,
        )
        checkpoint = Checkpoint(
            head=head,
            best_threshold=result.best.best.threshold,
            best_epoch=result.best.number,
            settings=settings,
            streams=dataset.streams,
            fingerprint=opened.fingerprint,
            untrained=opened.untrained,
            features=features_of(opened),
            metrics=result.metrics,
        )
        write_report(partial, result)
        checkpoint.save(partial / MODEL_FILE)
    console.print(screen.metrics_table(result))
    if opened.untrained:
        console.print(screen.untrained_warning(opened.untrained))
    console.print(f"in {escape(str(out))}:", soft_wrap=True)
    console.print(screen.artefacts_table())
