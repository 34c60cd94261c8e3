"""`haechi train`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from train.settings import DEFAULT_PRESET, PRECISION_CHOICES, PRESETS, SLOWFAST_CHOICES, TrainSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from train.grid import Trial

Command = TypeVar("Command", bound="Callable[..., Any]")


def _setting(*declaration: str, field: str = "", **options: Any) -> "Callable[[Command], Command]":
    """An option that is None where it is not given, so that the preset decides; its help shows what each would say."""
    name = field or declaration[-1].lstrip("-").replace("-", "_")
    values = {preset: getattr(TrainSettings.of_preset(preset), name) for preset in PRESETS}
    shown = {preset: f"{value:g}" if isinstance(value, float) else str(value) for preset, value in values.items()}
    told = next(iter(shown.values())) if len(set(shown.values())) == 1 else ", ".join(map(" ".join, shown.items()))
    return click.option(*declaration, **{"default": None, "show_default": told, **options})


@click.command()
@click.argument("cache", type=click.Path(path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder of the run; an earlier run in it is replaced."
)
@click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    default=DEFAULT_PRESET,
    help="Where the flags below have their defaults from: the report's Model 4, or a narrower head and larger batches.",
)
@_setting("--clip/--no-clip", field="clip", show_default="clip", help="Use the CLIP embedding of each frame.")
@_setting(
    "--slowfast",
    type=click.Choice(SLOWFAST_CHOICES),
    help="What to use of SlowFast: the features before its classifier, its Kinetics logits, or nothing.",
)
@_setting("--projection", type=int, help="Width to which the input is projected before the encoder; 0: none.")
@_setting("--layers", "num_layers", type=int, help="Layers of the Transformer encoder.")
@_setting("--feedforward", type=int, help="Feed-forward width of each layer.")
@_setting("--dropout", type=float, help="Dropout inside the encoder.")
@_setting("--epochs", type=int, help="Passes over the training videos, at most.")
@_setting("--patience", type=int, help="Stop after so many epochs in a row without a better one.")
@_setting("--batch-size", type=int, help="Videos a step, at least 2.")
@_setting("--lr", type=float, help="Adam's learning rate.")
@_setting("--weight-decay", type=float, help="Adam's weight decay.")
@_setting(
    "--pos-weight",
    type=float,
    show_default="safe / harmful training videos",
    help="Weight of a harmful video in the loss.",
)
@_setting(
    "--val-fraction",
    type=float,
    help="Share of the videos drawn for validation where the cache names none.",
)
@_setting("--seed", type=int, help="Decides split, first weights, order and dropout.")
@_setting("--device", help="cpu, cuda, cuda:1, or auto: CUDA where there is one.")
@_setting(
    "--precision",
    type=click.Choice(PRECISION_CHOICES),
    help="Of the training steps; auto: bf16 where the device computes in it. Scores are always fp32.",
)
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=1,
    help="Train with so many seeds, from --seed on, and show mean and standard deviation.",
)
@click.option(
    "--grid",
    multiple=True,
    metavar="NAME=VALUE,…",
    help="Train with each of these values of a setting, such as lr=1e-4,3e-4; several: every combination.",
)
@click.option(
    "--memory-gb",
    type=click.FloatRange(min=0),
    show_default="half of what is available",
    help="Stream features from the cache where they would take more; the results are the same.",
)
def train(
    cache: Path, out: Path, preset: str, seeds: int, grid: tuple[str, ...], memory_gb: float | None, **flags: Any
) -> None:
    """Stage 2: a feature cache to a trained head with its threshold.

    Trains on the labelled videos of CACHE. The best epoch by validation F1 is kept; videos of a test split are scored
    once, at the end, with the threshold frozen. With --seeds or --grid, every experiment is a run of its own under the
    folder.
    """
    from train.grid import plan_trials

    trials = plan_trials(preset, flags, grid=grid, num_seeds=seeds)
    memory_bytes = None if memory_gb is None else int(memory_gb * 1e9)
    if grid or seeds > 1:
        _train_many(cache, out, trials, memory_bytes)
    else:
        _train_one(cache, out, trials[0].settings, memory_bytes)


def _train_one(cache: Path, out: Path, settings: TrainSettings, memory_bytes: int | None) -> None:
    """A run in `out`, every epoch on the terminal."""
    from rich.console import Console
    from rich.markup import escape

    from cache.reader import Cache
    from train import screen
    from train.dataset import load_dataset
    from train.device import find_device
    from train.experiment import prepare, save, train_once
    from train.run import run_folder

    console = Console(highlight=False, emoji=False)
    find_device(settings)  # before the cache is read
    opened = Cache.open(cache)
    with run_folder(out) as partial:
        dataset = load_dataset(opened, settings, memory_bytes=memory_bytes)
        experiment = prepare(dataset, settings)
        screen.show_start(console, experiment)
        with screen.progress_bar(console) as progress:
            result = train_once(
                experiment,
                show=lambda epoch: console.print(screen.epoch_table(epoch, num_epochs=settings.epochs), ""),
                track=screen.tracker(progress, experiment),
            )
        if len(result.epochs) < settings.epochs:
            console.print(f"stopped: {settings.patience} epochs in a row without a better one\n")
        save(partial, result)
    console.print(screen.metrics_table(result))
    if opened.untrained:
        console.print(screen.untrained_warning(opened.untrained))
    console.print(f"in {escape(str(out))}:", soft_wrap=True)
    console.print(screen.artefacts_table())


def _train_many(cache: Path, out: Path, trials: "list[Trial]", memory_bytes: int | None) -> None:
    """A run for each trial under `out`, a line each on the terminal, and a table at the end."""
    from rich.console import Console
    from rich.markup import escape

    from cache.reader import Cache
    from train import screen
    from train.dataset import load_dataset, stream_names
    from train.device import find_device
    from train.errors import TrainError
    from train.experiment import prepare, save, train_once
    from train.fit import DivergedError
    from train.run import experiments_folder, run_folder
    from train.summary import PARTS, Outcome, write_summary

    console = Console(highlight=False, emoji=False)
    for trial in trials:
        find_device(trial.settings)
    opened = Cache.open(cache)
    dataset, warned, outcomes = None, set[str](), list[Outcome]()
    with experiments_folder(out, [trial.folder for trial in trials]):
        for number, trial in enumerate(trials, start=1):
            if dataset is None or list(dataset.streams) != stream_names(trial.settings):
                dataset = load_dataset(opened, trial.settings, memory_bytes=memory_bytes)
            experiment = prepare(dataset, trial.settings)
            if number == 1:
                screen.show_start(console, experiment)
            else:
                screen.show_warnings(console, [text for text in experiment.split.warnings if text not in warned])
            warned.update(experiment.split.warnings)
            try:
                with screen.progress_bar(console) as progress:
                    track = screen.tracker(progress, experiment, title=f"{number} of {len(trials)}")
                    result = train_once(experiment, track=track)
            except DivergedError as error:
                outcomes.append(Outcome.failed(trial, str(error)))
            else:
                outcomes.append(Outcome.of(trial, result))
                with run_folder(out / trial.folder) as partial:
                    save(partial, result)
            write_summary(out, outcomes, fingerprint=opened.fingerprint, untrained=opened.untrained)
            console.print(screen.outcome_line(outcomes[-1]), soft_wrap=True)
    if all(outcome.error for outcome in outcomes):
        raise TrainError(f"all {len(outcomes)} experiments diverged; try a lower learning rate (--lr)")
    for part in PARTS:
        if any(part in outcome.figures for outcome in outcomes):
            console.print("", screen.experiments_table(outcomes, part))
    console.print("Validation has chosen epoch and threshold: its figures are too good, most of all the best of many.")
    if opened.untrained:
        console.print(screen.untrained_warning(opened.untrained))
    console.print(f"in {escape(str(out))}:", soft_wrap=True)
    console.print(screen.experiment_files_table())
