"""What a run shows on the terminal while it trains."""

from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from haechi.cache.console import show_notices
from haechi.cache.kinds import KINDS
from haechi.cache.schema import HARMFUL, LABEL_NAMES, SAFE
from haechi.device import find_device
from haechi.train.data.stream import Stream
from haechi.train.device import find_precision
from haechi.train.evaluate.bootstrap import Interval
from haechi.train.evaluate.compare import Compared
from haechi.train.evaluate.threshold import Threshold, chosen_row
from haechi.train.grid import Trial
from haechi.train.model.fit import DivergedError, Epoch, compute_pos_weight
from haechi.train.model.head import num_heads
from haechi.train.output.experiments import Outcome, Spread, best_point, by_point
from haechi.train.output.plots import SPLIT_TITLES
from haechi.train.plan import Plan
from haechi.train.progress import TrainProgress
from haechi.train.result import Fold, Result
from haechi.train.run_folder import ARTEFACTS, EXPERIMENTS_FILE, EXPERIMENTS_TABLE

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

# Figures of the experiments' tables, and their titles: of a part of the split, and of the whole (see `Outcome.value`).
EXPERIMENT_FIGURES = {"f1": "F1", "roc_auc": "ROC AUC", "balanced_accuracy": "bal. acc."}
EXPERIMENT_NUMBERS = {"threshold": "threshold", "seconds": "seconds"}

BASELINE_COLUMNS = {"majority": "majority\nclass", "logistic_regression": "logistic\nregression"}


class Speed(ProgressColumn):
    """Training speed in videos per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} videos/s")


class TerminalProgress(TrainProgress):
    """Shows a run, or several, on `console`: a bar while a head is trained, then its epochs or folds, or a line a run.

    A context manager, whose end removes the bar. There is no bar if the output is not a terminal; notices go to stderr.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._prefix = ""
        self._trial: Trial | None = None
        self._plan: Plan | None = None
        self._warnings = set[str]()

    @property
    def untrained(self) -> list[str]:
        """Backbones with random weights; empty before the first plan."""
        return [] if self._plan is None else self._plan.dataset.cache.untrained

    def __enter__(self) -> "TerminalProgress":
        return self

    def __exit__(self, *_: object) -> None:
        self._remove_bar()

    def notice(self, text: str) -> None:
        show_notices(Console(stderr=True, highlight=False, emoji=False), [text])

    def trial(self, trial: Trial, number: int, total: int) -> None:
        self._trial, self._prefix = trial, f"{number} of {total}, "

    def plan(self, plan: Plan) -> None:
        if self._plan is None:
            show_start(self._console, plan)
        else:
            show_warnings(self._console, [text for text in plan.warnings if text not in self._warnings])
        self._plan = plan
        self._warnings.update(plan.warnings)

    def start(self, total: int, what: str) -> None:
        if self._bar is None:
            columns = [SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), Speed(), TimeRemainingColumn()]
            self._bar = Progress(*columns, console=self._console, transient=True, disable=not self._console.is_terminal)
            self._bar.start()
        for task in self._bar.task_ids:
            self._bar.remove_task(task)
        self._task = self._bar.add_task(f"{self._prefix}{what}", total=total)

    def advance(self, count: int = 1, *, failed: bool = False) -> None:
        assert self._bar is not None
        self._bar.advance(self._task, count)

    def epoch(self, epoch: Epoch) -> None:
        assert self._plan is not None
        if self._trial is None and not self._plan.is_folds:
            self._console.print(epoch_table(epoch, num_epochs=self._plan.settings.epochs), "")

    def fold(self, fold: Fold) -> None:
        if self._trial is None:
            self._console.print(fold_line(fold))

    def trained(self, result: Result) -> None:
        self._remove_bar()
        if self._trial is not None:
            self._console.print(outcome_line(Outcome.of(self._trial, result)), soft_wrap=True)
        elif not result.folds and len(result.epochs) < result.settings.epochs:
            self._console.print(f"stopped after {result.settings.patience} epochs without improvement\n")

    def diverged(self, error: DivergedError) -> None:
        assert self._trial is not None
        self._remove_bar()
        self._console.print(outcome_line(Outcome.failed(self._trial, str(error))), soft_wrap=True)

    def _remove_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def show_start(console: Console, plan: Plan) -> None:
    """What is known before the first epoch: groups, split, warnings, the head's input."""
    settings, dataset = plan.settings, plan.dataset
    features, device = dataset.features, find_device(settings.device)
    precision = find_precision(settings, device)
    if dataset.cache.untrained:
        console.print(untrained_warning(dataset.cache.untrained))
    if not plan.is_folds:
        console.print(counts_table(plan.splits[0].counts(dataset.labels)))
    if dataset.num_unlabelled:
        console.print(f"{dataset.num_unlabelled:,} unlabelled {settings.media}s are left out")
    if dataset.num_other_kind:
        other = next(kind for kind in KINDS if kind != settings.media)
        console.print(f"{dataset.num_other_kind:,} labelled {other}s are left out (--media {other} trains on them)")
    console.print(groups_line(plan))
    for note in plan.notes:
        console.print(f"split: {escape(note)}")
    show_warnings(console, plan.warnings)
    console.print(
        f"pos_weight {compute_pos_weight(dataset.labels[plan.splits[0].rows('train')], settings):.4f}"
        + (" (given)" if settings.pos_weight is not None else " (safe / harmful, training)")
    )
    if isinstance(features, Stream):
        console.print(f"features ({features.num_bytes / 1e9:.1f} GB) are streamed from the cache (--memory-gb)")
    if dataset.num_thinned:
        console.print(
            f"{dataset.num_thinned:,} of {len(dataset.ids):,} {settings.media}s have more than {settings.max_rows:,} "
            "rows: the head sees so many of them, evenly spaced (--max-rows)"
        )
    width = sum(features.widths)
    told_rows = f"up to {features.num_rows}" if features.lengths.min() < features.num_rows else str(features.num_rows)
    projected = f" to {settings.projection}" if settings.projection else ""
    heads = f"{num_heads(settings.projection or width)} heads, " if settings.num_layers else ""
    console.print(
        f"input (B, {told_rows}, {width}): {' + '.join(dataset.streams)}{projected}, "
        f"{heads}on {device}" + (f" in {precision}" if precision != "fp32" else "") + "\n"
    )


def groups_line(plan: Plan) -> str:
    """Which videos are kept together, and why."""
    grouping = plan.grouping
    told = f"groups: {grouping.count:,} of several videos are kept whole" if grouping.count else "groups: none"
    if "manifest" in grouping.source:
        told += ", as the manifest says" if grouping.source == "manifest" else ", as the manifest says and"
    if "scenes" in grouping.source:
        threshold = grouping.scenes.similarity_threshold
        told += " by their files' bytes" if threshold == 1 else " by near-duplicate scenes in the cache"
        told += "" if threshold == 1 else f" (similarity of at least {threshold:.3f})"
    return told


def show_warnings(console: Console, warnings: Iterable[str]) -> None:
    """What may make the figures too good."""
    for warning in warnings:
        console.print(f"[bold yellow]warning[/]: {escape(warning)}")


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


def fold_line(fold: Fold) -> str:
    """One fold in a line, its figures those of its own videos."""
    figures = [f"{title} {_number('', fold.figures[name])}" for name, title in EXPERIMENT_FIGURES.items()]
    return "  ".join([f"fold {fold.number}", f"epoch {fold.best_epoch}", f"threshold {fold.threshold:.3f}", *figures])


def metrics_table(result: Result) -> Table:
    """The figures at the threshold, with 95 % intervals where a part was not trained on, and the baselines' beside."""
    which = f"{len(result.folds)} folds" if result.folds else f"best epoch {result.best_epoch} of {len(result.epochs)}"
    table = Table(
        title=f"{which}, threshold {result.threshold:.4f} ({escape(result.settings.policy)})",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("", no_wrap=True)
    baselines = {name: parts[result.headline] for name, parts in result.baseline_metrics.items()}
    for part in result.metrics:
        table.add_column("out of fold" if result.folds else part, justify="right", no_wrap=True)
        if part == result.headline:
            table.add_column("95 % of\ndraws", justify="right", no_wrap=True)
    if result.folds:
        table.add_column("of folds\nmean±sd", justify="right", no_wrap=True)
    for name in baselines:
        table.add_column(BASELINE_COLUMNS[name], justify="right", no_wrap=True)
    for name, title in SUMMARY_FIGURES.items():
        cells = []
        for part, figures in result.metrics.items():
            cells.append(_number(name, figures[name]))
            if part == result.headline:
                cells.append(_interval(result.intervals[part][name]))
        if result.folds:
            cells.append(_spread(name, Spread.over([fold.figures[name] for fold in result.folds])))
        cells += [_number(name, figures[name]) for figures in baselines.values()]
        table.add_row(title, *cells)
    return table


def show_end(console: Console, result: Result, verdict: str) -> None:
    """What to make of the figures."""
    console.print(escape(verdict))
    if result.metrics_untouched is not None:
        touched = len(result.plan.leaks.touched(result.headline))
        figures = [
            f"{title} {_number(name, result.metrics_untouched[name])}" for name, title in EXPERIMENT_FIGURES.items()
        ]
        console.print(f"[bold yellow]without the {touched:,} videos that are on two sides[/]: {', '.join(figures)}")
    elif result.plan.leaks.touched(result.headline).size:
        console.print("[bold yellow]every video of this part is on two sides[/]: no figure of it can be believed")
    if result.headline == "val":
        console.print("Validation has chosen epoch and threshold: its figures are too good, and there is no test part.")
    for note in result.threshold_notes:
        console.print(f"threshold: {escape(note)}")
    if result.threshold_interval:
        console.print(f"threshold: other videos of the kind could have chosen {_interval(result.threshold_interval)}")
    if untrained := result.plan.dataset.cache.untrained:
        console.print(untrained_warning(untrained))


def artefacts_table() -> Table:
    """The run's files and what they are."""
    table = Table(box=None, show_header=False, padding=(0, 2))
    for name, meaning in ARTEFACTS.items():
        table.add_row(name, meaning)
    return table


def outcome_line(outcome: Outcome) -> str:
    """Markup: one experiment in a line, its figures those of validation."""
    seed = f"seed {outcome.trial.settings.seed}"
    name = escape(f"{outcome.trial.name} {seed}" if outcome.trial.point else seed)
    if outcome.error:
        return f"{name}   [bold yellow]{escape(outcome.error)}[/]"
    figures = [f"{title} {_number('', outcome.value(f'val.{name}'))}" for name, title in EXPERIMENT_FIGURES.items()]
    return "   ".join([name, f"best epoch {outcome.best_epoch}", *figures, f"{outcome.seconds:.1f} s"])


def experiments_table(outcomes: list[Outcome], part: str) -> Table:
    """Mean ± standard deviation over the seeds, a row a point of the grid; the best by mean F1 on validation marked."""
    columns = {f"{part}.{name}": title for name, title in EXPERIMENT_FIGURES.items()}
    columns |= EXPERIMENT_NUMBERS if part == "val" else {}
    points = by_point(outcomes)
    num_seeds = max(map(len, points.values()))
    table = Table(
        title=f"{SPLIT_TITLES[part].lower()}, "
        + (f"mean±standard deviation of {num_seeds} seeds" if num_seeds > 1 else "one seed"),
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("")
    for title in columns.values():
        table.add_column(title, justify="right", no_wrap=True)
    best = best_point(outcomes) if len(points) > 1 else None
    for point, of_point in points.items():
        num_lost = sum(bool(outcome.error) for outcome in of_point)
        label = ("→ " if point == best else "") + escape(point.replace(",", " "))
        label += f"\n[yellow]({num_lost} diverged)[/]" if num_lost else ""
        cells = [_spread(name, Spread.over([outcome.value(name) for outcome in of_point])) for name in columns]
        table.add_row(label, *cells, style="bold" if point == best else "")
    return table


def _interval(interval: Interval | None) -> str:
    return "undefined" if interval is None else f"{interval[0]:.3f}–{interval[1]:.3f}"


def _spread(name: str, spread: Spread | None) -> str:
    if spread is None:
        return "undefined"
    return _number(name, spread.mean) + ("" if spread.sd is None else f"±{_number(name, spread.sd)}")


def _number(name: str, value: float | None) -> str:
    if value is None:
        return "undefined"
    return f"{value:.1f}" if name == "seconds" else f"{value:.3f}"


def experiment_files_table() -> Table:
    """What several experiments leave behind."""
    table = Table(box=None, show_header=False, padding=(0, 2))
    table.add_row(EXPERIMENTS_FILE, "every experiment's settings and figures, for programs")
    table.add_row(EXPERIMENTS_TABLE, "the same, a row an experiment")
    table.add_row("…/seed-N/", f"a run each: {', '.join(ARTEFACTS)}")
    return table


def comparison_table(compared: list[Compared]) -> Table:
    """A row a run: its figures with their 95 % intervals, and under them the difference to the first."""
    first = compared[0].run
    table = Table(
        title=f"{SPLIT_TITLES[first.part].lower()}, {len(first.ids):,} videos: figures, from the second run on the "
        "difference to the first; in brackets 95 % intervals",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        show_lines=True,
    )
    table.add_column("", overflow="fold")
    for title in EXPERIMENT_FIGURES.values():
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("threshold", justify="right", no_wrap=True)
    for each in compared:
        cells = [_compared_cell(each, compared[0], name) for name in EXPERIMENT_FIGURES]
        table.add_row(escape(str(each.run.path)), *cells, f"{each.run.threshold:.3f}")
    return table


def _compared_cell(each: Compared, first: Compared, name: str) -> str:
    value, base = each.figures[name], first.figures[name]
    lines = [_number(name, value), f"[dim]({_interval(each.intervals[name])})[/]"]
    if each.differences and value is not None and base is not None:
        interval = each.differences[name]
        colour = "dim" if not interval else "green" if interval[0] > 0 else "red" if interval[1] < 0 else "dim"
        told = "undefined" if interval is None else f"{interval[0]:+.3f} to {interval[1]:+.3f}"
        lines += [f"[{colour}]{value - base:+.3f}[/]", f"[{colour}]({told})[/]"]
    return "\n".join(lines)
