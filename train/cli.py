"""`haechi train`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from haechi.cache.kinds import KINDS, VIDEO
from haechi.train.settings import (
    DEFAULT_PRESETS,
    LOSS_CHOICES,
    PRECISION_CHOICES,
    PRESETS,
    SCHEDULE_CHOICES,
    SLOWFAST_CHOICES,
    TrainSettings,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from haechi.cache.reader import Cache
    from haechi.train.data.relabel import NewLabels
    from haechi.train.grid import Trial

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
    default=None,
    show_default=", ".join(f"{preset} for {kind}s" for kind, preset in DEFAULT_PRESETS.items()),
    help="Where the flags below have their defaults from: the report's Model 4, a narrower head and larger batches, or "
    "the report's MLP for images.",
)
@click.option(
    "--media",
    type=click.Choice(KINDS),
    default=None,
    show_default="what the preset is for, or video",
    help="What to train on: a head is for one kind.",
)
@_setting("--clip/--no-clip", field="clip", show_default="clip", help="Use the CLIP embedding of each frame.")
@_setting(
    "--slowfast",
    type=click.Choice(SLOWFAST_CHOICES),
    help="What to use of SlowFast: the features before its classifier, its Kinetics logits, or nothing.",
)
@_setting("--max-rows", type=click.IntRange(min=1), help="Of a longer video the head sees so many rows, evenly spaced.")
@_setting(
    "--regression/--no-regression",
    field="regression",
    help="Start as a logistic regression on pooled features, and learn what that misses.",
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
@_setting("--loss", type=click.Choice(LOSS_CHOICES), help="Binary cross-entropy, or the focal loss.")
@_setting("--focal-gamma", type=float, help="Exponent of the focal loss: how little videos count that are right.")
@_setting("--label-smoothing", type=float, help="Share of each label that is spread over both classes.")
@_setting("--schedule", type=click.Choice(SCHEDULE_CHOICES), help="Learning rate over the steps of all epochs.")
@_setting(
    "--ema",
    type=float,
    help="Judge and keep an exponential moving average of the weights, of which an epoch leaves this share; 0: do not.",
)
@_setting(
    "--val-fraction",
    type=float,
    help="Share of the videos drawn for validation where the cache names none.",
)
@_setting(
    "--test-fraction",
    type=float,
    help="Share of the videos drawn for the test, which is scored once, at the end; 0: none.",
)
@_setting(
    "--folds",
    type=int,
    show_default="5 where the data are too few for a test part, else 0",
    help="Cross-validate in so many folds: every video is once in a test; then train on all. 0: do not.",
)
@_setting(
    "--policy",
    help="What the threshold is chosen for: f1, fbeta:B, precision>=P (the highest recall), recall>=R (the highest "
    "precision), fpr<=X, cost:FP,FN.",
)
@_setting(
    "--scenes/--no-scenes",
    field="scenes",
    show_default="scenes",
    help="Search near-duplicate videos by their features, name those that a given split tears apart, and keep them "
    "whole where the cache names no groups. Many minutes for 100,000 videos.",
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
@click.option(
    "--labels",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A manifest (CSV or JSON Lines with id or path, and label, split, group as far as they change) whose columns "
    "replace the cache's for this run; videos that it does not name are left out.",
)
@click.option(
    "--media-root",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder that the videos' ids are relative to: the page then shows the worst mistakes.",
)
def train(
    cache: Path,
    out: Path,
    preset: str | None,
    seeds: int,
    grid: tuple[str, ...],
    memory_gb: float | None,
    labels: Path | None,
    media_root: Path | None,
    **flags: Any,
) -> None:
    """Stage 2: a feature cache to a trained head, its threshold and a page of figures.

    Trains on the labelled videos of CACHE. Validation chooses epoch and threshold; test videos are scored once, at the
    end, with the threshold frozen; where there are too few for that, cross-validation takes its place. With --seeds or
    --grid, every experiment is a run of its own under the folder.
    """
    from haechi.train.grid import plan_trials

    preset = preset or DEFAULT_PRESETS[flags["media"] or VIDEO]
    trials = plan_trials(preset, flags, grid=grid, num_seeds=seeds)
    memory_bytes = None if memory_gb is None else int(memory_gb * 1e9)
    told = {"command": click.get_current_context().find_root().obj or "", "media_root": media_root}
    if grid or seeds > 1:
        _train_many(cache, out, trials, labels, memory_bytes, told)
    else:
        _train_one(cache, out, trials[0].settings, labels, memory_bytes, told)


def _open(cache: Path, labels: Path | None) -> "tuple[Cache, NewLabels | None]":
    """The cache, and what a file says in place of it, of which the user is told."""
    from rich.console import Console

    from haechi.cache.console import show_notices
    from haechi.cache.reader import Cache
    from haechi.train.data.relabel import NewLabels

    opened = Cache.open(cache)
    if labels is None:
        return opened, None
    new_labels = NewLabels.of(opened, labels)
    show_notices(Console(stderr=True, highlight=False, emoji=False), new_labels.notices)
    return opened, new_labels


def _train_one(
    cache: Path,
    out: Path,
    settings: TrainSettings,
    labels: Path | None,
    memory_bytes: int | None,
    told: dict[str, Any],
) -> None:
    """A run in `out`, every epoch or fold on the terminal."""
    from rich.console import Console
    from rich.markup import escape

    from haechi.device import find_device
    from haechi.train.data.dataset import load_dataset
    from haechi.train.output import console as screen
    from haechi.train.output.save import save
    from haechi.train.output.verdict import verdict
    from haechi.train.pipeline import carry_out
    from haechi.train.plan import Grouping, make_plan
    from haechi.train.run_folder import run_folder

    console = Console(highlight=False, emoji=False)
    find_device(settings.device)  # before the cache is read
    opened, new_labels = _open(cache, labels)
    with run_folder(out) as partial:
        dataset = load_dataset(opened, settings, new_labels=new_labels, memory_bytes=memory_bytes)
        plan = make_plan(dataset, Grouping.of(dataset, settings), settings)
        screen.show_start(console, plan)
        with screen.progress_bar(console) as progress:
            result = carry_out(
                plan,
                begin=screen.beginner(progress),
                show=lambda epoch: console.print(screen.epoch_table(epoch, num_epochs=settings.epochs), ""),
                show_fold=lambda fold: console.print(screen.fold_line(fold)),
            )
        if not plan.is_folds and len(result.epochs) < settings.epochs:
            console.print(f"stopped: {settings.patience} epochs in a row without a better one\n")
        save(partial, result, name=out.name, **told)
    console.print(screen.metrics_table(result))
    screen.show_end(console, result, verdict(result))
    console.print(f"in {escape(str(out))}:", soft_wrap=True)
    console.print(screen.artefacts_table())


def _train_many(
    cache: Path,
    out: Path,
    trials: "list[Trial]",
    labels: Path | None,
    memory_bytes: int | None,
    told: dict[str, Any],
) -> None:
    """A run for each trial under `out`, a line each on the terminal, and a table at the end."""
    from rich.console import Console
    from rich.markup import escape

    from haechi.device import find_device
    from haechi.train.data.dataset import load_dataset, seen_of
    from haechi.train.errors import TrainError
    from haechi.train.model.fit import DivergedError
    from haechi.train.output import console as screen
    from haechi.train.output.experiments import Outcome, write_summary
    from haechi.train.output.save import save
    from haechi.train.pipeline import carry_out
    from haechi.train.plan import Grouping, make_plan
    from haechi.train.result import HELD_OUT_PARTS
    from haechi.train.run_folder import experiments_folder, run_folder

    console = Console(highlight=False, emoji=False)
    for trial in trials:
        find_device(trial.settings.device)
    opened, new_labels = _open(cache, labels)
    dataset, seen, groupings = None, None, dict[tuple[str, bool], Grouping]()
    warned, outcomes = set[str](), list[Outcome]()
    with experiments_folder(out, [trial.folder for trial in trials]):
        for number, trial in enumerate(trials, start=1):
            if dataset is None or seen != seen_of(trial.settings):
                dataset = load_dataset(opened, trial.settings, new_labels=new_labels, memory_bytes=memory_bytes)
                seen = seen_of(trial.settings)
            grouped_by = trial.settings.media, trial.settings.scenes
            if grouped_by not in groupings:
                groupings[grouped_by] = Grouping.of(dataset, trial.settings)
            plan = make_plan(dataset, groupings[grouped_by], trial.settings)
            if number == 1:
                screen.show_start(console, plan)
            else:
                screen.show_warnings(console, [text for text in plan.warnings if text not in warned])
            warned.update(plan.warnings)
            try:
                with screen.progress_bar(console) as progress:
                    result = carry_out(plan, begin=screen.beginner(progress, prefix=f"{number} of {len(trials)}, "))
            except DivergedError as error:
                outcomes.append(Outcome.failed(trial, str(error)))
            else:
                outcomes.append(Outcome.of(trial, result))
                with run_folder(out / trial.folder) as partial:
                    save(partial, result, name=trial.folder, **told)
            write_summary(
                out,
                outcomes,
                fingerprint=opened.fingerprint,
                untrained=opened.untrained,
                new_labels=new_labels.record() if new_labels else None,
            )
            console.print(screen.outcome_line(outcomes[-1]), soft_wrap=True)
    if all(outcome.error for outcome in outcomes):
        raise TrainError(f"all {len(outcomes)} experiments diverged; try a lower learning rate (--lr)")
    for part in HELD_OUT_PARTS:
        if any(part in outcome.figures for outcome in outcomes):
            console.print("", screen.experiments_table(outcomes, part))
    console.print("Validation has chosen epoch and threshold: its figures are too good, most of all the best of many.")
    if opened.untrained:
        console.print(screen.untrained_warning(opened.untrained))
    console.print(f"in {escape(str(out))}:", soft_wrap=True)
    console.print(screen.experiment_files_table())


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN…", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of the table.")
def compare(runs: tuple[Path, ...], *, as_json: bool) -> None:
    """Show runs side by side, and whether they differ by more than chance.

    The first RUN is what the others are held against. Only runs that were judged on the same videos can be compared.
    """
    import json

    from rich.console import Console

    from haechi.train.evaluate.compare import compare as compare_runs
    from haechi.train.output import console as screen

    if len(runs) < 2:
        raise click.UsageError("two runs or more are needed to compare")
    compared = compare_runs(list(runs))
    if as_json:
        click.echo(json.dumps([each.record() for each in compared], indent=2, ensure_ascii=False, allow_nan=False))
        return
    console = Console(highlight=False, emoji=False)
    console.print(screen.comparison_table(compared))
    if untrained := compared[0].run.untrained:
        console.print(screen.untrained_warning(untrained))
