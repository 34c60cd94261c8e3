"""What training shows on the terminal."""

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

from haechi.cache.console import make_console, show_notices
from haechi.cache.kinds import KINDS
from haechi.cache.schema import HARMFUL, LABEL_NAMES, SAFE
from haechi.cache.text import counted
from haechi.device import find_device
from haechi.train.data.stream import Stream
from haechi.train.device import find_precision
from haechi.train.evaluate import metrics
from haechi.train.evaluate.metrics import Figures
from haechi.train.evaluate.requirement import Verdict
from haechi.train.evaluate.threshold import Threshold, chosen_row
from haechi.train.grid import Trial
from haechi.train.model.fit import DivergedError, Epoch
from haechi.train.model.head import num_heads
from haechi.train.model.loss import compute_pos_weight
from haechi.train.output.experiments import Outcome, Spread, best_point, by_point
from haechi.train.output.numbers import interval, number
from haechi.train.output.titles import BASELINE_TITLES, SPLIT_TITLES
from haechi.train.output.untrained import untrained_warning
from haechi.train.output.verdict import NOTE, Finding
from haechi.train.plan import Plan
from haechi.train.progress import TrainProgress
from haechi.train.result import Fold, Result
from haechi.train.run_folder import ARTEFACTS, EXPERIMENTS_FILE, EXPERIMENTS_TABLE
from haechi.train.untrained import of_all_heads

# Numbers of an experiment that are not metrics, in the table of several (see `Outcome.value`).
EXPERIMENT_NUMBERS = ("threshold", "seconds")


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
        self._untrained: list[list[str]] = []

    @property
    def untrained(self) -> list[str]:
        """Backbones with random weights that a head of the plans so far sees."""
        return of_all_heads(self._untrained)

    def __enter__(self) -> "TerminalProgress":
        return self

    def __exit__(self, *_: object) -> None:
        self._remove_bar()

    def notice(self, text: str) -> None:
        show_notices(make_console(stderr=True), [text])

    def trial(self, trial: Trial, number: int, total: int) -> None:
        self._trial, self._prefix = trial, f"{number} of {total}, "

    def plan(self, plan: Plan) -> None:
        if self._plan is None:
            show_start(self._console, plan)
        else:
            show_warnings(self._console, [text for text in plan.warnings if text not in self._warnings])
        self._plan = plan
        self._untrained.append(plan.dataset.untrained)
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
            self._console.print(f"stopped after {counted(result.settings.patience, 'epoch')} without improvement\n")

    def diverged(self, error: DivergedError) -> None:
        assert self._trial is not None
        self._remove_bar()
        self._console.print(outcome_line(Outcome.failed(self._trial, str(error))), soft_wrap=True)

    def _remove_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def show_start(console: Console, plan: Plan) -> None:
    """Show what is known before the first epoch: groups, split, warnings, input of the head."""
    settings, dataset = plan.settings, plan.dataset
    features, device = dataset.features, find_device(settings.device)
    precision = find_precision(settings, device)
    if dataset.untrained:
        console.print(untrained_warning(dataset.untrained))
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
            "rows: the head sees that many of them, evenly spaced (--max-rows)"
        )
    width = sum(features.widths)
    rows_text = f"up to {features.num_rows}" if features.lengths.min() < features.num_rows else str(features.num_rows)
    projected = f" to {settings.projection}" if settings.projection else ""
    has_encoder = settings.network and settings.num_layers
    heads = f"{num_heads(settings.projection or width)} heads, " if has_encoder else ""
    console.print(
        f"input (B, {rows_text}, {width}): {' + '.join(dataset.streams)}{projected}, "
        f"{heads}on {device}" + (f" in {precision}" if precision != "fp32" else "") + "\n"
    )


def groups_line(plan: Plan) -> str:
    """How many groups of videos are kept in one part of the split, and where the groups come from."""
    grouping = plan.grouping
    if not grouping.count:
        return "groups: none"
    threshold = grouping.scenes.similarity_threshold
    scenes = "equal files" if threshold == 1 else f"near-duplicate scenes (similarity of at least {threshold:.3f})"
    sources = {"manifest": "the manifest", "group_by": "the ids (group_by)", "scenes": scenes}
    text = " and ".join(title for source, title in sources.items() if source in grouping.source)
    return f"groups: {counted(grouping.count, 'group')} from {text}; all videos of a group are in the same part"


def show_warnings(console: Console, warnings: Iterable[str]) -> None:
    """Show why the metrics may be too good."""
    for warning in warnings:
        console.print(f"[bold yellow]warning[/]: {escape(warning)}")


def counts_table(counts: dict[str, dict[str, int]]) -> Table:
    """Number of labelled videos in each part of the split."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("videos")
    for label in (HARMFUL, SAFE):
        table.add_column(LABEL_NAMES[label], justify="right")
    for part, by_label in counts.items():
        table.add_row(SPLIT_TITLES[part].lower(), *(f"{count:,}" for count in by_label.values()))
    return table


def epoch_table(epoch: Epoch, *, num_epochs: int) -> Table:
    """The nine thresholds of the report, the best one marked, and below them the exact best threshold."""
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
    """One line about a fold, with the metrics of its test videos."""
    start = [f"fold {fold.number}", f"epoch {fold.best_epoch}", f"threshold {fold.threshold:.3f}"]
    return "  ".join([*start, *_metric_texts(fold.figures)])


def metrics_table(result: Result) -> Table:
    """Metrics of each part at the threshold, the 95 % intervals of the headline part, and the baselines' metrics."""
    best = f"best epoch {result.best_epoch} of {result.epochs[-1].number}, " if result.epochs else ""
    which = f"{len(result.folds)} folds, " if result.folds else best if result.settings.network else ""
    table = Table(
        title=f"{which}{result.head.description}, threshold {result.threshold:.4f} ({escape(result.settings.policy)})",
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
            table.add_column("95 %\ninterval", justify="right", no_wrap=True)
    if result.folds:
        table.add_column("folds,\nmean±sd", justify="right", no_wrap=True)
    for name in baselines:
        table.add_column(BASELINE_TITLES[name].replace(" ", "\n"), justify="right", no_wrap=True)
    for metric in metrics.METRICS:
        name, cells = metric.name, []
        for part, figures in result.metrics.items():
            cells.append(number(name, figures[name]))
            if part == result.headline:
                cells.append(interval(result.intervals[part][name]))
        if result.folds:
            cells.append(_spread(name, Spread.over([fold.figures[name] for fold in result.folds])))
        cells += [number(name, figures[name]) for figures in baselines.values()]
        table.add_row(metric.title, *cells)
    return table


def show_findings(console: Console, findings: list[Finding]) -> None:
    """Show how the head compares with the baselines; a warning is marked."""
    for finding in findings:
        style = "bold red" if finding.is_warning else "bold"
        console.print(f"[{style}]{escape(finding.claim)}[/]: {escape(finding.details)}")
    console.print(f"{NOTE}\n")


def show_verdicts(console: Console, verdicts: list[Verdict]) -> None:
    """Show whether each requirement is met."""
    for verdict in verdicts:
        style = "bold green" if verdict.met else "bold red"
        console.print(f"[{style}]{'met' if verdict.met else 'NOT MET'}[/]  {escape(verdict.sentence)}", soft_wrap=True)


def show_end(console: Console, result: Result) -> None:
    """Show how far the metrics and the threshold can be trusted."""
    leaked = len(result.plan.leaks.touched(result.headline))
    if result.metrics_without_leaks is not None:
        texts = ", ".join(_metric_texts(result.metrics_without_leaks))
        console.print(f"[bold yellow]without the {counted(leaked, 'video')} also in another part[/]: {texts}")
    elif leaked:
        console.print("[bold yellow]every video of this part is also in another part[/]: its metrics are meaningless")
    if result.headline == "val":
        console.print(
            "There is no test part. Epoch and threshold were chosen on validation, so its metrics are too good."
        )
    threshold = result.chosen_threshold
    for note in threshold.notes:
        console.print(f"threshold: {escape(note)}")
    if threshold.interval:
        console.print(f"threshold: 95 % bootstrap interval {interval(threshold.interval)}")
    if untrained := result.plan.dataset.untrained:
        console.print(untrained_warning(untrained))


def artefacts_table() -> Table:
    """The files of a run and their meaning."""
    table = Table(box=None, show_header=False, padding=(0, 2))
    for name, meaning in ARTEFACTS.items():
        table.add_row(name, meaning)
    return table


def outcome_line(outcome: Outcome) -> str:
    """One line about an experiment, as markup, with its metrics on validation."""
    seed = f"seed {outcome.trial.settings.seed}"
    name = escape(f"{outcome.trial.name} {seed}" if outcome.trial.point else seed)
    if outcome.error:
        return f"{name}   [bold yellow]{escape(outcome.error)}[/]"
    texts = [f"best epoch {outcome.best_epoch}", *_metric_texts(outcome.figures["val"]), f"{outcome.seconds:.1f} s"]
    texts += [f"[bold red]{outcome.warning}[/]"] if outcome.warning else []
    return "   ".join([name, *texts])


def experiments_table(outcomes: list[Outcome], part: str) -> Table:
    """Mean ± standard deviation over the seeds, one row for each point of the grid.

    The point with the best mean F1 on validation is marked.
    """
    columns = {f"{part}.{metric.name}": metric.column for metric in metrics.comparison_metrics()}
    columns |= {name: name for name in EXPERIMENT_NUMBERS} if part == "val" else {}
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
    for point, trials in points.items():
        num_diverged = sum(bool(outcome.error) for outcome in trials)
        label = ("→ " if point == best else "") + escape(point.replace(",", " "))
        label += f"\n[yellow]({num_diverged} diverged)[/]" if num_diverged else ""
        cells = [_spread(name, Spread.over([outcome.value(name) for outcome in trials])) for name in columns]
        table.add_row(label, *cells, style="bold" if point == best else "")
    return table


def _metric_texts(figures: Figures) -> list[str]:
    """The metrics of tables that compare runs, each as in `F1 0.912`."""
    return [f"{metric.column} {number(metric.name, figures[metric.name])}" for metric in metrics.comparison_metrics()]


def _spread(name: str, spread: Spread | None) -> str:
    if spread is None:
        return "undefined"
    return number(name, spread.mean) + ("" if spread.sd is None else f"±{number(name, spread.sd)}")


def experiment_files_table() -> Table:
    """The files of several experiments and their meaning."""
    table = Table(box=None, show_header=False, padding=(0, 2))
    table.add_row(EXPERIMENTS_FILE, "settings and metrics of every experiment, for programs")
    table.add_row(EXPERIMENTS_TABLE, "the same as a table, one row for each experiment")
    table.add_row("…/seed-N/", f"one run each: {', '.join(ARTEFACTS)}")
    return table
