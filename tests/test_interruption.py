"""Ctrl-C is not lost, wherever it arrives."""

import signal
import sys
import time
from collections.abc import Iterator

import pytest

from haechi import interruption


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "unraisablehook", interruption.raise_again)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class _Raises:
    def __init__(self, error: type[BaseException]) -> None:
        self._error = error

    def __del__(self) -> None:
        raise self._error


@pytest.mark.usefixtures("hook")
def test_ctrl_c_in_a_destructor_is_raised_again(capfd: pytest.CaptureFixture[str]) -> None:
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 (it comes later)
        _Raises(KeyboardInterrupt)
        time.sleep(10)
    assert time.monotonic() - started < 5
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("hook")
def test_other_errors_are_shown(capfd: pytest.CaptureFixture[str]) -> None:
    _Raises(ZeroDivisionError)
    assert "ZeroDivisionError" in capfd.readouterr().err
