"""Workers that kill themselves in the middle of a slice. Their processes import this file, so it imports little."""

import json
import os
import signal
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import psutil

from haechi.extract.engines import worker
from haechi.extract.flow import Flow
from haechi.extract.settings import ExtractSettings
from haechi.extract.shard_queue import ShardQueue

DOOMED = 1  # the slice whose first worker is killed

# Set in all processes of a node of Ray whose versions differ.
OTHER_VERSIONS = "HAECHI_TEST_OTHER_VERSIONS"


def serve_doomed(pipe: Any, parent: int, job: Any, *arguments: Any) -> None:
    """As `serve`; the first worker to finish a row of slice 1 writes down its decoding processes and kills itself."""
    from bench import networks

    honest, log = ShardQueue.add, (job.work or job.out).parent / "decoders.json"

    def add(queue: ShardQueue, index: int, row: Any) -> None:
        honest(queue, index, row)
        if f"slice-{DOOMED:05d}-" in str(queue._out) and not log.exists():
            _die(log)

    ShardQueue.add = add  # type: ignore[method-assign]
    networks.serve_small(pipe, parent, job, *arguments)


def prepare() -> None:
    """In each process of a cluster: small networks; once there is a file `armed`, an actor kills itself."""
    from haechi.extract.engines import actors

    if OTHER_VERSIONS in os.environ:
        actors.versions = lambda: {"haechi": "0.0.1"}
    honest, open_flow = ShardQueue.add, worker.open_flow

    def open_small(settings: ExtractSettings, num_media: int) -> AbstractContextManager[Flow]:
        from bench import networks  # takes seconds: only in an actor that gets a slice

        networks.shrink_slowfast()
        return open_flow(settings, num_media)

    def add(queue: ShardQueue, index: int, row: Any) -> None:
        honest(queue, index, row)
        armed, log = queue._out.parents[3] / "armed", queue._out.parents[3] / "decoders.json"
        if armed.exists():
            armed.unlink()
            _die(log)

    worker.open_flow, ShardQueue.add = open_small, add  # type: ignore[method-assign]


def _die(log: Path) -> None:
    log.write_text(json.dumps([child.pid for child in psutil.Process().children(recursive=True)]))
    os.kill(os.getpid(), signal.SIGKILL)
