"""`haechi predict`, which judges media, and `haechi export`, which writes a head as ONNX."""

from pathlib import Path
from typing import Any

import click

from haechi.extract.cli import compute_options, decoding_options

# Exit status if some files could not be judged: neither success nor an error of the whole call.
SOME_NOT_JUDGED = 3


@click.command()
@click.argument("run", type=click.Path(path_type=Path, exists=True))
@click.argument("media", nargs=-1)
@click.option(
    "--also",
    type=click.Path(path_type=Path, exists=True),
    help="A second run: one run is for videos, the other for images.",
)
@click.option(
    "--cache", type=click.Path(path_type=Path), help="Judge the media of this cache, without opening media files."
)
@click.option("--follow-symlinks", is_flag=True, help="In folders, follow symbolic links that lead outside of them.")
@click.option("--clip-model", help="local-dir:PATH of the CLIP model, if the run was trained with a CLIP of your own.")
@click.option("--clip-weights", help="Where the CLIP weights of the run are now, if they have moved.")
@click.option("--slowfast-weights", help="Where the SlowFast weights of the run are now, if they have moved.")
@compute_options
@decoding_options
@click.option(
    "--timeline",
    type=click.Path(path_type=Path, dir_okay=False),
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
    cache: Path | None,
    follow_symlinks: bool,
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
    from haechi.cache.reader import Cache
    from haechi.cache.text import counted
    from haechi.extract.console import shown_progress
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
                predictions = heads.judge_cache(Cache.open(cache), progress=progress)
            else:
                from haechi.predict.classifier import Classifier
                from haechi.predict.media import gather, read_paths

                names = [name for each in media for name in (read_paths(sys.stdin.buffer) if each == "-" else [each])]
                entries, notices = gather(names, follow_symlinks=follow_symlinks)
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
@click.argument("run", type=click.Path(path_type=Path, exists=True))
@click.option("--onnx", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The file to write.")
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
