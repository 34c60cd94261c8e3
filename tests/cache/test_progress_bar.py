"""Progress in a log, where there is no terminal."""

import io

import pytest
from rich.console import Console

from haechi.cache import progress_bar
from haechi.cache.progress_bar import shown_progress


def test_lines_in_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """One from time to time, and one at the end; notices at once."""
    now = 100.0
    monkeypatch.setattr(progress_bar.time, "monotonic", lambda: now)
    console = Console(file=io.StringIO(), width=40)
    with shown_progress(console, in_lines=True) as progress:
        progress.start(100, "extract on 2 devices")
        for _ in range(99):
            now += 1
            progress.advance(failed=now == 101)
        progress.notice("cpu (1): [its] process was ended by SIGKILL; slice 3/8 is handed out again")
        progress.stopping()
        progress.advance()
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().splitlines() == [
        "extract on 2 devices: 20 of 100, 1 failed, 1.00 videos/s",
        "extract on 2 devices: 40 of 100, 1 failed, 1.00 videos/s",
        "extract on 2 devices: 60 of 100, 1 failed, 1.00 videos/s",
        "extract on 2 devices: 80 of 100, 1 failed, 1.00 videos/s",
        "note: cpu (1): [its] process was ended by SIGKILL; slice 3/8 is handed out again",
        "stopping: finishing the videos that were started",
        "extract on 2 devices: 100 of 100, 1 failed, 1.01 videos/s",
    ]


def test_nothing_but_notices_without_lines() -> None:
    console = Console(file=io.StringIO(), width=40)
    with shown_progress(console) as progress:
        progress.start(1, "extract on cpu")
        progress.advance()
        progress.notice("a sentence")
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().strip() == "note: a sentence"
