"""The engine of a cluster: Ray actors, one for each GPU.

Only tasks (the ids, paths and labels of a slice's rows), counts and settings cross Ray. Actors are not restarted by Ray
and their calls are not repeated by it: the coordinator hands a slice out again, and this engine makes a new actor.
"""

import logging
import os
import platform
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import ray
from ray.exceptions import RayError, RayTaskError

import haechi
from haechi.cache.child_process import end_with_parent
from haechi.cache.errors import HaechiError, SettingsError
from haechi.cache.text import bullet_list, counted
from haechi.extract import pipeline
from haechi.extract.engines.devices import ALL, CPU, MAX_PROCESSES, num_processes
from haechi.extract.engines.engine import Died, Event, Job, Notice, Refused, Report, Task
from haechi.extract.engines.worker import Worker

# How long a call that asks how far an actor is waits for news.
REPORT_SECONDS = 1.0

# If the cluster has no place for an actor for this time, a notice says so.
PATIENCE_SECONDS = 60.0

CONNECT_SECONDS = 10.0

NODE = "ray.io/node-id"  # a label that Ray gives each node


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an actor runs, and what it has there."""

    node: str
    """Ray's id of the node."""
    host: str
    versions: Mapping[str, str]


class Actor:
    """A worker, in a process of its own on some node."""

    def __init__(self, job: Job, device: str, cores: int) -> None:
        # Its decoding processes would import Ray's main module first, and with it all of Ray.
        vars(sys.modules["__main__"]).pop("__file__", None)
        end_with_parent(os.getppid())  # Ray's process for the node; without it, the actor would finish its slice
        self._worker = Worker(job, device=device, cores=cores)

    def place(self) -> Place:
        """Where it is."""
        node = ray.get_runtime_context().get_node_id()
        return Place(node=node, host=platform.node(), versions=versions())

    def run(self, task: Task) -> tuple[Event, Report | None]:
        """Do a slice. Returns how it ended, with the last report."""
        event = self._worker.run(task)
        return event, self._worker.report()

    def report(self) -> Report | None:
        """How far the slice is; None if nothing happened for some time."""
        until = time.monotonic() + REPORT_SECONDS
        time.sleep(REPORT_SECONDS / 4)
        while (report := self._worker.report()) is None and time.monotonic() < until:
            time.sleep(REPORT_SECONDS / 10)
        return report

    def stop(self) -> None:
        """Ask for an orderly end of the slice."""
        self._worker.stop()


@dataclass(kw_only=True)
class _Running:
    """An actor, and the calls of it that are not answered."""

    actor: Any
    place: Any
    """The call of `place`; None after it was answered."""
    task: Task | None = None
    """The slice that it gets when its place is known to be good."""
    run: Any = None
    report: Any = None
    since: float = 0.0
    """When it was made."""
    is_late: bool = False
    """Whether the user was told that it has no place."""


class Actors:
    """One actor for each GPU of a Ray cluster, or on its CPUs."""

    does_copies = True

    def __init__(self, *, address: str, devices: str | None) -> None:
        """`devices`: `all` GPUs, or `cpu:N`; None: the GPUs, or one actor on the CPUs of each node if there are none.

        Raises `SettingsError` for other devices.
        """
        if devices not in (None, ALL) and num_processes(devices) is None:
            raise SettingsError(
                [f"--devices {devices}: on a cluster, expected {ALL}, or cpu:N for N processes on CPUs"]
            )
        self._address, self._devices = address, devices
        self.name, self.workers = "a cluster", list[str]()
        self._running: dict[int, _Running] = {}
        self._refused: dict[str, str] = {}  # node -> why none of its actors is used

    def __enter__(self) -> Self:
        self._was_connected = ray.is_initialized()
        if not self._was_connected:
            connect(self._address)
        try:
            self._cores, self._options, number = self._layout(_nodes())
        except HaechiError:
            self.__exit__(None, None, None)
            raise
        self._device = "cuda" if self._options["num_gpus"] else CPU
        self.workers = [f"worker {index + 1}" for index in range(number)]
        self.name = counted(number, "worker") + " of a cluster"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for running in self._running.values():
            ray.kill(running.actor)
        self._running.clear()
        if not self._was_connected:
            ray.shutdown()

    def _layout(self, nodes: Sequence[Mapping[str, float]]) -> tuple[int, dict[str, Any], int]:
        """Cores of each actor, what it requires of a node, and the number of actors."""
        gpus = [(int(node["GPU"]), int(node.get("CPU", 0))) for node in nodes if node.get("GPU", 0) >= 1]
        cpus = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1]
        wanted = num_processes(self._devices or "")
        if wanted is None and gpus:
            cores = max(1, min(num_cpus // num_gpus for num_gpus, num_cpus in gpus))
            return cores, {"num_gpus": 1, "num_cpus": cores}, sum(number for number, _ in gpus)
        if self._devices == ALL:
            raise HaechiError(f"--devices {ALL}: no node of the Ray cluster has a GPU; use --devices cpu:N")
        if not cpus:
            raise HaechiError("no node of the Ray cluster has a CPU or GPU to work on; start one with `ray start`")
        number = wanted or len(cpus)
        if number > MAX_PROCESSES * len(cpus):
            raise SettingsError([f"--devices cpu:{number}: expected at most {MAX_PROCESSES} for each node"])
        # More actors than cores share them: what Ray counts as a CPU is a place for an actor.
        place = min(1.0, sum(cpus) / number)
        return (
            max(1, sum(cpus) // number),
            {"num_gpus": 0, "num_cpus": int(place) or round(place, 4), "scheduling_strategy": "SPREAD"},
            number,
        )

    def start(self, worker: int, job: Job) -> None:
        out = job.out.absolute() if isinstance(job.out, Path) else job.out  # an actor has another current folder
        self._job = replace(job, out=out)
        self._make(worker)

    def _make(self, worker: int) -> None:
        options = dict(self._options)
        if self._refused:
            options["label_selector"] = {NODE: f"!in({','.join(self._refused)})"}
        made = ray.remote(concurrency_groups={"control": 2}, max_restarts=0, max_task_retries=0, **options)(Actor)
        actor = made.remote(self._job, self._device, self._cores)
        self._running[worker] = _Running(actor=actor, place=actor.place.remote(), since=time.monotonic())

    def give(self, worker: int, task: Task) -> None:
        running = self._running[worker]
        if running.place is not None:
            running.task = task
            return
        running.run = running.actor.run.remote(task)
        self._ask(running)

    def _ask(self, running: _Running) -> None:
        running.report = running.actor.report.options(concurrency_group="control").remote()

    def stop(self, worker: int) -> None:
        if worker in self._running:
            self._running[worker].actor.stop.options(concurrency_group="control").remote()

    def kill(self, worker: int) -> None:
        if worker in self._running:
            ray.kill(self._running[worker].actor)

    def events(self, seconds: float) -> list[tuple[int, Event]]:
        calls: dict[Any, int] = {}
        for worker, running in self._running.items():
            calls |= {call: worker for call in (running.place, running.run, running.report) if call is not None}
        if not calls:
            time.sleep(seconds)
            return []
        ready, _ = ray.wait(list(calls), num_returns=1, timeout=seconds)
        if ready:
            ready, _ = ray.wait(list(calls), num_returns=len(calls), timeout=0)
        found: list[tuple[int, Event]] = []
        for call in ready:
            worker = calls[call]
            found += [(worker, event) for event in self._answer(worker, call)]
        found += self._waits()
        return found

    def _answer(self, worker: int, call: Any) -> Iterator[Event]:
        running = self._running.get(worker)
        if running is None or call not in (running.place, running.run, running.report):
            return  # its actor died
        try:
            answer = ray.get(call)
        except RayTaskError as error:  # our code raised it: an error of the device, or a defect
            yield self._lost(worker, died_of(error))
            return
        except RayError as error:
            yield self._lost(worker, _ending(error))
            return
        if call == running.place:
            yield from self._placed(worker, running, answer)
        elif call == running.run:
            running.run = running.report = None
            event, report = answer
            if report is not None:
                yield report
            yield self._lost(worker, event.why) if isinstance(event, Died) else event
        else:
            running.report = None
            if answer is not None:
                yield answer
            if running.run is not None:
                self._ask(running)

    def _placed(self, worker: int, running: _Running, place: Place) -> Iterator[Event]:
        """Give the actor its slice if its node has our versions; else look for another node."""
        running.place = None
        differences = _differences(place)
        if not differences:
            self.workers[worker] = f"{place.host}, worker {worker + 1}"
            if running.task is not None:
                task, running.task = running.task, None
                self.give(worker, task)
            return
        if place.node not in self._refused:
            self._refused[place.node] = f"{place.host}: {differences}"
            text = f"node {self._refused[place.node]}; it is not used"
            yield Notice(text=text)
        ray.kill(running.actor)
        resource = "GPU" if self._options["num_gpus"] else "CPU"
        nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get(resource)]
        if all(node in self._refused for node in nodes):
            reasons = bullet_list(list(self._refused.values()))
            del self._running[worker]
            yield Refused(
                kind=HaechiError, text=f"no node has the versions of this command; install the same:\n{reasons}"
            )
            return
        self._make(worker)
        self._running[worker].task = running.task

    def _waits(self) -> Iterator[tuple[int, Event]]:
        """Say once of each actor that the cluster has no place for it."""
        for worker, running in self._running.items():
            if (
                running.place is not None
                and not running.is_late
                and time.monotonic() - running.since > PATIENCE_SECONDS
            ):
                running.is_late = True
                needs = f"{self._options['num_cpus']} CPUs" + (" and a GPU" if self._options["num_gpus"] else "")
                text = f"the cluster has had no place with {needs} for {PATIENCE_SECONDS:.0f} s; still waiting"
                yield worker, Notice(text=text)

    def _lost(self, worker: int, why: str) -> Died:
        """Forget an actor that died, or that must not be used again."""
        ray.kill(self._running.pop(worker).actor)
        return Died(why=why)


def connect(address: str) -> None:
    """Connect to a Ray cluster. Raises `HaechiError` in words: no cluster there, or one of another version."""
    if address.startswith("ray://"):
        raise HaechiError(
            f"--address {address}: Ray Client is not supported; run this command on a node of the cluster, or with "
            "`ray job submit`"
        )
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal():  # where nobody answers, Ray itself would wait for minutes
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise HaechiError(
                f"--address {address}: no Ray cluster can be reached; start one with `ray start --head` ({error})"
            ) from error
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    except RuntimeError as error:
        text = " ".join(str(error).split())
        if "ersion mismatch" in text:
            raise HaechiError(f"--address {address}: {text}; install the same versions on both sides") from error
        raise HaechiError(f"--address {address}: no Ray cluster can be used ({text[:300]})") from error
    except (ConnectionError, ValueError, RayError) as error:
        text = " ".join(str(error).split())
        raise HaechiError(
            f"--address {address}: no Ray cluster can be reached; start one with `ray start --head` ({text[:300]})"
        ) from error


def _nodes() -> list[Mapping[str, float]]:
    """The resources of each living node."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def versions() -> dict[str, str]:
    """What must be the same on all nodes; Ray itself compares its own version and Python's."""
    return {"haechi": haechi.__version__, **pipeline.versions()}


def _differences(place: Place) -> str:
    """Such as `torch 2.14.0 there, 2.15.0 here`; empty if there are none."""
    here = versions()
    names = sorted(name for name in here.keys() | place.versions.keys() if here.get(name) != place.versions.get(name))
    return ", ".join(f"{name} {place.versions.get(name, 'not')} there, {here.get(name, 'not')} here" for name in names)


def died_of(error: RayTaskError) -> str:
    """The error that a call raised, on one line."""
    first = str(error.cause).strip().partition("\n")[0]
    return f"{type(error.cause).__name__}: {first}"


def _ending(error: RayError) -> str:
    """Why an actor is gone, on one line."""
    text = str(error)
    if "its node has died" in text:
        return "its node was lost"
    return "its process died; is memory short?"
