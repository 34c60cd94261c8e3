"""The command lines of `haechi extract` and `haechi validate`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from haechi.cache.options import LocalPath, group_by_option, positive_label_option
from haechi.cache.schema import STORE_TYPES
from haechi.extract.backbones.catalog import MOTION_CHOICES
from haechi.extract.sampling import SAMPLINGS
from haechi.extract.settings import CLIP_FPS, PRECISIONS, WINDOW_SECONDS, ExtractSettings

DEFAULTS = ExtractSettings()

# Where slices run that one command hands out: on this machine, or on a Ray cluster.
ENGINES = ("local", "ray")


def option(name: str, help: str, **extra: Any) -> Callable[[Any], Any]:
    """A flag whose default is the field of the same name in `ExtractSettings`."""
    field = extra.pop("field", name.removeprefix("--").replace("-", "_"))
    return click.option(name, field, default=getattr(DEFAULTS, field), help=help, **extra)


allow_https_option = click.option(
    "--allow-https", is_flag=True, help="Also fetch files of web servers, except from addresses of private networks."
)


def manifest_options(command: Any) -> Any:
    """The flags that say how DATA is read."""
    for decorator in (
        click.option(
            "--follow-symlinks",
            is_flag=True,
            help="In a folder, also read symbolic links that lead out of it. [default: only files inside]",
        ),
        group_by_option("Files of one group are always in the same part of the split."),
        positive_label_option,
        click.option(
            "--positive",
            metavar="NAME",
            multiple=True,
            help="A harmful class folder, in any case, if it is not called harmful; all others are safe. Repeat it for "
            "several.",
        ),
        click.option(
            "--root",
            type=click.Path(path_type=Path, exists=True, file_okay=False),
            help="Folder that relative paths of a manifest start from. [default: the manifest's folder]",
        ),
        allow_https_option,
        click.argument("data"),
    ):
        command = decorator(command)
    return command


def validation_options(command: Any) -> Any:
    """The flags of sampling, and --strict."""
    options = (
        option(
            "--sampling",
            "uniform: a fixed number of frames over the whole video. windows: the whole video, of any length.",
            type=click.Choice(SAMPLINGS),
        ),
        option(
            "--frames", "uniform: number of frames sampled from each video, evenly spaced.", type=click.IntRange(min=1)
        ),
        option(
            "--window-seconds",
            f"windows: length of a SlowFast window, seconds. [default: {WINDOW_SECONDS:g}]",
            type=float,
        ),
        option(
            "--stride-seconds",
            "windows: seconds from the start of one window to the start of the next. [default: a window's length]",
            type=float,
        ),
        option("--clip-fps", f"windows: CLIP frames per second. [default: {CLIP_FPS:g}]", type=float),
        click.option("--strict", is_flag=True, help="Exit with 1 if any video cannot be used."),
    )
    for decorator in reversed(options):  # the last one that is applied is the first in --help
        command = decorator(command)
    return command


def compute_options(command: Any) -> Any:
    """The flags of the backbones: device, precision, batch sizes."""
    for decorator in (
        option("--batch-windows", "Windows in a SlowFast batch; 0: chosen for the device.", type=click.IntRange(min=0)),
        option("--batch-frames", "Frames in a CLIP batch; 0: chosen for the device.", type=click.IntRange(min=0)),
        option("--precision", "Precision of the backbones; fp32 is the reference.", type=click.Choice(PRECISIONS)),
        option("--device", "Where the backbones run: auto, cpu, cuda or cuda:N."),
    ):
        command = decorator(command)
    return command


def decoding_options(command: Any) -> Any:
    """The flags of decoding: number of processes, and limits."""
    options = (
        option("--workers", "Number of decoding processes; 0: chosen for the machine.", type=click.IntRange(min=0)),
        option(
            "--timeout",
            "Time limit for decoding a video: this many seconds, plus the same for each minute of video.",
            field="timeout_seconds",
            type=float,
        ),
        option("--worker-memory-gb", "Memory limit of each decoding process, GB (1e9 bytes).", type=float),
        option("--spool", "Folder for copies of files from stores. [default: the system's temporary folder]"),
        option("--spool-gb", "What these copies may use together, GB (1e9 bytes).", type=float),
        option("--max-pixels", "Refuse files whose width x height is larger, in pixels.", type=click.IntRange(min=1)),
        option("--max-frames", "Refuse videos with more than this many frames.", type=click.IntRange(min=1)),
    )
    for decorator in reversed(options):  # the last one that is applied is the first in --help
        command = decorator(command)
    return command


@click.command()
@manifest_options
@click.option(
    "--out",
    required=True,
    metavar="CACHE",
    help="Folder of the cache, created if it does not exist, or a place in an object store, such as s3://bucket/cache.",
)
@click.option(
    "--work",
    type=LocalPath(path_type=Path, file_okay=False),
    help="For a cache in a store: the folder where it is built before it is put there, and where a stopped run "
    "continues. [default: haechi/work in the user's cache folder]",
)
@option("--clip-model", "CLIP model: a model name of open_clip, or local-dir:PATH; none: SlowFast alone.")
@option("--clip-weights", "CLIP weights: a tag of open_clip, TAG=PATH of a local file, or random:SEED (untrained).")
@option(
    "--slowfast-model",
    "Motion model, such as pytorchvideo's SlowFast; none: CLIP alone, in about half the time on a CPU.",
    type=click.Choice(list(MOTION_CHOICES)),
)
@option("--slowfast-weights", "SlowFast weights: kinetics400, a local file, or random:SEED (untrained).")
@option("--store", "Storage type of the features.", type=click.Choice(STORE_TYPES))
@option("--shard-size", "Largest number of manifest rows in a shard.", type=click.IntRange(min=1))
@option("--shard-minutes", "Write a shard after this many minutes even if it is not full.", type=float)
@compute_options
@decoding_options
@validation_options
@click.option(
    "--retry",
    metavar="REASONS",
    default="",
    show_default=False,
    help="Try failures with these reasons again, such as timeout,crashed (all reasons: cache_schema.md).",
)
@click.option(
    "--slice",
    "slice",
    metavar="i/N",
    help="Extract only part i of N equal parts of DATA, i from 0 to N-1: for many processes and machines that fill one "
    "cache (docs/scale.md). auto: from the environment of a Slurm job array, Kubernetes Indexed Job or SkyPilot. "
    "[default: all of DATA]",
)
@click.option(
    "--devices",
    metavar="LIST",
    help="Share DATA out between several devices of this machine, a process for each: all CUDA devices, some of them "
    "such as 0,1,3, or cpu:2 for two processes on the CPU. --workers and --spool-gb are for all of them together. "
    "[default: one device]",
)
@click.option(
    "--engine",
    type=click.Choice(ENGINES),
    default=ENGINES[0],
    help="local: this machine. ray: the GPUs of a Ray cluster, or its CPUs if it has none; there, --devices is all or "
    "cpu:N, and --workers and --spool-gb are for each process.",
)
@click.option("--address", help="Address of the Ray cluster. [default: auto, the cluster that this machine is part of]")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def extract(
    *,
    data: str,
    root: Path | None,
    positive: tuple[str, ...],
    positive_labels: tuple[str, ...],
    group_by: str | None,
    follow_symlinks: bool,
    allow_https: bool,
    out: str,
    work: Path | None,
    strict: bool,
    retry: str,
    slice: str | None,
    devices: str | None,
    engine: str,
    address: str | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Stage 1: extract the features of videos and images into a cache.

    DATA is a manifest (CSV or JSON Lines with the column path, and optionally label, split, group, id) or a folder with
    the class folders harmful/ and safe/, which may stand in train/, val/ and test/. The folder, and the files of a
    manifest, may be in an object store, such as s3://bucket/clips. Running the command again extracts only what is
    missing or has changed.
    """
    import json

    from haechi.cache.console import make_console
    from haechi.cache.errors import HaechiError, SettingsError
    from haechi.cache.progress_bar import shown_progress
    from haechi.cache.text import counted
    from haechi.extract.api import cache_place, chosen_slice, extract_features
    from haechi.extract.console import show_extraction
    from haechi.extract.decoding.reasons import parse_reasons

    try:
        reasons = parse_reasons(reason for reason in retry.split(",") if reason)
        place = cache_place(out)
        part = None if slice is None else chosen_slice(slice, place)
    except SettingsError as error:
        raise click.BadParameter(str(error)) from error
    is_shared = devices is not None or engine != ENGINES[0]
    with shown_progress(make_console(stderr=True), in_lines=is_shared) as progress:
        done = extract_features(
            data,
            place,
            root=root,
            positive=positive,
            positive_labels=positive_labels,
            group_by=group_by,
            follow_symlinks=follow_symlinks,
            allow_https=allow_https,
            retry=reasons,
            slice=part,
            work=work,
            devices=devices,
            engine=engine,
            address=address,
            progress=progress,
            **flags,
        )
    if as_json:
        fields = [
            *("fingerprint", "untrained", "num_rows", "num_used", "num_failed", "failures", "num_defects", "traits"),
            *("num_new", "num_saved", "device", "precision", "decoders", "workers"),
            *("seconds", "work_seconds", "steps"),
        ]
        content = {"cache": done.name, **{name: getattr(done, name) for name in fields}}
        if done.slice is not None:
            content |= {"slice": str(done.slice), "has_committed": done.has_committed}
        if is_shared:
            content["devices"] = [
                {"name": each.name, "slices": each.num_slices, "rows": each.num_rows, "seconds": each.seconds}
                for each in done.devices
            ]
        click.echo(json.dumps(content))
    else:
        show_extraction(make_console(), done)
    if done.num_used == 0 and done.slice is None:  # a slice may have few rows, or none
        raise HaechiError(
            f"{data}: 0 of {counted(done.num_rows, 'video')} could be used; the cache {done.name} holds the reasons"
        )
    if strict and done.num_failed:
        raise HaechiError(
            f"{data}: {done.num_failed} of {counted(done.num_rows, 'video')} could not be used (--strict)"
        )


@click.command()
@manifest_options
@decoding_options
@validation_options
@click.option(
    "--out",
    type=LocalPath(path_type=Path, dir_okay=False),
    default=Path("validation.csv"),
    help="The CSV to write: id, label, ok, stage, reason, message, and length, size and hash of each video.",
)
def validate(
    *,
    data: str,
    root: Path | None,
    positive: tuple[str, ...],
    positive_labels: tuple[str, ...],
    group_by: str | None,
    follow_symlinks: bool,
    allow_https: bool,
    strict: bool,
    out: Path,
    **flags: Any,
) -> None:
    """Check every video of a dataset; write the result as CSV.

    Opens each file and decodes each frame that `extract` would sample, and runs no model. In the CSV, an id that a
    spreadsheet would run as a formula gets an apostrophe in front.
    """
    from haechi.cache.console import make_console
    from haechi.cache.errors import HaechiError
    from haechi.cache.progress_bar import shown_progress
    from haechi.cache.text import counted
    from haechi.extract import validation
    from haechi.extract.console import show_check
    from haechi.extract.interrupt import InterruptedRunError
    from haechi.extract.manifest import located, read_manifest

    settings = ExtractSettings(**flags)
    validation.refuse_other_file(out)
    manifest = read_manifest(
        located(data),
        root=root,
        positive=positive,
        positive_labels=positive_labels,
        group_by=group_by,
        follow_symlinks=follow_symlinks,
        allow_https=allow_https,
    )
    with shown_progress(make_console(stderr=True)) as progress:
        for notice in manifest.notices:
            progress.notice(notice)
        validated = validation.check_all(manifest, settings, progress=progress)
    validation.write_csv(out, validated.checks)
    num_rows, num_checked, num_failed = validated.num_rows, len(validated.checks), validated.num_failed
    show_check(make_console(), out, validated)
    if validated.error is not None:
        raise HaechiError(
            f"{validated.error}; {out} holds {num_checked} of {counted(num_rows, 'video')}"
        ) from validated.error
    if num_checked < num_rows:
        raise InterruptedRunError(
            f"interrupted: {num_checked} of {counted(num_rows, 'video')} checked, and {out} holds only these; run the "
            "same command again to check all of them"
        )
    if num_failed == num_rows:
        raise HaechiError(f"{data}: 0 of {counted(num_rows, 'video')} can be used; {out} holds the reasons")
    if strict and num_failed:
        raise HaechiError(f"{data}: {num_failed} of {counted(num_rows, 'video')} cannot be used (--strict)")
