"""Shows results: figures as text, the same on the screen and, through `bench.tables`, in the documents."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def show(path: Path) -> None:
    """Print the result file of a benchmark as a table."""
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
    """Machine, version of torch, date, and whether the weights were random, as one line of text."""
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
    """The median and, after several rounds, the smallest and the largest value: `5.1 s (5 to 5.3)`."""
    unit = "" if row["unit"] == "" else f" {row['unit']}"
    spread = f" ({number(row['min'])} to {number(row['max'])})" if row["rounds"] > 1 else ""
    return f"{number(row['median'])}{unit}{spread}"


def mark(row: dict[str, Any]) -> str:
    """The mark that the row should keep, such as `at most 1.1`; empty if there is none."""
    marks = [f"at {side} {number(row[f'at_{side}'])}" for side in ("least", "most") if row[f"at_{side}"] is not None]
    return ", ".join(marks)


def number(value: float) -> str:
    """Three significant digits; from 100 on a whole number with thousands separators."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
