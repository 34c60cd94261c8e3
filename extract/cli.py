"""`haechi extract` and `haechi validate`: flags in, tables out."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from haechi.cache.schema import STORE_TYPES
from haechi.extract.backbones.catalog import MOTION_MODELS
from haechi.extract.sampling import SAMPLINGS, WINDOWS
from haechi.extract.settings import CLIP_FPS, PRECISIONS, WINDOW_SECONDS, ExtractSettings

DEFAULTS = ExtractSettings()


def option(name: str, help: str, **extra: Any) -> Callable[[Any], Any]:
    """A flag whose default is the field of the same name in `ExtractSettings`."""
    field = extra.pop("field", name.removeprefix("--").replace("-", "_"))
    return click.option(name, field, default=getattr(DEFAULTS, field), help=help, **extra)


def manifest_options(command: Any) -> Any:
    """The flags that say how DATA is read."""
    for decorator in (
        click.option(
            "--follow-symlinks",
            is_flag=True,
            help="In a folder: take what symbolic links lead to, out of the folder too. [default: only files inside]",
        ),
        click.option("--positive", metavar="NAME", help="In a folder of class folders: the harmful one."),
        click.option(
            "--root",
            type=click.Path(path_type=Path, exists=True, file_okay=False),
            help="Where relative paths of a manifest start. [default: the manifest's folder]",
        ),
        click.argument("data", type=click.Path(path_type=Path)),
    ):
        command = decorator(command)
    return command


def validation_options(command: Any) -> Any:
    """The flags of sampling, and of what becomes of files that cannot be used."""
    for decorator in (
        option(
            "--sampling",
            "uniform: --frames over the whole video. windows: all of it, for videos of any length.",
            type=click.Choice(SAMPLINGS),
        ),
        option("--frames", "uniform: frames sampled from each video, evenly spaced.", type=click.IntRange(min=1)),
        option("--window-seconds", f"windows: what SlowFast sees at once. [default: {WINDOW_SECONDS:g}]", type=float),
        option("--stride-seconds", "windows: from one to the next. [default: a window's length]", type=float),
        option("--clip-fps", f"windows: frames a second that CLIP sees. [default: {CLIP_FPS:g}]", type=float),
        click.option("--strict", is_flag=True, help="Exit with 1 if any video cannot be used."),
    ):
        command = decorator(command)
    return command


def compute_options(command: Any) -> Any:
    """The flags that say where the backbones run, and how."""
    for decorator in (
        option("--batch-windows", "Windows a SlowFast batch; 0 chooses by the device.", type=click.IntRange(min=0)),
        option("--batch-frames", "Frames a CLIP batch; 0 chooses by the device.", type=click.IntRange(min=0)),
        option("--precision", "Arithmetic of the backbones; fp32 is the reference.", type=click.Choice(PRECISIONS)),
        option("--device", "auto, cpu, cuda or cuda:N."),
    ):
        command = decorator(command)
    return command


def decoding_options(command: Any) -> Any:
    """The flags of decoding: processes and limits."""
    for decorator in (
        option("--workers", "Decoding processes; 0 chooses by the machine.", type=click.IntRange(min=0)),
        option(
            "--timeout",
            "Seconds a video may take to decode, and as many again for each minute of it.",
            field="timeout_seconds",
            type=float,
        ),
        option("--worker-memory-gb", "Memory of each decoding process.", type=float),
        option("--max-pixels", "Largest width x height accepted.", type=click.IntRange(min=1)),
        option("--max-frames", "Most frames of a video accepted.", type=click.IntRange(min=1)),
    ):
        command = decorator(command)
    return command


@click.command()
@manifest_options
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The cache: a folder of shards.")
@option("--clip-model", "A model name of open_clip, or local-dir:PATH.")
@option("--clip-weights", "A tag of open_clip, TAG=PATH of a local file, or random:SEED (untrained).")
@option("--slowfast-model", "The motion model.", type=click.Choice(list(MOTION_MODELS)))
@option("--slowfast-weights", "kinetics400, a local file, or random:SEED (untrained).")
@option("--store", "Storage type of the features.", type=click.Choice(STORE_TYPES))
@option("--shard-size", "Rows of the manifest a shard, at most.", type=click.IntRange(min=1))
@option("--shard-minutes", "Write a shard that is not full after so long.", type=float)
@compute_options
@decoding_options
@validation_options
@click.option(
    "--retry", metavar="REASONS", default="", help="Try failures of these reasons again, such as timeout,crashed."
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def extract(
    *,
    data: Path,
    root: Path | None,
    positive: str | None,
    follow_symlinks: bool,
    out: Path,
    strict: bool,
    retry: str,
    as_json: bool,
    **flags: Any,
) -> None:
    """Stage 1: videos to a feature cache.

    DATA is a manifest (CSV or JSON Lines with the column path, and label, split, group, id where known) or a folder
    with the class folders harmful/ and safe/. Running it again does only what is missing.
    """
    import json

    from rich.console import Console

    import haechi
    from haechi.cache.console import show_notices
    from haechi.cache.errors import HaechiError
    from haechi.extract import pipeline
    from haechi.extract.console import progress_bar, show_extraction, show_interrupt
    from haechi.extract.decoding.reasons import Reason
    from haechi.extract.manifest import read_manifest

    settings = ExtractSettings(**flags)
    retried = {reason for reason in retry.split(",") if reason}
    if unknown := sorted(retried - set(Reason)):
        raise click.BadParameter(f"no such reason: {', '.join(unknown)}; there are: {', '.join(Reason)}")
    console = Console(stderr=True, highlight=False, emoji=False)
    manifest = read_manifest(data, root=root, positive=positive, follow_symlinks=follow_symlinks)
    show_notices(console, manifest.notices)
    with progress_bar(console) as bar:
        done = pipeline.extract(
            manifest,
            out,
            settings,
            producer=f"haechi {haechi.__version__}",
            retry=retried,
            on_start=lambda num_rows, where: bar.start(num_rows, f"extract on {where}"),
            on_video=lambda entry, reason: bar.advance(failed=reason is not None),
            on_notice=lambda text: show_notices(console, [text]),
            on_interrupt=lambda: show_interrupt(console),
            on_windows=bar.add_windows if settings.sampling == WINDOWS else lambda num_windows: None,
        )
    if as_json:
        fields = [
            *("fingerprint", "untrained", "num_rows", "num_used", "num_failed", "failures", "num_new"),
            *("device", "precision", "workers", "seconds", "work_seconds", "steps"),
        ]
        click.echo(json.dumps({"cache": str(done.cache), **{name: getattr(done, name) for name in fields}}))
    else:
        show_extraction(Console(highlight=False, emoji=False), done)
    if done.num_used == 0:
        raise HaechiError(f"{data}: none of its {done.num_rows} videos could be used; the reasons stand in {out}")
    if strict and done.num_failed:
        raise HaechiError(f"{data}: {done.num_failed} of {done.num_rows} videos could not be used (--strict)")


@click.command()
@manifest_options
@decoding_options
@validation_options
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("validation.csv"),
    help="The CSV to write: id, label, ok, stage, reason, message, and what is known of each video.",
)
def validate(
    *,
    data: Path,
    root: Path | None,
    positive: str | None,
    follow_symlinks: bool,
    strict: bool,
    out: Path,
    **flags: Any,
) -> None:
    """Check every video of a dataset; write the result as CSV.

    Does what `extract` does before the models: opens each file and decodes each frame that would be sampled. In the CSV
    an id that a spreadsheet would take for a formula begins with an apostrophe.
    """
    from rich.console import Console

    from haechi.cache.console import show_notices
    from haechi.cache.errors import HaechiError
    from haechi.extract import validation
    from haechi.extract.console import progress_bar, show_check
    from haechi.extract.decoding.pool import Rejected
    from haechi.extract.manifest import read_manifest

    settings = ExtractSettings(**flags)
    console = Console(stderr=True, highlight=False, emoji=False)
    validation.refuse_other_file(out)
    manifest = read_manifest(data, root=root, positive=positive, follow_symlinks=follow_symlinks)
    show_notices(console, manifest.notices)
    with progress_bar(console) as bar:
        bar.start(len(manifest.entries), "validate")
        results = validation.check_all(manifest, settings, on_video=lambda failed: bar.advance(failed=failed))
    validation.write_csv(out, manifest, results)
    failures = Counter(result.reason.value for result in results if isinstance(result, Rejected))
    show_check(
        Console(highlight=False, emoji=False), out, num_rows=len(results), failures=dict(sorted(failures.items()))
    )
    if len(results) == failures.total():
        raise HaechiError(f"{data}: none of its {len(results)} videos can be used; the reasons stand in {out}")
    if strict and failures:
        raise HaechiError(f"{data}: {failures.total()} of {len(results)} videos cannot be used (--strict)")
