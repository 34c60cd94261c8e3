"""Repeats requests that may succeed later, with growing pauses."""

import random
import threading
from collections.abc import Callable
from typing import TypeVar

from haechi.cache.stores.errors import StoreError

T = TypeVar("T")

# About 30 s together. Half to all of each is waited, so that threads that failed together do not come back together.
PAUSES_SECONDS = (0.25, 0.5, 1, 2, 4, 8, 15)


class StoppedError(Exception):
    """The run ends; nobody waits for the result."""


class Retry:
    """Decides after each failure whether to try again, and waits."""

    def __init__(self, stopped: threading.Event) -> None:
        self._stopped, self._num_failed = stopped, 0

    def after(self, error: StoreError) -> None:
        """Wait before the next try. Raises `error` if it is final or was the last one, `StoppedError` if asked to."""
        if not error.is_temporary or self._num_failed == len(PAUSES_SECONDS):
            raise error
        seconds = PAUSES_SECONDS[self._num_failed] * random.uniform(0.5, 1)  # noqa: S311 (no secret)
        self._num_failed += 1
        if self._stopped.wait(seconds):
            raise StoppedError

    def progressed(self) -> None:
        """Something arrived: the next failure is the first one again."""
        self._num_failed = 0


def retried(request: Callable[[], T], stopped: threading.Event) -> T:
    """The result of a request. Raises the `StoreError` of the last try, or `StoppedError`."""
    retry = Retry(stopped)
    while True:
        try:
            return request()
        except StoreError as error:
            retry.after(error)
