"""Kills at random on a Ray cluster of this machine: `python -m tests.torture.cluster --kills 200`.

Decoders, actors, the driver and nodes get SIGKILL while four actors fill a cache. The command is run again until the
cache is full, which is then compared with that of an undisturbed run; then another cache is begun.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil

from bench import servers
from haechi.cache.integrity.verify import verify
from haechi.cache.stores.stored_cache import StoredCache, cache_location
from tests.torture.contents import Contents, differences, read_contents
from tests.torture.media import extract_command, write_mixed
from tests.torture.processes import still_running
from tests.torture.record import Record

PLACE = "s3://videos/cache"

ACTORS, VIDEOS = 4, 1200

# With one video in a batch, and one thread, no bit depends on which videos are computed together.
FLAGS = ["--slowfast-model", "none", "--batch-frames", "8"]
LEFT_OUT = {"--slowfast-weights", "--device", "--workers"}

DECODER, ACTOR, DRIVER, NODE = "decoder", "actor", "driver", "node"
SHARES = {DECODER: 0.35, ACTOR: 0.45, DRIVER: 0.08, NODE: 0.12}

# How long decoding processes may live after the process that started them, and actors after their driver or node.
MAX_SECONDS = 5.0

RUN_SECONDS = 300.0


class Nodes:
    """A cluster of a head and three nodes, one CPU each. A context manager."""

    def __enter__(self) -> "Nodes":
        from ray.cluster_utils import Cluster

        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        self._cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}, connect=False
        )
        self._nodes = [self._cluster.add_node(num_cpus=1) for _ in range(ACTORS - 1)]
        self.address = self._cluster.address
        return self

    def __exit__(self, *_: object) -> None:
        self._cluster.shutdown()

    def replace_one(self, rng: np.random.Generator) -> list[psutil.Process]:
        """SIGKILL a node that is not the head, and add a new one. Returns its actors and their decoders."""
        node = self._nodes.pop(int(rng.integers(len(self._nodes))))
        (raylet,) = (info.process for infos in [node.all_processes["raylet"]] for info in infos)
        actors = [process for process in _below(raylet.pid) if _is_actor(process)]
        processes = [process for actor in actors for process in (actor, *_decoders(actor))]
        os.kill(raylet.pid, signal.SIGKILL)
        with contextlib.suppress(Exception):
            self._cluster.remove_node(node, allow_graceful=False)
        self._nodes.append(self._cluster.add_node(num_cpus=1))
        return processes


def _below(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def _all_actors() -> Iterator[psutil.Process]:
    for process in _below(os.getpid()):
        if _is_actor(process):
            yield process


def _is_actor(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return "ray::Actor" in "".join(process.cmdline()[:1])
    return False


def _decoders(actor: psutil.Process) -> list[psutil.Process]:
    """The decoding processes of an actor."""
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in actor.children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if "spawn_main" in " ".join(child.cmdline()):
                    found.append(child)
    return found


class Command:
    """`haechi extract --engine ray` in a process of its own."""

    def __init__(self, arguments: list[str], folder: Path) -> None:
        self._log = folder / "driver.log"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "haechi", *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"LOKY_MAX_CPU_COUNT": "1"},
            )

    @property
    def output(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")


def kill(number: int, *, seed: int = 0, seconds: float = 1e9, in_store: bool = False) -> Record:
    """Kill `number` times, or for so long; compare each cache that is full with that of an undisturbed run.

    `in_store`: let the cache be in a store.
    """
    rng = np.random.default_rng(seed)
    started = time.monotonic()
    losses: list[str] = []
    kills, full, num_bad, given_up = Counter[str](), 0, 0, 0

    def lose(*found: str) -> None:
        for text in found:
            click.echo(f"after {kills.total()} kills: {text}")
        losses.extend(found)

    slowest = 0.0
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        out: str | Path = folder / "cache"
        if in_store:
            out = PLACE
            _use_store(stack, folder)
        nodes = stack.enter_context(Nodes())
        manifest = write_mixed(folder / "videos", number=VIDEOS)
        expected = _undisturbed(manifest, folder)
        arguments = [*_arguments(manifest, out, folder), "--engine", "ray", "--devices", f"cpu:{ACTORS}"]
        arguments += ["--address", nodes.address]
        while True:
            is_over = kills.total() >= number or time.monotonic() - started > seconds
            command = Command(arguments, folder)
            status = None
            while status is None:
                wait = RUN_SECONDS if is_over else float(rng.uniform(0.5, 3.0))
                with contextlib.suppress(subprocess.TimeoutExpired):
                    status = command.process.wait(wait)
                    break
                if is_over:
                    lose(f"the command hung for {RUN_SECONDS:.0f} s: {command.output[-500:]}")
                    command.process.kill()
                    status = command.process.wait()
                    break
                victim = str(rng.choice(list(SHARES), p=list(SHARES.values())))
                doomed = _kill_one(victim, command, nodes, rng)
                if doomed is None:
                    continue
                kills[victim] += 1
                before = time.monotonic()
                if left := still_running(doomed, seconds=MAX_SECONDS):
                    num_bad += 1
                    lose(
                        f"{victim} killed: {len(left)} of its processes live after {MAX_SECONDS:.0f} s: "
                        f"{[' '.join(p.cmdline()).strip()[-80:] for p in left if p.is_running()]}"
                    )
                slowest = max(slowest, time.monotonic() - before)
                if kills.total() % 10 == 0:
                    click.echo(
                        f"{time.monotonic() - started:.0f} s: {dict(kills)}, {full} caches, {len(losses)} losses"
                    )
                is_over = kills.total() >= number or time.monotonic() - started > seconds
            if status == 0:
                wrong = [f"{problem.shard} {problem.what}" for problem in verify(out).problems]
                wrong += differences(read_contents(out), expected)
                lose(*wrong)
                full, num_bad = full + 1, num_bad + bool(wrong)
                _remove(out)
                if is_over:
                    break
            elif status == 1 and "could not be finished" in command.output:
                given_up += 1  # three of its actors were killed; the next command does it
            elif status != -signal.SIGKILL:
                lose(f"the command ended with {status}: {command.output[-1500:]}")
                num_bad += 1
                if is_over:
                    break
    return Record(
        what="processes of a Ray cluster killed",
        tried=kills.total(),
        survived=kills.total() - num_bad,
        losses=losses,
        note=f"{dict(kills)}; {full} caches of {VIDEOS} rows got full, each the undisturbed one; {given_up} commands "
        f"gave a slice up; what a victim had started was gone after {slowest:.1f} s at most",
        seconds=time.monotonic() - started,
    )


def _kill_one(victim: str, command: Command, nodes: Nodes, rng: np.random.Generator) -> list[psutil.Process] | None:
    """SIGKILL a victim. Returns the processes that must end with it; None if there is no victim now."""
    actors = [actor for actor in _all_actors() if _decoders(actor)]
    if not actors:
        return None
    if victim == NODE:
        return nodes.replace_one(rng)
    if victim == DRIVER:
        doomed = [process for actor in actors for process in (actor, *_decoders(actor))]
        command.process.kill()
        return doomed
    actor = actors[int(rng.integers(len(actors)))]
    decoders = _decoders(actor)
    if victim == ACTOR:
        doomed, pid = decoders, actor.pid
    else:
        doomed, pid = [], decoders[0].pid if decoders else 0
    if not pid:
        return None
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return doomed


def _use_store(stack: contextlib.ExitStack, folder: Path) -> None:
    """Start a server, and name it to the processes that start from now on."""
    (folder / "server").mkdir()
    address = stack.enter_context(servers.seaweedfs(folder / "server"))
    os.environ |= {
        "AWS_ENDPOINT_URL": address,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": servers.KEY_ID,
        "AWS_SECRET_ACCESS_KEY": servers.SECRET,
        "XDG_CACHE_HOME": str(folder / "user"),
    }


def _remove(out: str | Path) -> None:
    """Delete a cache."""
    if isinstance(out, Path):
        shutil.rmtree(out)
        return
    stored = StoredCache(cache_location(out))
    for name in stored.files():
        stored.remove(name)


def _arguments(manifest: Path, out: str | Path, folder: Path) -> list[str]:
    """Of `haechi`, without a motion network, which would have to be made small in each process."""
    arguments = extract_command(manifest, out, folder, shard_size=8)
    pairs: list[Any] = list(zip(arguments[2::2], arguments[3::2], strict=True))
    return [*arguments[:2], *(text for pair in pairs if pair[0] not in LEFT_OUT for text in pair), *FLAGS]


def _undisturbed(manifest: Path, folder: Path) -> Contents:
    out = folder / "undisturbed"
    command = Command([*_arguments(manifest, out, folder), "--devices", "cpu:1"], folder)
    assert command.process.wait(RUN_SECONDS) == 0, command.output
    return read_contents(out)


@click.command()
@click.option("--kills", default=200, show_default=True)
@click.option("--seconds", default=1e9, help="End after this time, if there were fewer kills until then.")
@click.option("--seed", default=0)
@click.option("--store", "in_store", is_flag=True, help="Let the cache be in a store (SeaweedFS).")
def main(*, kills: int, seconds: float, seed: int, in_store: bool) -> None:
    """Exit status 1 if anything was lost."""
    record = kill(kills, seed=seed, seconds=seconds, in_store=in_store)
    for loss in record.losses:
        click.echo(f"  {loss}")
    click.echo(f"{record.what}: {record.tried} tried, {len(record.losses)} lost, {record.seconds:.0f} s; {record.note}")
    sys.exit(bool(record.losses))


if __name__ == "__main__":
    main()
