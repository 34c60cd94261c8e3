"""`haechi train` and `haechi compare`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from haechi.cache.kinds import KINDS
from haechi.cache.options import (
    CachePath,
    LocalPath,
    group_by_option,
    positive_label_option,
    shard_cache_option,
)
from haechi.train.options import requirement_options
from haechi.train.policy import FORMS
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

    from rich.console import Console

    from haechi.train.output.experiments import Outcome
    from haechi.train.result import Result

Command = TypeVar("Command", bound="Callable[..., Any]")


def _setting(*declaration: str, field: str = "", **options: Any) -> "Callable[[Command], Command]":
    """An option for a field of `TrainSettings`: None if not given, so that the preset decides.

    Its help shows the value of each preset.
    """
    name = field or declaration[-1].lstrip("-").replace("-", "_")
    values = {preset: getattr(TrainSettings.from_preset(preset), name) for preset in PRESETS}
    shown = {preset: f"{value:g}" if isinstance(value, float) else str(value) for preset, value in values.items()}
    text = next(iter(shown.values())) if len(set(shown.values())) == 1 else ", ".join(map(" ".join, shown.items()))
    return click.option(*declaration, **{"default": None, "show_default": text, **options})


@click.command()
@click.argument("cache", type=CachePath(path_type=Path))
@click.option(
    "--out",
    required=True,
    type=LocalPath(path_type=Path),
    help="Folder of the run; an earlier run in it is replaced.",
)
@click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    default=None,
    show_default=", ".join(f"{preset} for {kind}s" for kind, preset in DEFAULT_PRESETS.items()),
    help="Default values of the options below: model4, the report's Model 4; fast, a narrower head with larger "
    "batches; image, the report's MLP for images.",
)
@click.option(
    "--media",
    type=click.Choice(KINDS),
    default=None,
    show_default="the kind of the preset, or video",
    help="The kind of media to train on; a head is for one kind.",
)
@_setting("--clip/--no-clip", field="clip", show_default="clip", help="Use the CLIP embedding of each frame.")
@_setting(
    "--slowfast",
    type=click.Choice(SLOWFAST_CHOICES),
    help="SlowFast features to use: pooled, those before its classifier; logits, its Kinetics logits; or none.",
)
@_setting(
    "--max-rows",
    type=click.IntRange(min=1),
    help="Maximum number of rows of a video that the head sees; of a longer video, this many evenly spaced rows.",
)
@_setting(
    "--regression/--no-regression",
    field="regression",
    help="Start from a logistic regression on pooled features; the rest of the head is used only if it improves it.",
)
@_setting(
    "--moments",
    type=int,
    help="Number of directions in which the head looks for moments that the mean over a video hides; 0: none.",
)
@_setting(
    "--network/--no-network",
    field="network",
    help="Whether the head has a network (projection, encoder, MLP); the flags from here to --ema are for it.",
)
@_setting("--projection", type=int, help="Width to which the input is projected before the encoder; 0: no projection.")
@_setting("--layers", "num_layers", type=int, help="Layers of the Transformer encoder.")
@_setting("--feedforward", type=int, help="Feed-forward width of each layer.")
@_setting("--dropout", type=float, help="Dropout in the encoder.")
@_setting("--epochs", type=int, help="Maximum number of passes over the training videos.")
@_setting("--patience", type=int, help="Stop after this many epochs without improvement.")
@_setting("--batch-size", type=int, help="Videos per training step, at least 2.")
@_setting("--lr", type=float, help="Adam's learning rate.")
@_setting("--weight-decay", type=float, help="Adam's weight decay.")
@_setting(
    "--pos-weight",
    type=float,
    show_default="safe / harmful training videos",
    help="Weight of a harmful video in the loss.",
)
@_setting("--loss", type=click.Choice(LOSS_CHOICES), help="Loss function: binary cross-entropy or focal loss.")
@_setting(
    "--focal-gamma",
    type=float,
    help="Exponent of the focal loss; a larger one gives less weight to videos that are already classified correctly.",
)
@_setting("--label-smoothing", type=float, help="Share of each label that is spread over both classes; 0: none.")
@_setting("--schedule", type=click.Choice(SCHEDULE_CHOICES), help="Learning rate schedule over all epochs.")
@_setting(
    "--ema",
    type=float,
    help="Decay per epoch of the exponential moving average of the weights, which is validated and kept; 0 turns it "
    "off.",
)
@_setting(
    "--val-fraction",
    type=float,
    help="Share of the videos drawn for validation if the cache gives no validation videos.",
)
@_setting(
    "--test-fraction",
    type=float,
    help="Share of the videos drawn for the test if the cache gives no test videos; 0: no test.",
)
@_setting(
    "--folds",
    type=int,
    show_default="5 if there are too few videos for a test part, else 0",
    help="Number of folds of cross-validation: each video is tested once, and the final head is trained on all videos. "
    "0: no cross-validation.",
)
@_setting(
    "--policy",
    help="What the threshold is chosen for: "
    + "; ".join(f"{form}, {meaning}" for form, meaning in FORMS.items())
    + ".",
)
@_setting(
    "--scenes/--no-scenes",
    field="scenes",
    show_default="scenes",
    help="Find near-duplicate videos by their features. They are kept in one part of the split if the cache gives no "
    "groups, and reported as leaks if a given split separates them.",
)
@group_by_option("The groups of this run, instead of the cache's; files of one group are in one part of the split.")
@_setting(
    "--sample",
    type=int,
    show_default="all",
    help="Train on about this many of the labelled videos, stratified, with whole groups, as a first look.",
)
@_setting("--seed", type=int, help="Random seed of split, initial weights, order and dropout.")
@_setting("--device", help="cpu, cuda, cuda:1, or auto: CUDA if available.")
@_setting(
    "--precision",
    type=click.Choice(PRECISION_CHOICES),
    help="Precision of the training steps; auto: bf16 if the device supports it. Scores are always computed in fp32.",
)
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=1,
    help="Train with this many seeds (--seed, --seed + 1, …), and show mean and standard deviation.",
)
@click.option(
    "--grid",
    multiple=True,
    metavar="NAME=VALUE,…",
    help="Train with each of these values of a setting, such as lr=1e-4,3e-4. If given several times: with every "
    "combination.",
)
@click.option(
    "--memory-gb",
    type=click.FloatRange(min=0),
    show_default="half of the available memory",
    help="Features that take more memory are streamed from the cache; the results are the same.",
)
@shard_cache_option
@click.option(
    "--labels",
    type=LocalPath(path_type=Path, dir_okay=False),
    help="A manifest (CSV or JSON Lines with id or path, and any of label, split, group) whose columns replace those "
    "of the cache for this run, or the export (.json) of Label Studio or FiftyOne; videos that it does not list are "
    "left out.",
)
@positive_label_option
@click.option(
    "--keep-unlisted",
    is_flag=True,
    help="Videos that the file of --labels does not list keep the label, split and group of the cache: for a file of "
    "corrections.",
)
@click.option(
    "--media-root",
    type=LocalPath(path_type=Path, file_okay=False, exists=True),
    help="Folder that the videos' ids are relative to; the page then shows frames of the worst mistakes.",
)
@requirement_options
@click.pass_context
def train(
    ctx: click.Context,
    /,
    *,
    cache: Path | str,
    out: Path,
    preset: str | None,
    seeds: int,
    grid: tuple[str, ...],
    memory_gb: float | None,
    shard_cache_gb: float,
    labels: Path | None,
    positive_labels: tuple[str, ...],
    media_root: Path | None,
    require: tuple[str, ...],
    by_point: bool,
    keep_unlisted: bool,
    **flags: Any,
) -> None:
    """Stage 2: train a head on a feature cache, choose its threshold, write a page of metrics.

    Trains on the labelled videos of CACHE. Validation chooses epoch and threshold; test videos are scored once at the
    end with that threshold. If there are too few videos for a test part, cross-validation is used instead. With --seeds
    or --grid, each experiment is a run in a folder under --out.

    Exit status 0: success. 4: a requirement of --require is not met; the run is written nevertheless.
    """
    from haechi.cache.console import make_console
    from haechi.train.api import train_head, train_heads
    from haechi.train.evaluate.requirement import NOT_MET, parse_requirements
    from haechi.train.output.console import TerminalProgress, show_verdicts

    console = make_console()
    if positive_labels and labels is None:
        raise click.UsageError("--positive-label is for the labels in a file; name it with --labels FILE")
    if keep_unlisted and labels is None:
        raise click.UsageError("--keep-unlisted is for a file of labels; name it with --labels FILE")
    if require and (grid or seeds > 1):
        raise click.UsageError("--require is for a single run, not for --grid and --seeds")
    requirements = parse_requirements(require)
    options = {"preset": preset, "labels": labels, "positive_labels": positive_labels, "memory_gb": memory_gb, **flags}
    options |= {"media_root": media_root, "keep_unlisted": keep_unlisted, "shard_cache_gb": shard_cache_gb}
    options["command"] = ctx.find_root().obj or ""
    with TerminalProgress(console) as progress:
        if grid or seeds > 1:
            outcomes = train_heads(cache, out, seeds=seeds, grid=grid, progress=progress, **options)
        else:
            result = train_head(cache, out, progress=progress, **options)
    if grid or seeds > 1:
        _show_experiments(console, out, outcomes, progress.untrained)
        return
    _show_run(console, out, result)
    figures, intervals = result.metrics[result.headline], result.intervals[result.headline]
    verdicts = [each.judge(figures, intervals, by_point=by_point) for each in requirements]
    show_verdicts(console, verdicts)
    if not all(verdict.met for verdict in verdicts):
        ctx.exit(NOT_MET)


def _show_run(console: "Console", out: Path, result: "Result") -> None:
    """The figures of a run, and its files."""
    from rich.markup import escape

    from haechi.train.output import console as screen
    from haechi.train.output.verdict import find

    screen.show_findings(console, find(result))
    console.print(screen.metrics_table(result))
    screen.show_end(console, result)
    console.print(f"in {escape(str(out))}:", soft_wrap=True)
    console.print(screen.artefacts_table())


def _show_experiments(console: "Console", out: Path, outcomes: "list[Outcome]", untrained: list[str]) -> None:
    """The figures of several runs side by side, and their files."""
    from rich.markup import escape

    from haechi.train.output import console as screen
    from haechi.train.output.untrained import untrained_warning
    from haechi.train.result import HELD_OUT_PARTS

    for part in HELD_OUT_PARTS:
        if any(part in outcome.figures for outcome in outcomes):
            console.print("", screen.experiments_table(outcomes, part))
    console.print("Validation chose epoch and threshold, so its figures are too good, above all for the best of many.")
    if untrained:
        console.print(untrained_warning(untrained))
    console.print(f"in {escape(str(out))}:", soft_wrap=True)
    console.print(screen.experiment_files_table())


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN…", type=LocalPath(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of the table.")
def compare(runs: tuple[Path, ...], *, as_json: bool) -> None:
    """Show runs side by side, and whether they differ by more than chance.

    The other runs are compared with the first RUN. All must have been judged on the same videos.
    """
    import json

    from haechi.cache.console import make_console
    from haechi.train.evaluate.compare import compare as compare_runs
    from haechi.train.output.comparison import comparison_table
    from haechi.train.output.untrained import untrained_warning
    from haechi.train.untrained import of_all_heads

    if len(runs) < 2:
        raise click.UsageError("at least two runs are needed to compare")
    compared = compare_runs(list(runs))
    if as_json:
        click.echo(json.dumps([each.record() for each in compared], indent=2, ensure_ascii=False, allow_nan=False))
        return
    console = make_console()
    console.print(comparison_table(compared))
    if untrained := of_all_heads(each.run.untrained for each in compared):
        console.print(untrained_warning(untrained))
