"""The table of `haechi compare`."""

from rich import box
from rich.markup import escape
from rich.table import Table

from haechi.cache.text import counted
from haechi.train.evaluate import metrics
from haechi.train.evaluate.compare import Comparison
from haechi.train.output.numbers import interval, number
from haechi.train.output.titles import SPLIT_TITLES


def comparison_table(comparisons: list[Comparison]) -> Table:
    """One row for each run: its metrics with 95 % intervals, and the differences from the first run."""
    first = comparisons[0].run
    table = Table(
        title=f"{SPLIT_TITLES[first.part].lower()}, {counted(len(first.ids), 'video')}: metrics, and below them the "
        "difference from the first run; 95 % intervals in brackets",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        show_lines=True,
    )
    table.add_column("", overflow="fold")
    for metric in metrics.comparison_metrics():
        table.add_column(metric.column, justify="right", no_wrap=True)
    table.add_column("threshold", justify="right", no_wrap=True)
    for each in comparisons:
        cells = [_comparison_cell(each, comparisons[0], metric.name) for metric in metrics.comparison_metrics()]
        table.add_row(escape(str(each.run.path)), *cells, f"{each.run.threshold:.3f}")
    return table


def _comparison_cell(each: Comparison, first: Comparison, name: str) -> str:
    value, base = each.figures[name], first.figures[name]
    lines = [number(name, value), f"[dim]({interval(each.intervals[name])})[/]"]
    if each.differences and value is not None and base is not None:
        range_ = each.differences[name]
        colour = "dim" if not range_ else "green" if range_[0] > 0 else "red" if range_[1] < 0 else "dim"
        text = "undefined" if range_ is None else f"{range_[0]:+.3f} to {range_[1]:+.3f}"
        lines += [f"[{colour}]{value - base:+.3f}[/]", f"[{colour}]({text})[/]"]
    return "\n".join(lines)
