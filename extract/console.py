"""What stage 1 prints: a bar while it works, a table when it is done."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as Remaining
from rich.table import Table

from haechi.extract.pipeline import Extraction
from haechi.extract.timing import IN_DECODERS, STEPS, WAIT

# Share of the time that the backbones wait for frames, above which decoding is what bounds a run.
MUCH_WAITING = 0.1


class Bar:
    """A progress bar with videos a second, windows of long ones, time left, and failures so far."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None
        self._num_failed = self._num_windows = 0

    def start(self, total: int, what: str) -> None:
        """Show the bar; without this call nothing is shown."""
        self._task = self._progress.add_task(what, total=total, rate="", failed="", windows="")

    def add_windows(self, num_windows: int) -> None:
        """So many more windows of long videos are done: tells that it moves."""
        assert self._task is not None
        self._num_windows += num_windows
        self._progress.update(self._task, windows=f"{self._num_windows:,} windows")

    def advance(self, *, failed: bool) -> None:
        assert self._task is not None
        self._num_failed += failed
        self._progress.advance(self._task)
        speed = self._progress.tasks[self._task].finished_speed or self._progress.tasks[self._task].speed
        self._progress.update(
            self._task,
            rate=f"{speed:.2f} videos/s" if speed else "",
            failed=f"[red]{self._num_failed} failed" if self._num_failed else "",
        )


@contextmanager
def progress_bar(console: Console) -> Iterator[Bar]:
    """A bar on `console`; silent where that is no terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[windows]}"),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[failed]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        Remaining(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield Bar(progress)


def show_extraction(console: Console, done: Extraction) -> None:
    """The summary of a run."""
    table = _table("extract")
    _accounting(table, num_rows=done.num_rows, num_used=done.num_used, failures=done.failures)
    table.add_row("done in this run", f"{done.num_new}" if done.num_new else "0, all was in the cache; no model loaded")
    for count, what in (
        (done.num_changed, "files changed since, extracted anew"),
        (done.num_relabelled, "labels, splits or groups brought up to date"),
        (done.num_not_listed, "in the cache, not in the manifest (kept)"),
    ):
        if count:
            table.add_row(what, str(count))
    if done.device:
        table.add_row("device", escape(f"{done.device}, {done.precision}"))
    rate = f", {done.num_new / done.seconds:.2f} videos/s with start-up" if done.num_new else ""
    table.add_row("time", f"{done.seconds:.1f} s{rate}")
    table.add_row("fingerprint", done.fingerprint[:12])
    table.add_row("cache", escape(str(done.cache)))
    console.print(table)
    if done.num_new:
        console.print(_steps_table(done), "")
    if done.untrained:
        names = " and ".join(done.untrained)
        console.print(f"[bold red]UNTRAINED[/]: the weights of {names} are random; the features mean nothing yet.")


def show_interrupt(console: Console) -> None:
    """What Ctrl-C does, once it is heard."""
    console.show_cursor()  # the progress bar hid it, and a second Ctrl-C leaves no time
    console.print("[yellow]stopping[/]: finishing what is begun; Ctrl-C again leaves at once, and loses that")


def _steps_table(done: Extraction) -> Table:
    """What each step took, and what bounds the run."""
    waited = done.steps[WAIT] / done.work_seconds
    bound = "decoding" if waited > MUCH_WAITING else "the backbones"
    processes = f"{done.workers} decoding process{'es' if done.workers > 1 else ''}"
    table = Table(
        title=f"{done.work_seconds:.1f} s of work after start-up, bound by {bound}",
        title_justify="left",
        title_style="",
        box=None,
        pad_edge=False,
    )
    for name in ("step", "seconds", "busy", ""):
        table.add_column(name, justify="right" if name in {"seconds", "busy"} else "left")
    for step, seconds in done.steps.items():
        in_decoders = step in IN_DECODERS
        busy = seconds / (done.work_seconds * (done.workers if in_decoders else 1))
        meaning = STEPS[step] + (f" ({processes})" if in_decoders else "")
        table.add_row(step, f"{seconds:.1f}", f"{busy:.0%}", f"[dim]{meaning}")
    return table


def show_check(console: Console, out: object, *, num_rows: int, failures: dict[str, int]) -> None:
    """The summary of `haechi validate`."""
    table = _table("validate")
    _accounting(table, num_rows=num_rows, num_used=num_rows - sum(failures.values()), failures=failures)
    table.add_row("written", escape(str(out)))
    console.print(table)


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    return table


def _accounting(table: Table, *, num_rows: int, num_used: int, failures: dict[str, int]) -> None:
    num_failed = sum(failures.values())
    table.add_row("rows", f"{num_rows} in the manifest = {num_used} used + {num_failed} failed")
    for reason, count in failures.items():
        table.add_row(f"  [red]{reason}[/]", str(count))
