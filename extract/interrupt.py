"""Ctrl-C and SIGTERM: the first asks for an orderly end, the second ends the process at once."""

import signal
import threading
from types import FrameType, TracebackType

from haechi.cache.errors import HaechiError
from haechi.cache.progress import Progress

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class InterruptedRunError(HaechiError):
    """Ctrl-C: what was finished is kept."""


class Interrupt:
    """Handles both signals from `listen` until this context manager is left. Outside the main thread it does nothing.

    `progress.stopping` is called when `poll` sees the first signal.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._is_asked = False
        self.is_stopping = False
        """Whether `poll` has returned True."""
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> "Interrupt":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def listen(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._ask) for number in SIGNALS}

    def poll(self) -> bool:
        """Whether the run was asked to stop."""
        if self._is_asked and not self.is_stopping:
            self.is_stopping = True
            self._progress.stopping()
        return self.is_stopping

    def ask(self) -> None:
        """Ask the run to stop, from any thread."""
        self._is_asked = True

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.ask()
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)  # the kernel handles the second one, even while Python is busy


class StopRequest(Interrupt):
    """A stop that another thread asks for: signals keep their meaning."""

    def listen(self) -> None:
        pass
