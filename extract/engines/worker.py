"""What a worker does, in its own process: one slice after another, with models that stay loaded."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from haechi.cache.errors import HaechiError
from haechi.cache.progress import Progress
from haechi.cache.stores.location import Location
from haechi.extract.engines.engine import Died, Event, Finished, Job, Refused, Report, Stopped, Task
from haechi.extract.flow import Flow, open_flow
from haechi.extract.interrupt import InterruptedRunError, StopRequest
from haechi.extract.pipeline import Extraction
from haechi.extract.settings import ExtractSettings
from haechi.extract.slices import extract_rows
from haechi.extract.upload import extract_rows_to_store

# joblib's limit of the cores that a process uses: `haechi.extract.backbones.device` asks joblib.
# https://joblib.readthedocs.io/en/stable/generated/joblib.cpu_count.html
CORES_VARIABLE = "LOKY_MAX_CPU_COUNT"


class Worker:
    """Does slices on one device. `stop` and `report` may be called from another thread."""

    def __init__(self, job: Job, *, device: str, cores: int) -> None:
        """`cores`: how many this process may use."""
        os.environ[CORES_VARIABLE] = str(cores)
        self._job, self._settings = job, job.settings.changed(device=device)
        self._opened = _Opened()
        self._outbox = _Outbox()
        self._stop = StopRequest(self._outbox)

    def run(self, task: Task) -> Event:
        """Do a slice. After `Died`, and after an exception, such as an error of the device, the worker must end."""
        from haechi.extract.backbones.pair import DeviceMemoryError  # loads torch: not in the coordinator

        self._outbox.begin(task.part.number)
        try:
            done = self._extract(task)
        except InterruptedRunError:
            return Stopped()
        except DeviceMemoryError as error:
            return Died(why=str(error))
        except HaechiError as error:
            return Refused(kind=type(error), text=str(error))
        return Finished(done=done)

    def _extract(self, task: Task) -> Extraction:
        job = self._job
        how: dict[str, Any] = {
            "num_manifest_rows": job.num_manifest_rows,
            "producer": job.producer,
            "retry": job.retry,
            "progress": self._outbox,
            "opened": self._opened.open_flow,
            "interrupt": self._stop,
        }
        if isinstance(job.out, Location):
            return extract_rows_to_store(task.entries, job.out, self._settings, task.part, work=job.work, **how)
        return extract_rows(task.entries, job.out, self._settings, task.part, **how)

    def close(self) -> None:
        """End the decoding processes."""
        self._opened.close()

    def stop(self) -> None:
        """Ask for an orderly end of the slice."""
        self._stop.ask()

    def report(self) -> Report | None:
        """How far the slice is; None if nothing happened since the last call."""
        return self._outbox.take()


class _Opened:
    """A flow that stays open from slice to slice, so that models are loaded and decoders started once."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._settings: ExtractSettings | None = None

    @contextmanager
    def open_flow(self, settings: ExtractSettings, num_media: int) -> Iterator[Flow]:
        if self._settings != settings:
            self.close()
            self._flow = self._stack.enter_context(open_flow(settings, sys.maxsize))  # later slices may be larger
            self._settings = settings
        yield self._flow.renewed()

    def close(self) -> None:
        self._settings = None
        self._stack.close()


class _Outbox(Progress):
    """Collects the progress of a slice until it is taken."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._notices: list[str] = []
        self.begin(-1)

    def begin(self, number: int) -> None:
        with self._lock:
            self._number = number
            self._num_rows: int | None = None
            self._num_done = self._num_failed = self._num_windows = 0
            self._is_new = False

    def start(self, total: int, what: str) -> None:
        with self._lock:
            self._num_rows, self._is_new = total, True

    def advance(self, count: int = 1, *, failed: bool = False) -> None:
        with self._lock:
            self._num_done += count
            self._num_failed += count * failed
            self._is_new = True

    def windows(self, count: int) -> None:
        with self._lock:
            self._num_windows += count
            self._is_new = True

    def notice(self, text: str) -> None:
        with self._lock:
            self._notices.append(text)
            self._is_new = True

    def take(self) -> Report | None:
        with self._lock:
            if not self._is_new:
                return None
            report = Report(
                number=self._number,
                num_rows=self._num_rows,
                num_done=self._num_done,
                num_failed=self._num_failed,
                num_windows=self._num_windows,
                notices=tuple(self._notices),
            )
            self._num_windows, self._is_new = 0, False
            self._notices.clear()
            return report
