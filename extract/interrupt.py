"""Ctrl-C and SIGTERM: the first asks for an orderly end, the second ends at once."""

import signal
import threading
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """Hears both from `listen` until this context manager is left; outside the main thread it hears nothing."""

    def __init__(self) -> None:
        self.is_asked = False
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> "Interrupt":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def listen(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in SIGNALS}

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.is_asked = True
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)  # the kernel needs no Python for it, busy as that may be
