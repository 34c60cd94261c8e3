"""Compares training at the report's size with the report's loop and with a plain loop on tensors in memory.

`python -m bench.train`. The features are random numbers: 3,286 training and 580 validation videos of 32 frames.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import click
import torch
from torch import Tensor, nn

from bench import measure
from bench.figures import show
from bench.measure import Measurement
from bench.options import common
from bench.report_train import ReportTraining
from bench.synthetic import write_cache
from haechi.cache.reader import Cache
from haechi.train.data.batches import MAX_VIDEOS
from haechi.train.data.dataset import Dataset, load_dataset
from haechi.train.data.features import Features
from haechi.train.experiment import Experiment, prepare
from haechi.train.model.fit import fit
from haechi.train.settings import TrainSettings

PRESET, EPOCHS = "network", 10

MARK_SECONDS, MARK_REPORT, MARK_MEMORY = 90.0, 10.0, 1.05


@click.command()
@common
@click.option(
    "--report-steps",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="Steps of the report's epoch that are run in each round; the time of an epoch is extrapolated.",
)
def main(*, data: Path | None, out: Path, rounds: int, quick: bool, report_steps: int) -> None:
    """Time the command, then epochs of Haechi, of the report's loop and of a plain loop, in turn."""
    with tempfile.TemporaryDirectory() as name:
        cache = data or write_cache(Path(name, "cache"), share=0.02 if quick else 1.0)
        flags = ["--preset", PRESET, "--epochs", str(EPOCHS), "--patience", str(EPOCHS)]
        defaults, commands = (
            [
                measure.run(["haechi", "train", cache, "--out", Path(name, f"{kind}-{i}"), *given]).seconds
                for i in range(rounds)
            ]
            for kind, given in (("default", []), (PRESET, flags))
        )
        # One epoch more than rounds, because the first is a warm-up.
        settings = TrainSettings.from_preset(PRESET, epochs=rounds + 1, patience=rounds + 1)
        dataset = load_dataset(Cache.open(cache), settings)
        experiment = prepare(dataset, settings)
        report = _report(dataset, experiment, num_steps=report_steps)
        plain = PlainTraining.of(dataset, prepare(dataset, settings))
        epochs = fit(
            experiment.head,
            dataset.features.to(experiment.device),
            dataset.labels,
            experiment.split,
            settings,
            precision=experiment.precision,
        )
        contestants = {"ours": lambda: next(epochs).seconds, "plain": plain.epoch, "report": report.epoch}
        measure.in_turn(contestants, rounds=1)
        times = measure.in_turn(contestants, rounds=rounds)

    to_report = measure.ratios(times["report"], times["ours"])
    to_plain = measure.ratios(times["ours"], times["plain"])
    rows = [
        Measurement(what="`haechi train`, from command to result", unit="s", values=defaults, at_most=MARK_SECONDS),
        Measurement(
            what=f"{EPOCHS} epochs of `haechi train --preset {PRESET}`, from command to result",
            unit="s",
            values=commands,
            at_most=MARK_SECONDS,
        ),
        Measurement(what="Haechi, per epoch with validation", unit="s", values=times["ours"]),
        Measurement(what="the report's loop, per epoch without validation", unit="s", values=times["report"]),
        Measurement(what="a plain loop on tensors in memory, per epoch", unit="s", values=times["plain"]),
        Measurement(what="the report's loop / Haechi, per epoch", unit="x", values=to_report, at_least=MARK_REPORT),
        Measurement(
            what="Haechi / a plain loop on tensors in memory, per epoch", unit="x", values=to_plain, at_most=MARK_MEMORY
        ),
    ]
    show(
        measure.write(
            out,
            "train",
            rows,
            untrained=False,
            num_videos=experiment.split.counts(dataset.labels),
            share_of_report_epoch=report.share,
            precision=experiment.precision,
        )
    )


def _report(dataset: Dataset, experiment: Experiment, *, num_steps: int) -> ReportTraining:
    rows, constant, _ = dataset.features.batch(torch.from_numpy(experiment.split.rows("train")))
    x = torch.cat([rows, constant.unsqueeze(1).expand(-1, rows.shape[1], -1)], dim=2)  # (N, 32, 912)
    y = torch.from_numpy(dataset.labels[experiment.split.rows("train")]).float()
    return ReportTraining(x, y, device=experiment.device, num_steps=num_steps)


@dataclass(frozen=True, kw_only=True)
class PlainTraining:
    """A plain loop with the head, batches, optimizer and precision of Haechi, on float32 tensors in memory."""

    experiment: Experiment
    train: tuple[Tensor, ...]
    """Rows (N, T, F), constant (N, V), mask (N, T) and labels (N,)."""
    val: tuple[Tensor, ...]
    criterion: nn.Module
    optimizer: torch.optim.Optimizer

    @classmethod
    def of(cls, dataset: Dataset, experiment: Experiment) -> "PlainTraining":
        assert isinstance(dataset.features, Features)

        def tensors(part: str) -> tuple[Tensor, ...]:
            rows = torch.from_numpy(experiment.split.rows(part))
            y = torch.from_numpy(dataset.labels)[rows].float()
            return tuple(tensor.to(experiment.device) for tensor in (*dataset.features.batch(rows), y))

        settings, head = experiment.settings, experiment.head
        return cls(
            experiment=experiment,
            train=tensors("train"),
            val=tensors("val"),
            criterion=nn.BCEWithLogitsLoss(pos_weight=torch.tensor(experiment.pos_weight, device=experiment.device)),
            optimizer=torch.optim.Adam(
                head.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True
            ),
        )

    def epoch(self) -> float:
        """Seconds of an epoch, including the loss on the validation videos."""
        return measure.timed(self._epoch)

    def _epoch(self) -> None:
        head, device = self.experiment.head, self.experiment.device
        head.train()
        order = torch.randperm(len(self.train[-1])).to(device)
        for batch in torch.split(order, self.experiment.settings.batch_size):
            *inputs, y = (tensor[batch] for tensor in self.train)
            with torch.autocast(device.type, torch.bfloat16, enabled=self.experiment.precision == "bf16"):
                logits = head(*inputs)
            loss = self.criterion(logits.float(), y)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        head.eval()
        with torch.no_grad():
            parts = zip(*(torch.split(tensor, MAX_VIDEOS) for tensor in self.val[:-1]), strict=True)
            self.criterion(torch.cat([head(*inputs) for inputs in parts]), self.val[-1]).item()


if __name__ == "__main__":
    main()
