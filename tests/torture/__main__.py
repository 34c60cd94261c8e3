"""Command line of the stress tests: `python -m tests.torture`."""

import importlib
import importlib.metadata
import json
import platform
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

# Name -> its function, its full and its quick size: a number of repetitions or, for fuzz, of seconds.
RUNS: dict[str, tuple[str, int, int]] = {
    "flip": ("flip", 500, 40),
    "kill": ("kill", 200, 8),
    "mutate": ("mutate", 1000, 60),
    "writers": ("write_twice", 30, 3),
    "disk": ("fill", 12, 2),
    "bombs": ("bombs", 5, 1),
    "fuzz": ("fuzz", 60, 5),
    "variations": ("vary", 200, 2),  # of each kind; tests/extract/decoding/test_variations.py compares 20
    "odd_exif": ("read_odd", 2000, 5),  # of each format
}
TAKE_KEEP = ("mutate", "fuzz", "variations", "odd_exif")  # functions with a parameter `keep`

# Imported once, in this process; the runs are forked from it. It must start no threads.
IMPORTS = (
    "haechi",
    "haechi.extract.backbones.openclip",
    "haechi.extract.backbones.pair",
    "haechi.extract.backbones.slowfast",
    "haechi.extract.backbones.device",
    "haechi.extract.cli",
    "haechi.train.data.dataset",
)

RUN_SECONDS = 1800.0
MAX_LOSSES_SHOWN = 20


@click.command()
@click.option(
    "--only", type=click.Choice(list(RUNS)), multiple=True, help="Do only this run; may be given several times."
)
@click.option("--quick", is_flag=True, help="Small sizes, as in `make test`.")
@click.option("--seed", default=0, help="Random seed of all runs.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="JSON file to write. [default: docs/torture.json for a full run]",
)
@click.option("--keep", type=click.Path(path_type=Path), help="Copy the inputs that caused findings to this folder.")
def main(*, only: tuple[str, ...], quick: bool, seed: int, out: Path | None, keep: Path | None) -> None:
    """Try in many ways to lose a video or to get damaged data into a cache. Exit status 1 if anything was lost."""
    for module in IMPORTS:
        importlib.import_module(module)
    from tests.torture.processes import run_forked
    from tests.torture.record import Record
    from tests.torture.table import RESULT, fill_document

    console = Console(highlight=False, emoji=False)
    records: dict[str, Record] = {}
    for name in only or RUNS:
        console.print(f"{name} …")
        outcome = run_forked(_work(name, quick=quick, seed=seed, keep=keep), seconds=RUN_SECONDS)
        failed = Record(what=name, tried=1, survived=0, losses=[outcome.error], note="the run itself failed")
        records[name] = failed if outcome.error else outcome.value
        for loss in records[name].losses[:MAX_LOSSES_SHOWN]:
            console.print(f"  [red]{escape(loss)}[/]")
    _show(console, list(records.values()))
    whole = not only and not quick
    if out is None and whole:
        out = RESULT
    if out is not None:
        _write(out, records)
    if whole and out == RESULT:
        fill_document()
    sys.exit(any(record.losses for record in records.values()))


def _work(name: str, *, quick: bool, seed: int, keep: Path | None) -> Callable[[], Any]:
    function_name, in_full, in_quick = RUNS[name]
    function = getattr(importlib.import_module(f"tests.torture.{name}"), function_name)
    extra: dict[str, object] = {"seed": seed} if name not in ("disk", "bombs") else {}
    if name in TAKE_KEEP:
        extra["keep"] = keep
    return partial(function, in_quick if quick else in_full, **extra)


def _show(console: Console, records: list[Any]) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("", "tried", "lost", "seconds", "note"):
        table.add_column(column, justify="left" if column in ("", "note") else "right")
    for record in records:
        lost = f"[red]{len(record.losses)}[/]" if record.losses else "0"
        seconds = f"{record.seconds:.0f}"
        table.add_row(escape(record.what), f"{record.tried:,}", lost, seconds, escape(record.note))
    console.print(table)


def _write(path: Path, records: dict[str, Any]) -> None:
    from bench.measure import PACKAGES, machine

    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "versions": {"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in PACKAGES},
        "untrained": True,
        "runs": [{"name": name} | record.to_dict() for name, record in records.items()],
    }
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
