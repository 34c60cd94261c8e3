"""`--engine ray` on a cluster of this machine, and what is refused before any work."""

import contextlib
import importlib.util
import json
import os
import re
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import psutil
import pytest

from haechi.cache.errors import HaechiError, SettingsError
from haechi.cache.integrity.verify import verify
from haechi.extract.api import extract_features
from haechi.extract.interrupt import InterruptedRunError
from haechi.extract.settings import ExtractSettings
from tests.extract.conftest import SOUND, UNSOUND, manifest_of
from tests.extract.engines.doomed import OTHER_VERSIONS, prepare
from tests.extract.engines.test_coordinator import Shown
from tests.extract.test_slices import contents, settings_of
from tests.miniature import shrink_slowfast
from tests.torture.processes import still_running

if importlib.util.find_spec("ray") is None:
    pytest.skip("ray is not installed", allow_module_level=True)

import ray

from haechi.extract.engines import actors
from haechi.extract.engines.actors import Actors, connect

NAMES = [*SOUND, *UNSOUND]

# How long decoding processes may live after their actor.
MAX_SECONDS = 5.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster of three nodes, one of which has other versions; this process is connected to it."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # for `prepare`
        patch.setenv("RAY_prestart_worker_first_driver", "0")  # they would not have our runtime environment
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        made.add_node(wait=False, num_cpus=1)
        made.add_node(wait=False, num_cpus=1, env_vars={OTHER_VERSIONS: "1"})
        made.wait_for_nodes()
        ray.init(
            address=made.address,
            log_to_driver=False,
            logging_level="CRITICAL",
            runtime_env={"worker_process_setup_hook": prepare},
        )
        yield made.address
        ray.shutdown()
        made.shutdown()


def test_a_cluster_does_what_one_process_does(
    cluster: str, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same rows, equal to the last bit, although one is interrupted, an actor dies, and a node is of no use."""
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")  # threads change last bits
    for name in NAMES:
        if name != "gone.mp4":
            (tmp_path / name).symlink_to(videos / name)
    manifest, settings = manifest_of(tmp_path, NAMES), settings_of(tmp_path).changed(device="auto")
    monkeypatch.chdir(tmp_path)  # the nodes were started elsewhere
    with monkeypatch.context() as patch:
        shrink_slowfast(patch)
        extract_features(manifest, tmp_path / "whole", settings=settings, device="cpu")
    interrupting, shown = Interrupting(), Shown()
    with pytest.raises(InterruptedRunError, match="run the same command again") as caught:
        extract_features(manifest, "cache", settings=settings, engine="ray", progress=interrupting)
    num_safe = int(str(caught.value).split()[1])
    assert 1 <= interrupting.num_done <= num_safe < 10
    (tmp_path / "armed").touch()
    done = extract_features(manifest, "cache", settings=settings, engine="ray", progress=shown)
    assert (done.num_rows, done.num_used, done.num_new) == (10, 6, 10 - num_safe)
    assert contents(tmp_path / "cache") == contents(tmp_path / "whole")
    assert (verify(tmp_path / "cache").problems, verify(tmp_path / "cache").notes) == ([], [])
    assert len(done.devices) == 3
    assert sum(each.num_rows for each in done.devices) == done.num_new
    died = r"its process died; is memory short\?; slice \d/3 is handed out again"
    assert any(re.search(died, notice) for notice in shown.notices), shown.notices
    refused = [notice for notice in shown.notices if "it is not used" in notice]
    assert len(refused) == 1
    assert re.search(r"node \S+: .*haechi 0\.0\.1 there, \S+ here.*torch not there, \S+ here", refused[0])
    decoders = json.loads((tmp_path / "decoders.json").read_text())
    assert decoders
    alive = []
    for pid in decoders:
        with contextlib.suppress(psutil.NoSuchProcess):
            alive.append(psutil.Process(pid))
    assert not still_running(alive, seconds=MAX_SECONDS)


def test_no_node_has_the_same_versions(
    cluster: str, data: Path, tmp_path: Path, tiny_settings: ExtractSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actors, "versions", lambda: {"haechi": "99"})
    settings = tiny_settings.changed(device="auto")
    with pytest.raises(HaechiError) as caught:
        extract_features(manifest_of(data, SOUND), tmp_path / "cache", settings=settings, engine="ray")
    text = str(caught.value)
    assert "no node has the versions of this command; install the same" in text
    assert text.count("99 here") == 3
    assert "haechi 0.0.1 there" in text
    assert not list((tmp_path / "cache").glob("*.json"))


class Interrupting(Shown):
    """Presses Ctrl-C when a row is finished."""

    def advance(self, count: int = 1, *, failed: bool = False) -> None:
        super().advance(count, failed=failed)
        if signal.getsignal(signal.SIGINT) != signal.SIG_DFL:  # the second one would end this process
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(
    ("nodes", "devices", "expected"),
    [
        ([{"CPU": 16.0, "GPU": 2.0}, {"CPU": 12.0, "GPU": 4.0}, {"CPU": 4.0}], None, (3, 1, 3, 6)),
        ([{"CPU": 16.0, "GPU": 2.0}], "all", (8, 1, 8, 2)),
        ([{"CPU": 16.0, "GPU": 2.0}], "cpu:4", (4, 0, 1, 4)),
        ([{"CPU": 4.0}, {"CPU": 2.0}, {}], None, (3, 0, 1, 2)),
        ([{"CPU": 1.0}], "cpu:4", (1, 0, 0.25, 4)),
    ],
)
def test_the_actors_of_a_cluster(
    nodes: list[dict[str, float]], devices: str | None, expected: tuple[float, ...]
) -> None:
    """Cores of each, the GPUs and CPUs that it takes, and their number."""
    cores, options, number = Actors(address="auto", devices=devices)._layout(nodes)
    assert (cores, options["num_gpus"], options["num_cpus"], number) == expected


def test_a_cluster_without_what_was_asked_for() -> None:
    with pytest.raises(HaechiError, match="no node of the Ray cluster has a GPU; use --devices cpu:N"):
        Actors(address="auto", devices="all")._layout([{"CPU": 4.0}])
    with pytest.raises(HaechiError, match="no node of the Ray cluster has a CPU or GPU"):
        Actors(address="auto", devices=None)._layout([{}])
    with pytest.raises(SettingsError, match="--devices 0,1: on a cluster, expected all"):
        Actors(address="auto", devices="0,1")


def test_a_cluster_that_cannot_be_used_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a program would stay connected, and its next call would not look at another address."""
    left = Mock()
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", left)
    monkeypatch.setattr(actors, "connect", Mock())
    monkeypatch.setattr(actors, "_nodes", lambda: [{"CPU": 4.0}])
    with pytest.raises(HaechiError, match="has a GPU"), Actors(address="auto", devices="all"):
        pass
    assert left.call_count == 1


def test_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for address, expected in {
        f"127.0.0.1:{port}": "no Ray cluster can be reached; start one with `ray start --head`",
        "ray://127.0.0.1:10001": "Ray Client is not supported",
    }.items():
        with pytest.raises(HaechiError, match=expected) as caught:
            connect(address)
        assert str(caught.value).startswith(f"--address {address}: ")
        assert "\n" not in str(caught.value)

    # What ray.init raises without a cluster, and for one of another version.
    for error, expected in {
        ConnectionError(
            "Could not find any running Ray instance."
        ): "reached; start one with `ray start --head` (Could",
        ValueError("Unable to parse port number from x"): "reached; start one with `ray start --head` (Unable",
        RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.1.0\n    Python: 3.9.1"): (
            "Ray: 2.1.0 Python: 3.9.1; install the same versions on both sides"
        ),
    }.items():
        monkeypatch.setattr(ray, "init", Mock(side_effect=error))
        with pytest.raises(HaechiError, match=re.escape(expected)):
            connect("auto")
    with pytest.raises(SettingsError, match="--address a:1 is for --engine ray"):
        extract_features("nothing", "out", address="a:1")
