"""`haechi predict`, which judges media, `haechi evaluate`, and `haechi export`, which writes a head as ONNX."""

from pathlib import Path
from typing import Any

import click

from haechi.cache.options import (
    CachePath,
    LocalPath,
    group_by_option,
    positive_label_option,
    shard_cache_option,
)
from haechi.extract.cli import allow_https_option, compute_options, decoding_options
from haechi.train.options import requirement_options

# Exit status if some files could not be judged: neither success nor an error of the whole call.
SOME_NOT_JUDGED = 3


also_option = click.option(
    "--also",
    type=LocalPath(path_type=Path, exists=True),
    help="A second run: one run is for videos, the other for images.",
)


def weights_options(command: Any) -> Any:
    """The flags that say where the backbones of the run are now."""
    for decorator in (
        click.option("--slowfast-weights", help="Where the SlowFast weights of the run are now, if they have moved."),
        click.option("--clip-weights", help="Where the CLIP weights of the run are now, if they have moved."),
        click.option(
            "--clip-model", help="local-dir:PATH of the CLIP model, if the run was trained with a CLIP of your own."
        ),
    ):
        command = decorator(command)
    return command


@click.command()
@click.argument("run", type=LocalPath(path_type=Path, exists=True))
@click.argument("media", nargs=-1)
@also_option
@click.option(
    "--cache", type=CachePath(path_type=Path), help="Judge the media of this cache, without opening media files."
)
@shard_cache_option
@click.option("--follow-symlinks", is_flag=True, help="In folders, follow symbolic links that lead outside of them.")
@allow_https_option
@weights_options
@compute_options
@decoding_options
@click.option(
    "--timeline",
    type=LocalPath(path_type=Path, dir_okay=False),
    help="Draw the scores of the first 20 videos over time as a PNG; for runs trained on --sampling windows.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON for each file.")
@click.pass_context
def predict(
    ctx: click.Context,
    /,
    *,
    run: Path,
    also: Path | None,
    media: tuple[str, ...],
    cache: Path | str | None,
    shard_cache_gb: float,
    follow_symlinks: bool,
    allow_https: bool,
    timeline: Path | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Judge MEDIA with the trained head in the folder RUN.

    MEDIA are files, folders, manifests, or - to read paths from standard input. Sampling and weights are those that the
    run was trained with; if weights were moved, give their new path with --clip-weights or
    --slowfast-weights. A run is for videos or for images; with --also each file is judged by the head for its kind.

    If the run was trained on --sampling windows, every window of a video has a score too, and the highest one is the
    most harmful moment. If only a window reaches the threshold, not the whole video, the decision is "harmful moment":
    check it yourself. The threshold was chosen on whole videos, so some of many windows exceed it by chance.

    Exit status 0: all files were judged. 3: some could not be judged; the reason is shown.
    """
    import sys

    from haechi.cache.closed_pipe import is_closed
    from haechi.cache.console import make_console, show_notices
    from haechi.cache.progress_bar import shown_progress
    from haechi.cache.reader import Cache
    from haechi.cache.text import counted
    from haechi.predict.console import PredictionTable, json_line
    from haechi.predict.heads import Heads
    from haechi.train.output.untrained import untrained_warning

    if bool(media) == bool(cache):
        raise click.UsageError("give either MEDIA or --cache CACHE")
    console = make_console(stderr=True)
    heads = Heads.load(run, *([also] if also else []))
    if heads.untrained:
        console.print(untrained_warning(heads.untrained))
    plot = None
    if timeline is not None:
        from haechi.predict.timeline_plot import TimelinePlot

        plot = TimelinePlot(timeline, heads)
    table = PredictionTable()
    num_judged = num_failed = 0
    is_complete = False
    try:
        with shown_progress(console) as progress:
            if cache is not None:
                predictions = heads.judge_cache(Cache.open(cache, shard_cache_gb=shard_cache_gb), progress=progress)
            else:
                from haechi.predict.classifier import Classifier
                from haechi.predict.media import gather, read_paths

                names = [name for each in media for name in (read_paths(sys.stdin.buffer) if each == "-" else [each])]
                entries, notices = gather(names, follow_symlinks=follow_symlinks, allow_https=allow_https)
                show_notices(console, notices)
                changes = {name: value for name, value in flags.items() if value is not None}
                predictions = Classifier(heads, **changes).judge(entries, progress=progress)
            for prediction in predictions:
                num_judged += 1
                num_failed += bool(prediction.reason)
                if plot is not None:
                    plot.add(prediction)
                if as_json:
                    click.echo(json_line(prediction))
                else:
                    table.add(prediction)
        is_complete = True
    finally:  # after an error or Ctrl-C too: what was judged may be hours of work
        if is_complete or num_judged:
            if not as_json:
                table.show(make_console())
            if plot is not None:
                show_notices(console, plot.draw())
        if not is_complete and num_judged and not is_closed(sys.stdout):
            show_notices(console, [f"stopped after {counted(num_judged, 'file')}: the others were not judged"])
    if num_failed:
        ctx.exit(SOME_NOT_JUDGED)


@click.command()
@click.argument("run", type=LocalPath(path_type=Path, exists=True))
@click.argument("data", type=CachePath(path_type=Path, exists=True))
@click.option(
    "--out",
    type=LocalPath(path_type=Path),
    show_default="RUN-on-DATA beside the run",
    help="Folder of the results; an earlier evaluation in it is replaced.",
)
@also_option
@click.option(
    "--labels",
    type=LocalPath(path_type=Path, dir_okay=False),
    help="A manifest (CSV or JSON Lines with id or path, and any of label, group and your own columns) whose columns "
    "replace those of DATA; videos that it does not list are left out.",
)
@positive_label_option
@click.option(
    "--by",
    metavar="COLUMN",
    multiple=True,
    help="Also show the figures for each value of this column of --labels, or of DATA if that is a manifest.",
)
@click.option(
    "--prevalence",
    metavar="SHARE",
    multiple=True,
    help="Share of harmful videos in real traffic, such as 0.01 or 1%, or a range, such as 0.001-0.05: shows "
    "precision, alerts and misses there.",
)
@click.option(
    "--budget",
    type=click.IntRange(min=1),
    multiple=True,
    help="Shows what a review of this number of videos finds, those with the highest scores first.",
)
@requirement_options
@click.option(
    "--keep-overlap",
    is_flag=True,
    help="Also evaluate videos that the head was trained or chosen on. [default: they are left out]",
)
@click.option(
    "--scenes/--no-scenes",
    default=True,
    help="Find near-duplicate videos by their features; files with the same bytes are always found.",
)
@click.option(
    "--media-root",
    type=LocalPath(path_type=Path, file_okay=False, exists=True),
    show_default="the folder of DATA, if DATA is not a cache",
    help="Folder that the videos' ids are relative to: for frames on the page and paths in exports.",
)
@click.option(
    "--export",
    "exports",
    nargs=2,
    type=(click.Choice(["label-studio", "fiftyone"]), LocalPath(path_type=Path, dir_okay=False)),
    multiple=True,
    metavar="TOOL FILE",
    help="Also write the predictions for label-studio or fiftyone; corrected labels come back by `haechi train "
    "--labels`.",
)
@click.option("--url-prefix", default="", help="Put before the ids in exports, instead of --media-root.")
@click.option(
    "--cache",
    type=LocalPath(path_type=Path, file_okay=False),
    help="Keep the features of DATA in this folder, if DATA is not a cache. [default: they are deleted]",
)
@shard_cache_option
@click.option(
    "--root",
    type=LocalPath(path_type=Path, exists=True, file_okay=False),
    help="Folder that relative paths of a manifest start from. [default: the manifest's folder]",
)
@click.option("--positive", metavar="NAME", multiple=True, help="A harmful class folder, as in `haechi extract`.")
@group_by_option("Videos of one group are not independent; intervals are wider then.")
@click.option("--follow-symlinks", is_flag=True, help="In folders, follow symbolic links that lead outside of them.")
@allow_https_option
@weights_options
@compute_options
@decoding_options
@click.option("--json", "as_json", is_flag=True, help="Print the contents of evaluation.json instead of tables.")
@click.pass_context
def evaluate(
    ctx: click.Context,
    /,
    *,
    run: Path,
    data: Path | str,
    out: Path | None,
    also: Path | None,
    labels: Path | None,
    positive_labels: tuple[str, ...],
    by: tuple[str, ...],
    prevalence: tuple[str, ...],
    budget: tuple[int, ...],
    require: tuple[str, ...],
    by_point: bool,
    keep_overlap: bool,
    scenes: bool,
    media_root: Path | None,
    exports: tuple[tuple[str, Path], ...],
    url_prefix: str,
    cache: Path | None,
    shard_cache_gb: float,
    as_json: bool,
    **flags: Any,
) -> None:
    """Show what the head of RUN is worth on DATA, and why it falls.

    DATA holds other videos than those that the head was trained on: a cache, or media as `haechi extract` takes
    them: a manifest, or a folder with class folders. Nothing is trained and nothing is chosen: head, threshold and
    calibration are those of the run. Videos that the head was trained or chosen on are found, by their bytes and by
    their scenes, and left out.

    Shows each figure beside the run's own one, with 95 % intervals; why F1 fell; what the decisions mean at real
    prevalence; where the head fails; and, for unlabelled videos, the estimated share of harmful ones.

    Exit status 0: success. 4: a requirement of --require is not met; the results are written nevertheless.
    """
    import json

    from haechi.cache.console import make_console
    from haechi.cache.progress_bar import shown_progress
    from haechi.predict.api import evaluate_heads
    from haechi.predict.evaluation.output.console import show_evaluation, show_files
    from haechi.predict.evaluation.output.evaluation_json import evaluation_record
    from haechi.predict.evaluation.questions import parse_prevalences
    from haechi.train.evaluate.requirement import NOT_MET

    if isinstance(data, str):
        name = data.rstrip("/").rpartition("/")[2]
    else:
        whole = data.resolve()
        name = whole.name if whole.is_dir() else whole.stem
    into = run.resolve().with_name(f"{run.resolve().name}-on-{name}") if out is None else out
    on_command_line = click.core.ParameterSource.COMMANDLINE
    with shown_progress(make_console(stderr=True)) as progress:
        evaluations = evaluate_heads(
            [run, *([also] if also else [])],
            data,
            into,
            labels=labels,
            positive_labels=positive_labels,
            by=by,
            prevalence=[share for text in prevalence for share in parse_prevalences(text)],
            budget=budget,
            require=require,
            by_point=by_point,
            keep_overlap=keep_overlap,
            scenes=scenes,
            media_root=media_root,
            exports=_exports(exports),
            url_prefix=url_prefix,
            cache=cache,
            shard_cache_gb=shard_cache_gb,
            progress=progress,
            command=ctx.find_root().obj or "",
            **{name: value for name, value in flags.items() if ctx.get_parameter_source(name) is on_command_line},
        )
    if as_json:
        records = [evaluation_record(evaluation) for evaluation in evaluations]
        click.echo(json.dumps(records if also else records[0], indent=2, ensure_ascii=False, allow_nan=False))
    else:
        console = make_console()
        for evaluation in evaluations:
            show_evaluation(console, evaluation)
        show_files(console, into, [evaluation.run.kind for evaluation in evaluations])
    if not all(verdict.met for evaluation in evaluations for verdict in evaluation.verdicts):
        ctx.exit(NOT_MET)


def _exports(given: tuple[tuple[str, Path], ...]) -> dict[str, Path]:
    """Tool -> its file."""
    exports = dict(given)
    if len(exports) < len(given):
        raise click.UsageError("--export is given twice for one tool; give one file for each tool")
    return exports


@click.command()
@click.argument("run", type=LocalPath(path_type=Path, exists=True))
@click.option("--onnx", required=True, type=LocalPath(path_type=Path, dir_okay=False), help="The file to write.")
def export(*, run: Path, onnx: Path) -> None:
    """Write the head of RUN as ONNX, with its threshold in the metadata.

    For programs without torch. The inputs are rows of a cache.
    """
    from rich.markup import escape

    from haechi.cache.console import make_console
    from haechi.predict.export import export_onnx, input_arrays
    from haechi.predict.heads import load_checkpoint
    from haechi.train.output.untrained import untrained_warning

    checkpoint = load_checkpoint(run)
    export_onnx(checkpoint, onnx)
    console = make_console()
    console.print(
        f"{escape(str(onnx))}: inputs {', '.join(input_arrays(checkpoint))}; harmful: score at least "
        f"{checkpoint.best_threshold:.6f}",
        soft_wrap=True,
    )
    if checkpoint.untrained:
        console.print(untrained_warning(checkpoint.untrained))
