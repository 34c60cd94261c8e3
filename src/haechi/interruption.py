"""Ctrl-C in places where Python cannot raise it, such as the callback of a weak reference."""

import signal
import sys
import threading
from typing import Any

# The callback is over by then.
AGAIN_SECONDS = 0.02


def raise_again(unraisable: Any) -> None:
    """A hook for `sys.unraisablehook`: raises a lost `KeyboardInterrupt` again, a moment later, in the main thread.

    Python would print a traceback, and go on as if nobody had pressed Ctrl-C.
    """
    if unraisable.exc_type is KeyboardInterrupt:
        main = threading.main_thread()
        assert main.ident is not None
        threading.Timer(AGAIN_SECONDS, signal.pthread_kill, (main.ident, signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(unraisable)
