"""The progress bar of a stage in the terminal."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich import progress as rich_progress
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from haechi.cache.console import show_notices
from haechi.cache.progress import Progress
from haechi.cache.text import counted

# Ours: a night's log has some thousand lines then.
LINE_SECONDS = 20.0


class _Bar(Progress):
    """A progress bar with the rate, the number of windows of long videos, the time left, and the failures so far."""

    def __init__(self, bar: rich_progress.Progress, console: Console) -> None:
        self._bar, self._console = bar, console
        self._task: TaskID | None = None
        self._num_failed = self._num_windows = 0

    def start(self, total: int, what: str) -> None:
        self._task = self._bar.add_task(what, total=total, rate="", failed="", windows="")
        self._num_failed = self._num_windows = 0

    def advance(self, count: int = 1, *, failed: bool = False) -> None:
        assert self._task is not None
        self._num_failed += count * failed
        self._bar.advance(self._task, count)
        speed = self._bar.tasks[self._task].finished_speed or self._bar.tasks[self._task].speed
        self._bar.update(
            self._task,
            rate=f"{speed:.2f} videos/s" if speed else "",
            failed=f"[red]{self._num_failed} failed" if self._num_failed else "",
        )

    def windows(self, count: int) -> None:
        assert self._task is not None
        self._num_windows += count
        self._bar.update(self._task, windows=counted(self._num_windows, "window"))

    def notice(self, text: str) -> None:
        show_notices(self._console, [text])

    def stopping(self) -> None:
        self._console.show_cursor()  # the bar hid it, and a second Ctrl-C leaves no time to show it again
        self._console.print(
            "[yellow]stopping[/]: finishing the videos that were started; Ctrl-C again quits at once and loses them"
        )


class _Lines(Progress):
    """A line from time to time, for the log of a long run."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def start(self, total: int, what: str) -> None:
        self._total, self._what = total, what
        self._num_done = self._num_failed = 0
        self._started = self._shown = time.monotonic()

    def advance(self, count: int = 1, *, failed: bool = False) -> None:
        self._num_done += count
        self._num_failed += count * failed
        now = time.monotonic()
        if now - self._shown < LINE_SECONDS and self._num_done < self._total:
            return
        self._shown = now
        rate = self._num_done / max(now - self._started, 1e-9)
        failures = f", {self._num_failed} failed" if self._num_failed else ""
        self._console.print(
            f"{self._what}: {self._num_done} of {self._total}{failures}, {rate:.2f} videos/s", soft_wrap=True
        )

    def notice(self, text: str) -> None:
        show_notices(self._console, [text])

    def stopping(self) -> None:
        self._console.print("stopping: finishing the videos that were started", soft_wrap=True)


@contextmanager
def shown_progress(console: Console, *, in_lines: bool = False) -> Iterator[Progress]:
    """Show progress on `console` until this context manager is left; the bar only if that is a terminal.

    `in_lines`: if it is none, a line about every `LINE_SECONDS`.
    """
    if in_lines and not console.is_terminal:
        yield _Lines(console)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[windows]}"),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[failed]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with rich_progress.Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        yield _Bar(bar, console)
