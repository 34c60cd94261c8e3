"""What the terminal shows of a run's progress, on a console that takes itself for a terminal."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from haechi.train.api import train_head, train_heads
from haechi.train.output.console import TerminalProgress
from tests import synthetic

QUICK = {"preset": "model4", "epochs": 2, "feedforward": 32, "device": "cpu"}


def screen(*, is_terminal: bool) -> tuple[io.StringIO, Console]:
    text = io.StringIO()
    return text, Console(file=text, force_terminal=is_terminal, width=100, highlight=False, color_system=None)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_bar_names_each_head_and_only_a_terminal_gets_it(tmp_path: Path, is_terminal: bool) -> None:
    cache, (text, console) = synthetic.write_cache(tmp_path / "cache"), screen(is_terminal=is_terminal)
    with TerminalProgress(console) as progress:
        train_head(cache, tmp_path / "run", **QUICK, folds=2, progress=progress)
    shown = text.getvalue()
    assert progress.untrained == ["clip", "slowfast"]
    for title in ("fold 1 of 2", "fold 2 of 2", "on all videos"):
        assert (title in shown) == is_terminal
    assert ("videos/s" in shown) == is_terminal
    for line in ("fold 1  epoch ", "fold 2  epoch "):
        assert shown.count(line) == 1
    assert "training loss" not in shown  # the table of an epoch is for a single split


def test_each_of_several_experiments_is_a_line_and_the_start_is_shown_once(tmp_path: Path) -> None:
    cache, (text, console) = synthetic.write_cache(tmp_path / "cache"), screen(is_terminal=True)
    with TerminalProgress(console) as progress:
        train_heads(cache, tmp_path / "out", **QUICK, folds=0, seeds=2, progress=progress)
    shown = text.getvalue()
    assert "1 of 2, training" in shown
    assert "2 of 2, training" in shown
    assert shown.count("pos_weight") == 1
    assert shown.count("seed 0   best epoch") == shown.count("seed 1   best epoch") == 1
    assert "training loss" not in shown


def test_an_early_stop_is_shown(tmp_path: Path) -> None:
    cache, (text, console) = synthetic.write_cache(tmp_path / "cache", shift=0.0), screen(is_terminal=False)
    with TerminalProgress(console) as progress:
        settings = {**QUICK, "epochs": 50, "patience": 2}
        result = train_head(cache, tmp_path / "run", **settings, folds=0, progress=progress)
    assert len(result.epochs) < 50
    assert text.getvalue().count("training loss") == len(result.epochs)
    assert text.getvalue().endswith("stopped after 2 epochs without improvement\n\n")
