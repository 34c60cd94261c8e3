"""`haechi inspect`, `haechi status` and `haechi verify`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from haechi.cache.options import CachePath, shard_cache_option

if TYPE_CHECKING:
    from rich.console import Console

    from haechi.cache.integrity.repair import Repair, RepairedShard
    from haechi.cache.integrity.shard_check import Problem
    from haechi.cache.integrity.verify import Verification

MAX_IDS_SHOWN = 20

CACHE_ARGUMENT = click.argument("cache", type=CachePath(path_type=Path))


@click.command()
@CACHE_ARGUMENT
@click.option("--video", metavar="ID", help="Show only this video: its columns, times and most probable actions.")
@click.option("--deep", is_flag=True, help="Read every row of features, and count those that are zero or not finite.")
@shard_cache_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def inspect(*, cache: Path | str, video: str | None, deep: bool, shard_cache_gb: float, as_json: bool) -> None:
    """Show a summary of the cache CACHE.

    CACHE is a folder, or a place in an object store, such as s3://bucket/cache.

    Features are not read: the number of bad rows is the one that each shard's writer left in it. Only shards of format
    version 1 do not have it. `haechi verify` finds damage.
    """
    from haechi.cache.console import make_console
    from haechi.cache.reader import Cache
    from haechi.cache.summary import describe_video, show_summary, show_video, summarise

    shards = Cache.open(cache, shard_cache_gb=shard_cache_gb)
    content = summarise(shards, deep=deep) if video is None else describe_video(shards, video)
    if as_json:
        click.echo(json.dumps(content, indent=2, allow_nan=False))
    elif video is None:
        show_summary(content, make_console())
    else:
        show_video(content, make_console())


@click.command()
@CACHE_ARGUMENT
@shard_cache_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def status(*, cache: Path | str, shard_cache_gb: float, as_json: bool) -> None:
    """Show which slices of the cache CACHE are finished, running and missing.

    For caches that are made with `haechi extract --slice`. Running are those on which a living process works; processes
    on other machines are seen if the file system shares locks. Of a cache in an object store, such as
    s3://bucket/cache, none is seen, and only the records of slices are fetched.
    """
    from haechi.cache.console import make_console
    from haechi.cache.status import read_status, show_status

    found = read_status(cache, shard_cache_gb=shard_cache_gb)
    if as_json:
        click.echo(json.dumps(found.as_json(), indent=2))
    else:
        show_status(found, make_console())


@click.command()
@CACHE_ARGUMENT
@click.option(
    "--repair",
    "with_repair",
    is_flag=True,
    help="Drop damaged rows and rename shards that cannot be read to *.damaged. The next `haechi extract` redoes "
    "exactly the videos that were dropped.",
)
@shard_cache_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@click.pass_context
def verify(ctx: click.Context, *, cache: Path | str, with_repair: bool, shard_cache_gb: float, as_json: bool) -> None:
    """Check every byte of the cache CACHE.

    CACHE is a folder, or a place in an object store, such as s3://bucket/cache.

    Exit status 0: no problem found. Exit status 1: problems were found and are listed with shard, dataset and video.
    With --repair: 0 if no problem remains.
    """
    if with_repair:
        from haechi.cache.integrity.repair import repair

        if isinstance(cache, str):
            raise click.UsageError(
                "--repair is for a cache in a folder; in a store, remove the record of the damaged slice, and extract "
                "that slice again"
            )
        repaired = repair(cache)
        if as_json:
            click.echo(json.dumps(_repair_json(repaired), indent=2))
        else:
            _show_repair(repaired)
        ctx.exit(0 if repaired.is_sound else 1)

    from haechi.cache.integrity.verify import verify as check

    verification = check(cache, shard_cache_gb=shard_cache_gb)
    if as_json:
        click.echo(json.dumps(_verification_json(verification), indent=2))
    else:
        _show_verification(verification)
    if verification.problems:
        ctx.exit(1)


def _verification_json(verification: "Verification") -> dict[str, object]:
    """What `haechi verify --json` prints."""
    from dataclasses import asdict

    return {
        "path": verification.name,
        "ok": not verification.problems,
        "shards": verification.num_shards,
        "videos": verification.num_videos,
        "failed": verification.num_failures,
        "bytes": verification.num_bytes,
        "problems": [asdict(problem) for problem in verification.problems],
        "notes": verification.notes,
    }


def _repair_json(repaired: "Repair") -> dict[str, object]:
    """What `haechi verify --repair --json` prints: the state after the repair, and what the repair found and did."""
    from dataclasses import asdict

    return _verification_json(repaired.left) | {
        "ok": repaired.is_sound,
        "found": [asdict(problem) for problem in repaired.found.problems],
        "repaired": [asdict(shard) for shard in repaired.shards],
        "to_redo": repaired.to_redo,
        "are_ids_lost": repaired.are_ids_lost,
    }


def _show_repair(repaired: "Repair") -> None:
    from rich.markup import escape

    from haechi.cache.console import make_console
    from haechi.cache.text import counted, visible

    console = make_console()
    if not repaired.found.problems:
        _show_verification(repaired.left)
        console.print("nothing to repair")
        return
    console.print("[bold]found[/]")
    _show_problems(repaired.found, console)
    console.print("[bold]repaired[/]" if repaired.shards else "[bold]none of this can be repaired[/]")
    for shard in repaired.shards:
        console.print("  " + escape(visible(_repaired_text(shard))), soft_wrap=True)
    console.print("[bold]now[/]")
    if repaired.left.num_shards:
        _show_verification(repaired.left)
    else:
        console.print("no shard is left; `haechi extract` makes the cache again")
    if repaired.to_redo or repaired.are_ids_lost:
        number = counted(len(repaired.to_redo), "video") if repaired.to_redo else ""
        lost = "the videos whose ids are lost" if repaired.are_ids_lost else ""
        videos = " and ".join(filter(None, [number, lost]))
        console.print(f"Run the same `haechi extract` again; it redoes exactly {videos}.", soft_wrap=True, style="bold")


def _repaired_text(shard: "RepairedShard") -> str:
    """What was done to a shard, on one line."""
    from haechi.cache.text import counted

    if shard.put_aside:
        parts = [f"cannot be read, renamed to {shard.put_aside}"]
    elif shard.videos or shard.failures or shard.older or shard.num_nameless:
        parts = [f"rewritten, {counted(shard.kept, 'row')} kept"]
    else:
        parts = [f"rewritten and sealed again, all {counted(shard.kept, 'row')} kept"]
    for ids, noun in ((shard.videos, "video"), (shard.failures, "failure"), (shard.older, "older row")):
        if ids:
            more = f" and {len(ids) - MAX_IDS_SHOWN} more" if len(ids) > MAX_IDS_SHOWN else ""
            parts.append(f"dropped {counted(len(ids), noun)}: {', '.join(ids[:MAX_IDS_SHOWN])}{more}")
    if shard.num_nameless:
        parts.append(f"dropped {counted(shard.num_nameless, 'row')} without a readable id")
    if shard.are_ids_lost:
        parts.append("some ids are lost; rows of these ids in earlier shards count again")
    return f"{shard.shard}: " + "; ".join(parts)


def _show_problems(verification: "Verification", console: "Console") -> None:
    """Print each problem below its shard; problems that differ only in the video are printed once."""
    from rich.markup import escape

    from haechi.cache.text import visible

    current = ""
    for (shard, dataset, what), videos in _grouped(verification.problems).items():
        if shard != current:
            console.print(f"[bold]{escape(visible(shard))}[/]", soft_wrap=True)
            current = shard
        where = f"{dataset} " if dataset else ""
        if videos[0]:
            more = f" and {len(videos) - 1} more" if len(videos) > 1 else ""
            where += f"{videos[0]}{more}: "
        lines = [escape(visible(line)) for line in f"{where}{what}".split("\n")]
        console.print("  " + "\n  ".join(lines), soft_wrap=True)


def _show_verification(verification: "Verification") -> None:
    from rich.filesize import decimal
    from rich.markup import escape
    from rich.table import Table

    from haechi.cache.console import make_console
    from haechi.cache.text import counted, visible

    console = make_console()
    _show_problems(verification, console)
    shards = counted(verification.num_shards, "shard")
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("cache", escape(visible(verification.name)))
    table.add_row("checked", f"{shards}, {decimal(verification.num_bytes)}")
    videos, failures = counted(verification.num_videos, "video"), counted(verification.num_failures, "failure")
    table.add_row("rows", f"{videos}, {failures}")
    for note in verification.notes:
        table.add_row("note", escape(visible(note)))
    if verification.problems:
        num_bad = len({problem.shard for problem in verification.problems if problem.shard.endswith(".h5")})
        number = counted(len(verification.problems), "problem")
        table.add_row("result", f"[bold red]{number}, in {num_bad} of {shards}[/]")
    else:
        table.add_row("result", "[green]every byte is as it was written[/]")
    console.print(table)


def _grouped(problems: "list[Problem]") -> dict[tuple[str, str, str], list[str]]:
    """(shard, dataset, what) -> the videos that have this problem."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for problem in problems:
        groups.setdefault((problem.shard, problem.dataset, problem.what), []).append(problem.video)
    return groups
