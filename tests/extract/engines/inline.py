"""An engine without processes: its workers do their slices in turn, in this process, and fail as a test wants it."""

from collections import Counter
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from haechi.extract.engines.engine import Died, Event, Job, Task
from haechi.extract.engines.worker import Worker

Ending = Event | Callable[[], None]
"""What happens instead of an attempt, or before it."""


class Inline:
    """`endings`: (slice, attempt from 0) -> what happens in it."""

    def __init__(self, num_workers: int, endings: Mapping[tuple[int, int], Ending] | None = None) -> None:
        self.name, self.does_copies = "inline workers", False
        self.workers = [f"worker {number}" for number in range(num_workers)]
        self._endings = endings or {}
        self._attempts = Counter[int]()
        self._given: list[tuple[int, Task]] = []
        self._jobs: dict[int, Worker] = {}
        self._killed: list[int] = []
        self.num_starts = 0
        self.order: list[int] = []
        """The slices in the order in which they were begun."""
        self.stopped: list[int] = []
        """The workers that were asked to stop, or were killed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._given.clear()

    def start(self, worker: int, job: Job) -> None:
        self.num_starts += 1
        self._jobs[worker] = Worker(job, device="cpu", cores=1)

    def give(self, worker: int, task: Task) -> None:
        self._given.append((worker, task))
        self.order.append(task.part.number)

    def stop(self, worker: int) -> None:
        self.stopped.append(worker)
        self._jobs[worker].stop()

    def kill(self, worker: int) -> None:
        self.stopped.append(worker)
        self._given = [(given, task) for given, task in self._given if given != worker]
        self._killed.append(worker)

    def events(self, seconds: float) -> list[tuple[int, Event]]:
        if self._killed:
            return [(self._killed.pop(), Died(why="killed"))]
        if not self._given:
            return []
        worker, task = self._given.pop(0)
        number = task.part.number
        ending = self._endings.get((number, self._attempts[number]))
        self._attempts[number] += 1
        if callable(ending):
            ending()
        elif ending is not None:
            return [(worker, ending)]
        event = self._jobs[worker].run(task)
        report = self._jobs[worker].report()
        return [(worker, each) for each in (report, event) if each is not None]
