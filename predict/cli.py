"""`haechi predict`: media in, decisions out."""

from pathlib import Path
from typing import Any

import click

from haechi.extract.cli import compute_options, decoding_options

# Some files could not be judged: neither success nor an error of the call.
SOME_NOT_JUDGED = 3


@click.command()
@click.argument("run", type=click.Path(path_type=Path, exists=True))
@click.argument("media", nargs=-1)
@click.option(
    "--also", type=click.Path(path_type=Path, exists=True), help="A second run: one is for videos, one for images."
)
@click.option("--cache", type=click.Path(path_type=Path), help="Judge the videos of a cache, touching no media.")
@click.option("--follow-symlinks", is_flag=True, help="In folders, follow symbolic links that lead out of them.")
@click.option("--clip-model", help="As for haechi extract, where the run's own is not to be had: local-dir:PATH.")
@click.option("--clip-weights", help="Where the run's CLIP weights lie now.")
@click.option("--slowfast-weights", help="Where the run's SlowFast weights lie now.")
@compute_options
@decoding_options
@click.option(
    "--timeline",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw the scores over time of the first 20 videos as a PNG; for runs on --sampling windows.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a file, each on a line.")
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
    """Judge MEDIA with the head of RUN, a folder that `haechi train` left.

    MEDIA are files, folders, manifests, or - for paths on standard input. What the run was trained on says how they are
    sampled and which weights they need; weights that have moved are named by the flags. A run is for videos or for
    images; with --also each file is judged by the head for its kind.

    A run on --sampling windows gives every window of a video a score too, and the most harmful moment. A video that is
    not harmful as a whole and has a window that reaches the threshold is a "harmful moment": look there. The threshold
    was chosen on whole videos, so of many windows some reach it by chance.

    Exit status 0: all are judged. 3: some could not be, each with its reason.
    """
    import sys

    from rich.console import Console

    from haechi.cache.console import show_notices
    from haechi.cache.reader import Cache
    from haechi.extract.console import shown_progress
    from haechi.predict.classifier import Classifier
    from haechi.predict.console import Table, json_line
    from haechi.predict.media import gather, lines
    from haechi.train.output.console import untrained_warning

    if bool(media) == bool(cache):
        raise click.UsageError("say what to judge: MEDIA, or --cache CACHE")
    console = Console(stderr=True, highlight=False, emoji=False)
    runs = [run, *([also] if also else [])]
    classifier = Classifier.load(*runs, **{name: value for name, value in flags.items() if value is not None})
    if classifier.untrained:
        console.print(untrained_warning(classifier.untrained))
    timelines = None
    if timeline is not None:
        from haechi.predict.timeline_plot import Timelines

        timelines = Timelines(timeline, classifier)
    table = Table()
    num_judged = num_failed = 0
    is_whole = False
    try:
        with shown_progress(console) as progress:
            if cache is not None:
                opened = Cache.open(cache)
                progress.start(len(opened.media["id"]) + len(opened.failures), "judge a cache")
                predictions = classifier.judge_cache(opened)
            else:
                names = [name for each in media for name in (lines(sys.stdin.buffer) if each == "-" else [each])]
                entries, notices = gather(names, follow_symlinks=follow_symlinks)
                show_notices(console, notices)
                predictions = classifier.judge(entries, progress=progress)
            for prediction in predictions:
                num_judged += 1
                num_failed += bool(prediction.reason)
                progress.advance(failed=bool(prediction.reason))
                if timelines is not None:
                    timelines.add(prediction)
                if as_json:
                    click.echo(json_line(prediction))
                else:
                    table.add(prediction)
        is_whole = True
    finally:  # what was judged is shown, whatever ends it: it may be hours of work
        if is_whole or num_judged:
            if not as_json:
                table.show(Console(highlight=False, emoji=False))
            if timelines is not None:
                show_notices(console, timelines.draw())
        if not is_whole and num_judged:
            show_notices(console, [f"stopped after {num_judged} files: the others are not judged"])
    if num_failed:
        ctx.exit(SOME_NOT_JUDGED)


@click.command()
@click.argument("run", type=click.Path(path_type=Path, exists=True))
@click.option("--onnx", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The file to write.")
def export(*, run: Path, onnx: Path) -> None:
    """Write the head of RUN as ONNX, its threshold in the metadata.

    For programs without torch: the inputs are rows of a cache.
    """
    from rich.console import Console
    from rich.markup import escape

    from haechi.predict.classifier import load_checkpoint
    from haechi.predict.export import export_onnx, inputs_of
    from haechi.train.output.console import untrained_warning

    checkpoint = load_checkpoint(run)
    export_onnx(checkpoint, onnx)
    console = Console(highlight=False, emoji=False)
    console.print(
        f"{escape(str(onnx))}: inputs {', '.join(inputs_of(checkpoint))}; harmful: score at least "
        f"{checkpoint.best_threshold:.6f}",
        soft_wrap=True,
    )
    if checkpoint.untrained:
        console.print(untrained_warning(checkpoint.untrained))
