"""Runs whose process is killed at every step of the replacement: `python -m tests.train.killed_runs WAY FOLDER`.

A program of its own, because each step is a fork, which is slow in a process that has loaded torch.
"""

import errno
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from haechi.cache.atomic import PARTIAL_PREFIX
from haechi.train import run_folder as module
from haechi.train.run_folder import current, run_folder

# How the new run gets into place: there is no old run; both are exchanged; the file system cannot exchange them; the
# folder is the current directory.
WAYS = NEW, EXCHANGE, NO_EXCHANGE, CURRENT_DIRECTORY = ("new", "exchange", "no exchange", "current directory")

RUN_FILES = ("metrics.json", "model.pt", "predictions.csv")

# Audit events that change the disk, or come right before it (dlsym: before the exchange).
EVENTS = {"os.rename", "os.link", "os.mkdir", "os.rmdir", "os.remove", "os.symlink", "os.chmod", "open", "ctypes.dlsym"}


def write_run(out: Path, content: str) -> None:
    with run_folder(out) as folder:
        (folder / "metrics.json").write_text(json.dumps({"format": "haechi-run", "content": content}))
        for name in RUN_FILES[1:]:
            (folder / name).write_text(content)


def write_killed(out: Path, content: str, *, step: int) -> bool:
    """Write a run in a child process that kills itself before the `step`-th event; whether it finished instead."""
    child = os.fork()
    if not child:
        num_left = step

        def kill(event: str, args: tuple[object, ...]) -> None:
            nonlocal num_left
            if event in EVENTS:  # which os.kill is not
                num_left -= 1
                if not num_left:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(kill)
            write_run(out, content)
            os._exit(0)
        except BaseException:  # noqa: BLE001 (the child must end here, whatever happened)
            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert status == 0 or os.WTERMSIG(status) == signal.SIGKILL, status
    return status == 0


def contents(out: Path, read: Callable[[Path], Path]) -> set[str]:
    """The contents of the files of a run: one text if they belong together; none if there is no file."""
    found = [path for name in RUN_FILES if (path := read(out / name)).exists()]
    assert len(found) in (0, len(RUN_FILES)), found
    texts = {path.name: path.read_text() for path in found}
    return {json.loads(text)["content"] if name == "metrics.json" else text for name, text in texts.items()}


def partials(folder: Path) -> list[Path]:
    """What a killed training left, at any depth."""
    left = (PARTIAL_PREFIX, module.COMMITTED_NAME)
    return [path for path in folder.rglob("*") if path.name.startswith(left)]


def cannot_exchange(first: Path, second: Path) -> None:
    raise OSError(errno.EINVAL, "not on this file system")


def main(way: str, folder: Path) -> None:
    out, user_file = folder / "runs" / "mine", folder / "runs" / "mine" / "notes" / "deep" / "a.txt"
    if way == NO_EXCHANGE:
        module.exchange = cannot_exchange
    read = current if way in (NO_EXCHANGE, CURRENT_DIRECTORY) else Path
    before = set() if way == NEW else {"old"}
    step, finished, seen = 0, False, []
    while not finished:
        step += 1
        if way == NEW:
            shutil.rmtree(out, ignore_errors=True)
        else:
            write_run(out, "old")
            user_file.parent.mkdir(parents=True, exist_ok=True)
            user_file.write_text("of the user")
        if way == CURRENT_DIRECTORY:
            os.chdir(out)
        finished = write_killed(out, "new", step=step)
        found = contents(out, read)
        assert found in (before, {"new"}), (step, found)
        assert not seen or seen[-1] == before or found == {"new"}, (step, found)
        seen.append(found)
        write_run(out, "next")
        assert contents(out, Path) == {"next"}, step
        assert not partials(folder), (step, partials(folder))
        assert way == NEW or user_file.read_text() == "of the user", step
    assert before in seen
    assert seen.count({"new"}) > 1  # killed after the new run was in place, too
    assert step > 10


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
