"""`haechi inspect` and `haechi verify`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from rich.console import Console

    from haechi.cache.integrity.repair import Repair, RepairedShard
    from haechi.cache.integrity.shard_check import Problem
    from haechi.cache.integrity.verify import Report

MAX_IDS_SHOWN = 20

CACHE_ARGUMENT = click.argument("cache", type=click.Path(path_type=Path))


@click.command()
@CACHE_ARGUMENT
@click.option("--video", metavar="ID", help="Show this one video: its row, its times, its strongest actions.")
@click.option(
    "--search",
    "texts",
    metavar="TEXT",
    multiple=True,
    help="Rank videos and moments by how near they are to a text, such as 'people fighting in a street'; may be given "
    "more than once. In a language that the cache's CLIP knows: OpenAI's knows English.",
)
@click.option("--top", type=click.IntRange(min=1), default=20, help="With --search: videos shown, at most.")
@click.option(
    "--clip-model", help="With --search: where a CLIP of one's own lies now, local-dir:PATH. [default: the cache's]"
)
@click.option(
    "--clip-weights", help="With --search: where the cache's weights lie now, TAG=PATH. [default: as the cache says]"
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@click.pass_context
def inspect(
    ctx: click.Context, /, *, cache: Path, video: str | None, texts: tuple[str, ...], as_json: bool, **of_search: Any
) -> None:
    """Show on one screen what the cache in the folder CACHE holds.

    With --search: the videos and moments that look most like a text, to the text tower of the very CLIP that made the
    cache, whose weights must be pretrained.
    """
    if texts:
        if video is not None:
            raise click.UsageError("--search and --video exclude each other")
        if not all(text.strip() for text in texts):
            raise click.UsageError("--search: say what to search for")
        group = ctx.find_root().command
        assert isinstance(group, click.Group)
        search = group.get_command(ctx, "search")
        assert search is not None
        ctx.invoke(search, cache=cache, texts=texts, as_json=as_json, **of_search)
        return
    if useless := [f"--{name.replace('_', '-')}" for name in of_search if _is_given(ctx, name)]:
        raise click.UsageError(f"only with --search: {', '.join(useless)}")

    from haechi.cache import summary as inspection
    from haechi.cache.reader import Cache

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
@click.option(
    "--repair",
    "with_repair",
    is_flag=True,
    help="Drop what is damaged, so that the next `haechi extract` does just that again. Shards that cannot be read are "
    "put aside as *.damaged.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@click.pass_context
def verify(ctx: click.Context, *, cache: Path, with_repair: bool, as_json: bool) -> None:
    """Check every byte of the cache in the folder CACHE.

    Exit status 0: all is well. 1: each problem is listed with its shard, dataset and video. With --repair: whether all
    is well afterwards.
    """
    if with_repair:
        from haechi.cache.integrity.repair import repair

        repaired = repair(cache)
        if as_json:
            click.echo(json.dumps(_repair_json(repaired), indent=2))
        else:
            _show_repair(repaired)
        ctx.exit(0 if repaired.is_sound else 1)

    from haechi.cache.integrity.verify import verify as check

    report = check(cache)
    if as_json:
        click.echo(json.dumps(_report_json(report), indent=2))
    else:
        _show_report(report)
    if report.problems:
        ctx.exit(1)


def _is_given(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is not ParameterSource.DEFAULT


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


def _repair_json(repaired: "Repair") -> dict[str, object]:
    """What `haechi verify --repair --json` prints: the report of the cache as it is now, and what was done."""
    from dataclasses import asdict

    return _report_json(repaired.left) | {
        "ok": repaired.is_sound,
        "found": [asdict(problem) for problem in repaired.found.problems],
        "repaired": [asdict(shard) for shard in repaired.shards],
        "to_redo": repaired.to_redo,
        "are_ids_lost": repaired.are_ids_lost,
    }


def _show_repair(repaired: "Repair") -> None:
    from rich.markup import escape

    from haechi.cache.text import visible

    console = _console()
    if not repaired.found.problems:
        _show_report(repaired.left)
        console.print("nothing to repair")
        return
    console.print("[bold]found[/]")
    _show_problems(repaired.found, console)
    console.print("[bold]repaired[/]" if repaired.shards else "[bold]nothing that a repair can change[/]")
    for shard in repaired.shards:
        console.print("  " + escape(visible(_told(shard))), soft_wrap=True)
    console.print("[bold]now[/]")
    if repaired.left.num_shards:
        _show_report(repaired.left)
    else:
        console.print("no shard is left: `haechi extract` makes the cache anew")
    if repaired.to_redo or repaired.are_ids_lost:
        number = _counted(len(repaired.to_redo), "video") if repaired.to_redo else ""
        lost = "those whose ids are lost" if repaired.are_ids_lost else ""
        exactly = " and ".join(filter(None, [number, lost]))
        console.print(
            f"Run the same `haechi extract` again: it redoes exactly these, {exactly}.", soft_wrap=True, style="bold"
        )


def _told(shard: "RepairedShard") -> str:
    """What was done to a shard, on one line."""
    if shard.put_aside:
        parts = [f"put aside whole as {shard.put_aside}"]
    elif shard.videos or shard.failures or shard.older or shard.num_nameless:
        parts = [f"rewritten, {_counted(shard.kept, 'row')} kept"]
    else:
        parts = [f"rewritten and sealed anew, all {_counted(shard.kept, 'row')} kept"]
    for ids, what in ((shard.videos, "video"), (shard.failures, "failure"), (shard.older, "older row")):
        if ids:
            more = f" and {len(ids) - MAX_IDS_SHOWN} more" if len(ids) > MAX_IDS_SHOWN else ""
            parts.append(f"dropped {_counted(len(ids), what)}: {', '.join(ids[:MAX_IDS_SHOWN])}{more}")
    if shard.num_nameless:
        parts.append(f"dropped {_counted(shard.num_nameless, 'row')} without a readable id")
    if shard.are_ids_lost:
        parts.append("where an earlier shard has rows of ids that are lost here, those count again")
    return f"{shard.shard}: " + "; ".join(parts)


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _show_problems(report: "Report", console: "Console") -> None:
    from rich.markup import escape

    from haechi.cache.text import visible

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


def _show_report(report: "Report") -> None:
    from rich.filesize import decimal
    from rich.markup import escape
    from rich.table import Table

    from haechi.cache.text import visible

    console = _console()
    _show_problems(report, console)
    summary = Table(box=None, show_header=False, pad_edge=False)
    summary.add_row("cache", escape(visible(str(report.path))))
    summary.add_row("checked", f"{report.num_shards} shards, {decimal(report.num_bytes)}")
    summary.add_row("rows", f"{report.num_videos} videos, {report.num_failures} failures")
    for note in report.notes:
        summary.add_row("note", escape(visible(note)))
    if report.problems:
        num_bad = len({problem.shard for problem in report.problems})
        number = _counted(len(report.problems), "problem")
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
