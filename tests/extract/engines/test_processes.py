"""`--devices` with real processes, and what is left when one of them, or the run, is killed."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

import haechi.cli
from bench import networks
from haechi.cache.integrity.verify import verify
from haechi.cache.reader import Cache
from haechi.cache.slices import Slice, slice_of
from haechi.cache.status import read_status
from haechi.extract.api import extract_features
from haechi.extract.engines.processes import Processes
from haechi.extract.engines.worker import CORES_VARIABLE
from tests.extract.conftest import SOUND, UNSOUND, manifest_of
from tests.extract.engines.doomed import DOOMED, serve_doomed
from tests.extract.test_slices import contents, settings_of
from tests.miniature import shrink_slowfast
from tests.torture.processes import process_tree, still_running

N = 4  # slices
NAMES = [*SOUND, *UNSOUND]

# How long decoding processes may live after the process that started them.
MAX_SECONDS = 5.0


def test_two_processes_do_what_one_does(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The same rows, equal to the last bit, although one process is killed in the middle of a slice."""
    monkeypatch.setenv(CORES_VARIABLE, "1")  # threads change last bits
    shrink_slowfast(monkeypatch)
    for name in NAMES:
        if name != "gone.mp4":
            (tmp_path / name).symlink_to(videos / name)
    manifest, settings = manifest_of(tmp_path, NAMES), settings_of(tmp_path)
    extract_features(manifest, tmp_path / "whole", settings=settings)
    by_hand = next(
        number for number in range(N) if number != DOOMED and any(slice_of(name, N) == number for name in NAMES)
    )
    extract_features(manifest, tmp_path / "shared", settings=settings, slice=Slice(number=by_hand, num_slices=N))

    monkeypatch.setattr(Processes, "work", staticmethod(serve_doomed))
    flags = [
        text
        for name in ("clip_model", "clip_weights", "slowfast_weights", "frames", "shard_size", "precision")
        for text in (f"--{name.replace('_', '-')}", str(getattr(settings, name)))
    ]
    command = ["extract", str(tmp_path / "labels.csv"), "--out", str(tmp_path / "shared"), "--devices", "cpu:2"]
    called = CliRunner().invoke(haechi.cli.main, [*command, *flags, "--batch-windows", "1", "--json"])
    assert called.exit_code == 0, called.output
    done = json.loads(called.stdout)
    assert f"slice {DOOMED}/{N} is handed out again" in called.stderr
    assert "its process was ended by SIGKILL; is memory short?" in called.stderr
    assert (done["num_rows"], done["num_used"], done["num_failed"]) == (10, 6, 4)
    assert [each["name"] for each in done["devices"]] == ["cpu (1)", "cpu (2)"]
    assert sum(each["slices"] for each in done["devices"]) == N - 1
    assert sum(each["rows"] for each in done["devices"]) == done["num_new"]
    assert contents(tmp_path / "shared") == contents(tmp_path / "whole")
    assert (verify(tmp_path / "shared").problems, verify(tmp_path / "shared").notes) == ([], [])
    decoders = json.loads((tmp_path / "decoders.json").read_text())
    assert decoders
    assert not [pid for pid in decoders if psutil.pid_exists(pid)]
    assert "leaked" not in capfd.readouterr().err


def test_a_run_that_is_killed_and_one_that_is_interrupted(videos: Path, tmp_path: Path) -> None:
    """No process is left, and finished rows are safe."""
    for number in range(900):
        (tmp_path / f"{number:03d}.mp4").symlink_to(videos / "short.mp4")
    manifest_of(tmp_path, [f"{number:03d}.mp4" for number in range(900)])
    out = tmp_path / "cache"
    command = [sys.executable, "-m", "haechi", "extract", str(tmp_path / "labels.csv"), "--out", str(out)]
    command += ["--clip-model", networks.write_clip_config(tmp_path / "tiny-clip"), "--clip-weights", "random:0"]
    command += ["--slowfast-model", "none", "--frames", "2", "--shard-size", "4", "--devices", "cpu:2"]

    with _started(command) as run:
        _wait_for(lambda: any(out.glob(".work/*/cache/*.h5")), run)
        processes = process_tree(run.pid)
        assert len(processes) >= 1 + 2 * 2  # a worker for each device, and a decoding process for each worker
        run.kill()
        run.wait()
        assert not still_running(processes, seconds=MAX_SECONDS)

    with _started(command) as run:
        num_before = len(list(out.glob(".work/*/cache/*.h5")))
        _wait_for(lambda: len(list(out.glob(".work/*/cache/*.h5"))) > num_before, run)
        processes = process_tree(run.pid)
        os.killpg(run.pid, signal.SIGINT)
        output, _ = run.communicate(timeout=30)
        assert not still_running(processes, seconds=MAX_SECONDS)
        assert run.returncode == 1
        assert "Traceback" not in output
        found = re.search(r"interrupted: (\d+) of (\d+) rows of this run are safe in the cache; run the", output)
        assert found is not None, output
        assert int(found[1]) > 4 * num_before

    begun = {shard.parent for shard in out.glob(".work/*/cache/*.h5")}
    in_work = sum(len(Cache.open(folder).media["id"]) for folder in begun)
    assert (int(found[1]), int(found[2])) == (read_status(out).num_used + in_work, 900)


def _started(command: list[str]) -> subprocess.Popen[str]:
    """A command in a process group of its own, as in a terminal."""
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def _wait_for(condition: Callable[[], bool], run: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
