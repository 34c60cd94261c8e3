"""`haechi inspect` and `haechi verify`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console

    from cache.verify import Problem, Report

CACHE_ARGUMENT = click.argument("cache", type=click.Path(path_type=Path))


@click.command()
@CACHE_ARGUMENT
@click.option("--video", metavar="ID", help="Show this one video: its row, its times, its strongest actions.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def inspect(*, cache: Path, video: str | None, as_json: bool) -> None:
    """Show on one screen what the cache in the folder CACHE holds."""
    from cache import inspect as inspection
    from cache.reader import Cache

    opened = Cache.open(cache)
    if video is None:
        summary = inspection.summarise(opened)
        if not as_json:
            inspection.show_summary(summary, _console())
    else:
        summary = inspection.describe_video(opened, video)
        if not as_json:
            inspection.show_video(summary, _console())
    if as_json:
        click.echo(json.dumps(summary, indent=2, allow_nan=False))


@click.command()
@CACHE_ARGUMENT
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@click.pass_context
def verify(ctx: click.Context, *, cache: Path, as_json: bool) -> None:
    """Check every byte of the cache in the folder CACHE.

    Exit status 0: all is well. 1: each problem is listed with its shard, dataset and video.
    """
    from cache.verify import verify as check

    report = check(cache)
    if as_json:
        click.echo(json.dumps(_report_json(report), indent=2))
    else:
        _show_report(report)
    if report.problems:
        ctx.exit(1)


def _report_json(report: "Report") -> dict[str, object]:
    """What `haechi verify --json` prints."""
    from dataclasses import asdict

    return {
        "path": str(report.path),
        "ok": not report.problems,
        "shards": report.num_shards,
        "videos": report.num_videos,
        "failed": report.num_failures,
        "bytes": report.num_bytes,
        "problems": [asdict(problem) for problem in report.problems],
        "notes": report.notes,
    }


def _show_report(report: "Report") -> None:
    from rich.filesize import decimal
    from rich.markup import escape
    from rich.table import Table

    from cache.errors import visible

    console = _console()
    shown = ""
    for (shard, dataset, what), videos in _grouped(report.problems).items():
        if shard != shown:
            console.print(f"[bold]{escape(visible(shard))}[/]", soft_wrap=True)
            shown = shard
        where = f"{dataset} " if dataset else ""
        if videos[0]:
            more = f" and {len(videos) - 1} more" if len(videos) > 1 else ""
            where += f"{videos[0]}{more}: "
        lines = [escape(visible(line)) for line in f"{where}{what}".split("\n")]
        console.print("  " + "\n  ".join(lines), soft_wrap=True)
    summary = Table(box=None, show_header=False, pad_edge=False)
    summary.add_row("cache", escape(visible(str(report.path))))
    summary.add_row("checked", f"{report.num_shards} shards, {decimal(report.num_bytes)}")
    summary.add_row("rows", f"{report.num_videos} videos, {report.num_failures} failures")
    for note in report.notes:
        summary.add_row("note", escape(visible(note)))
    if report.problems:
        num_bad = len({problem.shard for problem in report.problems})
        number = "1 problem" if len(report.problems) == 1 else f"{len(report.problems)} problems"
        summary.add_row("result", f"[bold red]{number}, in {num_bad} of {report.num_shards} shards[/]")
    else:
        summary.add_row("result", "[green]every byte is as it was written[/]")
    console.print(summary)


def _grouped(problems: "list[Problem]") -> dict[tuple[str, str, str], list[str]]:
    """The videos of problems that are otherwise the same."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for problem in problems:
        groups.setdefault((problem.shard, problem.dataset, problem.what), []).append(problem.video)
    return groups


def _console() -> "Console":
    from rich.console import Console

    return Console(highlight=False, emoji=False)
