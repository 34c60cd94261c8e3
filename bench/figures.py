"""A result for the eye: the same table on the screen and, through `bench.tables`, in README."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def show(path: Path) -> None:
    """Print what a benchmark wrote."""
    result = json.loads(path.read_text(encoding="utf-8"))
    console = Console(highlight=False, emoji=False)
    table = Table(title=f"{result['bench']}: {measured_on(result)}", title_justify="left", box=None, pad_edge=False)
    for header in ("what", "median (smallest to largest)", "mark", ""):
        table.add_column(header)
    for row in result["rows"]:
        table.add_row(row["what"], figure(row), mark(row), {None: "", True: "kept", False: "[red]missed"}[row["holds"]])
    console.print(table)
    console.print(f"in {path}", soft_wrap=True)


def measured_on(result: dict[str, Any]) -> str:
    """Machine, date and weights, as a phrase."""
    machine = result["machine"]
    parts = [
        *([machine["gpu"]] if machine["gpu"] else []),
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB",
        f"torch {result['versions']['torch']}",
        result["date"],
        *(["UNTRAINED weights"] if result["untrained"] else []),
    ]
    return "; ".join(parts)


def figure(row: dict[str, Any]) -> str:
    """The median, and the spread where there were several rounds: `5.1 s (5 to 5.3)`."""
    unit = "" if row["unit"] == "" else f" {row['unit']}"
    spread = f" ({number(row['min'])} to {number(row['max'])})" if row["rounds"] > 1 else ""
    return f"{number(row['median'])}{unit}{spread}"


def mark(row: dict[str, Any]) -> str:
    """What the row is held to, such as `at most 1.1`."""
    marks = [f"at {side} {number(row[f'at_{side}'])}" for side in ("least", "most") if row[f"at_{side}"] is not None]
    return ", ".join(marks)


def number(value: float) -> str:
    """Three digits that count, without an exponent where it can be read."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
