"""What a run shows on the terminal while it trains."""

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from cache.schema import HARMFUL, LABEL_NAMES, SAFE
from train.fit import Epoch
from train.report import SPLIT_TITLES, Result
from train.run import ARTEFACTS
from train.threshold import Threshold, chosen_row

# Figures of the summary, and their titles.
SUMMARY_FIGURES = {
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "average_precision": "average precision",
    "roc_auc": "ROC AUC",
}


class Speed(ProgressColumn):
    """Videos trained on a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} videos/s")


def progress_bar(console: Console) -> Progress:
    """A bar over all epochs' videos; nothing where the output is no terminal."""
    columns = [SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), Speed(), TimeRemainingColumn()]
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def untrained_warning(untrained: list[str]) -> str:
    """Markup that says that the features come from random weights."""
    names = escape(", ".join(untrained))
    return f"[bold red]UNTRAINED[/]: random weights in {names}; the figures mean little"


def counts_table(counts: dict[str, dict[str, int]]) -> Table:
    """Labelled videos by part of the split."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("videos")
    for label in (HARMFUL, SAFE):
        table.add_column(LABEL_NAMES[label], justify="right")
    for part, of_label in counts.items():
        table.add_row(SPLIT_TITLES[part].lower(), *(f"{count:,}" for count in of_label.values()))
    return table


def epoch_table(epoch: Epoch, *, num_epochs: int) -> Table:
    """The report's nine thresholds with the best of them marked, and under them the exact best one."""
    table = Table(
        title=f"[bold]epoch {epoch.number}/{num_epochs}[/]   training loss {epoch.train_loss:.4f}   "
        f"validation loss {epoch.val_loss:.4f}   {epoch.seconds:.1f} s",
        title_justify="left",
        title_style="",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    table.add_column("", min_width=6)
    for name in ("threshold", "precision", "recall", "F1"):
        table.add_column(name, justify="right", min_width=9)
    table.add_column("", min_width=17)
    chosen = chosen_row(epoch.table)
    for i, row in enumerate(epoch.table):
        is_chosen = i == chosen
        table.add_row("→" if is_chosen else "", *_cells(row, threshold_digits=2), style="bold" if is_chosen else "")
    table.add_row("exact", *_cells(epoch.best, threshold_digits=4), "[green]best so far[/]" if epoch.improved else "")
    return table


def _cells(row: Threshold, *, threshold_digits: int) -> list[str]:
    return [f"{row.threshold:.{threshold_digits}f}", f"{row.precision:.4f}", f"{row.recall:.4f}", f"{row.f1:.4f}"]


def metrics_table(result: Result) -> Table:
    """The figures of each part of the split at the best epoch's threshold."""
    table = Table(
        title=f"best epoch {result.best.number} of {len(result.epochs)}, threshold {result.best.best.threshold:.4f}",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("")
    for part in result.metrics:
        table.add_column(SPLIT_TITLES[part].lower(), justify="right", min_width=10)
    for name, title in SUMMARY_FIGURES.items():
        values = [figures[name] for figures in result.metrics.values()]
        table.add_row(title, *("undefined" if value is None else f"{value:.4f}" for value in values))
    return table


def artefacts_table() -> Table:
    """The run's files and what they are."""
    table = Table(box=None, show_header=False, padding=(0, 2))
    for name, meaning in ARTEFACTS.items():
        table.add_row(name, meaning)
    return table
