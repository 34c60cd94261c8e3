"""The folder of a training run, of several experiments, or of an evaluation.

A run replaces an earlier run in its folder as a whole. If training is killed at any moment, even during the
replacement, the folder holds either all files of the old run or all files of the new one; and if it is killed before
that, nothing in the folder has changed.

The new run is written into a work folder beside the run's folder:

    runs/.partial-mine-x1y2z3w4/     work folder of the training that replaces runs/mine, locked while it runs
        lock
        new/                         the files of the new run
        whole/                       hard links to them and to the user's other files in runs/mine
    runs/mine/                       the old run, and the user's other files

When all files are on disk, the operating system exchanges `whole` and `runs/mine` in a single step, and the work
folder, which now holds the old run, is deleted. A new folder is simply renamed.

Where such an exchange is impossible (the folder is a mount point, the current directory or above it, holds files that
cannot be hard-linked, or lies on a file system that cannot exchange names), the files are replaced one by one:

    runs/mine/.committed/            all files of the new run; they move up into runs/mine one after another

From the moment `.committed` exists, the new run is in place: `current` reads its files from there until they have
moved, and if training is killed before all have moved, the next training moves the rest. Other programs can see files
of both runs during that time.

A second training that starts in the same folder is refused. Work folders of killed trainings are recognised by their
unlocked `lock` and removed by the next training. On file systems without locks neither is done; each training still
replaces the run as a whole.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from haechi.cache.atomic import PARTIAL_PREFIX, exchange, flush
from haechi.train.errors import TrainError

MODEL_FILE = "model.pt"
METRICS_FILE = "metrics.json"
PREDICTIONS_FILE = "predictions.csv"
TRAINING_SET_FILE = "training_set.h5"
CONFUSION_FILE = "confusion_matrix.png"
CURVES_FILE = "curves.png"
PAGE_FILE = "report.html"
EVENTS_FILE = "events.out.tfevents.0.haechi"  # TensorBoard looks for the first three words

# Files of a run, with their meaning as the terminal shows it.
ARTEFACTS = {
    PAGE_FILE: "page to read: metrics, threshold slider, mistakes, leaks",
    MODEL_FILE: "the trained head and its threshold",
    METRICS_FILE: "all metrics, for programs",
    PREDICTIONS_FILE: "score and prediction of every labelled video",
    TRAINING_SET_FILE: "hashes and scenes of the videos, for `haechi evaluate`",
    CONFUSION_FILE: "confusion matrix",
    CURVES_FILE: "loss, F1 and threshold of every epoch",
    EVENTS_FILE: "the same, for TensorBoard",
}

# Files of several experiments, beside their runs.
EXPERIMENTS_FILE = "experiments.json"
EXPERIMENTS_TABLE = "experiments.csv"

# Files of an evaluation.
EVALUATION_FILE = "evaluation.json"
EVALUATION_PAGE = "evaluation.html"
SCORES_FILE = "scores.csv"
DISAGREEMENTS_FILE = "disagreements.csv"

EVALUATION_ARTEFACTS = {
    EVALUATION_PAGE: "page to read: the fall and its causes, real prevalence, slices, disagreements",
    EVALUATION_FILE: "all figures, for programs",
    SCORES_FILE: "score and prediction of every video of the set",
    DISAGREEMENTS_FILE: "labels to check first; `haechi train --labels` reads it back",
}

FORMAT = "haechi-run"
EXPERIMENTS_FORMAT = "haechi-experiments"
EVALUATION_FORMAT = "haechi-evaluation"
FORMAT_VERSION = 2
EVALUATION_VERSION = 1

COMMITTED_NAME = ".committed"
LOCK_NAME = "lock"

# A starting training looks at the locks of others for an instant.
LOCK_SECONDS = 5.0

# What tempfile adds to the name of a work folder.
RANDOM_SUFFIX = re.compile(r"[a-z0-9_]{8}")

MAX_NAME_BYTES = 200  # of a folder's name in the name of its work folder; file systems allow 255 for the whole


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a folder holds, and how it is recognised."""

    noun: str
    command: str
    """The command that writes it."""
    file: str
    """A JSON file in it."""
    format: str
    """The entry `format` of that file."""


RUN = Contents(noun="run", command="haechi train", file=METRICS_FILE, format=FORMAT)
EXPERIMENTS = Contents(noun="experiments", command="haechi train", file=EXPERIMENTS_FILE, format=EXPERIMENTS_FORMAT)
EVALUATION = Contents(noun="evaluation", command="haechi evaluate", file=EVALUATION_FILE, format=EVALUATION_FORMAT)


@contextlib.contextmanager
def run_folder(out: Path, contents: Contents = RUN) -> Iterator[Path]:
    """Yield an empty folder for the files of a run, or of an evaluation. When the block ends, they replace those of an
    earlier one in `out`.

    Where the block raises, `out` stays as it was. Other files and folders in `out` stay in any case. Enter the context
    before training, so that a folder that cannot be written to is found at once.

    Raises `TrainError` where `out` is a file, holds anything but such contents, cannot be written to, or is in use by
    another command.
    """
    check_replaceable(out, contents)
    with _disk_errors(out, f"the {contents.noun} was not written"):
        folder = _resolved(out)
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists() and not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(out))
        can_write_beside = not folder.is_mount() and os.access(folder.parent, os.R_OK | os.W_OK | os.X_OK)
        with _work_folder(folder.parent if can_write_beside or not folder.exists() else folder, folder.name) as work:
            _clean(work, [*_work_folders(folder.parent, folder.name), *_partial_folders(folder)], out)
            _move_committed(folder)
            new = work / "new"
            new.mkdir()
            yield new
            _replace(folder, new)


@contextlib.contextmanager
def experiments_folder(out: Path, folders: list[str]) -> Iterator[None]:
    """Make the folder of several experiments, which write their runs into its subfolders `folders` with `run_folder`.

    Runs of an earlier call stay unless this call has one of the same name. Raises as `run_folder` does, for `out` and
    all of `folders`, before anything is trained.
    """
    check_replaceable(out, EXPERIMENTS)
    for folder in folders:
        check_replaceable(out / folder, RUN)
    is_new = not out.exists()
    try:
        with _disk_errors(out, "finished experiments are kept"):
            out.mkdir(parents=True, exist_ok=True)
            with _work_folder(out, "experiments") as work:
                _clean(work, [*_partial_folders(out), *out.glob(f"*/{PARTIAL_PREFIX}*/")], out)
                yield
    finally:
        if is_new:
            with contextlib.suppress(OSError):  # it holds files
                out.rmdir()


def current(path: Path) -> Path:
    """Where to read a file of a run: `path`, or its copy in `.committed` if a replacement was interrupted there."""
    committed = path.parent / COMMITTED_NAME / path.name
    return committed if committed.exists() else path


def _resolved(path: Path) -> Path:
    """The absolute path without symbolic links. Raises `OSError` for links in a circle."""
    loop = OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    try:
        resolved = path.resolve()
    except RuntimeError as error:  # links in a circle, before Python 3.13
        raise loop from error
    if resolved.is_symlink():  # the same, from Python 3.13 on
        raise loop
    return resolved


def check_replaceable(out: Path, contents: Contents) -> None:
    """Raise `TrainError` where `out` is a file, or a folder that holds files but no such contents."""
    one = "an evaluation" if contents is EVALUATION else "a run"
    if out.exists() and not out.is_dir():
        raise TrainError(f"{out}: is a file, not a folder for {one}; name another with --out")
    if not out.is_dir() or _holds_nothing(out):
        return
    try:
        found = json.loads(current(out / contents.file).read_bytes())
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or found.get("format") != contents.format:
        raise TrainError(
            f"{out}: holds files but no {contents.noun} ({contents.file} of an earlier `{contents.command}`); only "
            f"an earlier {one.partition(' ')[2]} is replaced: name a new or empty folder with --out"
        )


def _holds_nothing(folder: Path) -> bool:
    """Whether a folder is empty except for what killed trainings left, at any depth."""
    return all(
        path.name.startswith(PARTIAL_PREFIX) or (path.is_dir() and not path.is_symlink() and _holds_nothing(path))
        for path in folder.iterdir()
    )


@contextlib.contextmanager
def _disk_errors(out: Path, consequence: str) -> Iterator[None]:
    """Turn an `OSError` into a `TrainError` that names the file and the consequence."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise TrainError(f"{error.filename or out}: {os.strerror(error.errno)}; {consequence}") from error


@contextlib.contextmanager
def _work_folder(parent: Path, name: str) -> Iterator[Path]:
    """Make a locked work folder in `parent`, which is deleted at the end."""
    work = Path(tempfile.mkdtemp(prefix=_work_prefix(name), dir=parent))
    try:
        with contextlib.ExitStack() as held:
            with contextlib.suppress(OSError, NotImplementedError):  # a file system without locks
                held.enter_context(FileLock(work / LOCK_NAME, timeout=LOCK_SECONDS))
            if not work.exists():  # another training started at the same time, and removed it before it was locked
                raise TrainError(f"{parent / name}: another command is writing to this folder; try again")
            yield work
    finally:
        _delete(work)


def _delete(folder: Path) -> None:
    """Delete a work folder as far as possible.

    Copies of the user's read-only folders are made writable first. Files are not: they are hard links to the user's.
    """
    for path, _, _ in os.walk(folder):
        with contextlib.suppress(OSError):
            Path(path).chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)


def _work_prefix(name: str) -> str:
    """What the names of the work folders of the folder `name` begin with; a hash stands for a name that is too long."""
    if len(os.fsencode(name)) > MAX_NAME_BYTES:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return f"{PARTIAL_PREFIX}{name}-"


def _work_folders(parent: Path, name: str) -> list[Path]:
    """Work folders in `parent` of trainings into its folder `name`."""
    if not os.access(parent, os.R_OK | os.X_OK):
        return []
    prefix = _work_prefix(name)
    return [
        path
        for path in parent.iterdir()
        if path.name.startswith(prefix) and RANDOM_SUFFIX.fullmatch(path.name.removeprefix(prefix))
    ]


def _partial_folders(folder: Path) -> list[Path]:
    """Work folders, or parts of a run, inside a folder."""
    return list(folder.glob(f"{PARTIAL_PREFIX}*/"))


def _clean(work: Path, found: list[Path], out: Path) -> None:
    """Remove the work folders of killed trainings. Raises `TrainError` where one of them belongs to a running training.

    `work` is the caller's work folder. It is made before this check, so that of two trainings that start at the same
    time at least one is refused.
    """
    others = [path for path in found if path != work]
    dead = []
    with contextlib.ExitStack() as held:
        for other in others:
            try:
                held.enter_context(FileLock(other / LOCK_NAME, timeout=0))
            except Timeout as error:
                raise TrainError(
                    f"{out}: another command is writing to this folder; wait for it, or name another with --out"
                ) from error
            except (OSError, NotImplementedError):  # no locks on this file system, or a folder of another user
                continue
            dead.append(other)
        for folder in dead:
            _delete(folder)


def _replace(folder: Path, new: Path) -> None:
    """Put the files in `new` into `folder`, in place of those of an earlier run."""
    _flush_files(new)
    if not folder.exists():
        new.rename(folder)
        flush(folder.parent)
    elif not new.is_relative_to(folder) and not _is_current(folder) and _exchange(folder, new):
        flush(folder.parent)
    else:
        inside = Path(tempfile.mkdtemp(prefix=PARTIAL_PREFIX, dir=folder))
        shutil.copytree(new, inside, dirs_exist_ok=True)
        _flush_files(inside)
        inside.rename(folder / COMMITTED_NAME)
        flush(folder)
        _move_committed(folder)


def _is_current(folder: Path) -> bool:
    """Whether the current directory is the folder or inside it: it must not be deleted under the user's shell."""
    try:
        return Path.cwd().is_relative_to(folder)
    except FileNotFoundError:  # it is deleted already
        return False


def _exchange(folder: Path, new: Path) -> bool:
    """Exchange `folder` for one with its files and those in `new`. False, with nothing changed: it is impossible."""
    whole = new.parent / "whole"
    names = {file.name for file in new.iterdir()}

    def left_out(where: str, entries: list[str]) -> set[str]:
        is_top = Path(where) == folder
        return {entry for entry in entries if is_top and (entry in names or entry.startswith(PARTIAL_PREFIX))}

    try:
        shutil.copytree(folder, whole, symlinks=True, copy_function=os.link, ignore=left_out)
        _copy_owners(folder, whole)
        for file in new.iterdir():
            os.link(file, whole / file.name)
        flush(whole)
        exchange(whole, folder)
    except OSError:
        _delete(whole)
        return False
    _keep_late_files(whole, folder, left_out)
    return True


def _copy_owners(source: Path, copy: Path) -> None:
    """Give the folders of a copy the owners of the original ones. Raises `OSError` if this user may not do that."""
    for path, _, _ in os.walk(copy):
        wanted, found = (source / Path(path).relative_to(copy)).stat(), Path(path).stat()
        if (found.st_uid, found.st_gid) != (wanted.st_uid, wanted.st_gid):
            os.chown(path, wanted.st_uid, wanted.st_gid)
            Path(path).chmod(stat.S_IMODE(wanted.st_mode))  # a change of the owner may clear bits


def _keep_late_files(old: Path, folder: Path, left_out: Callable[[str, list[str]], set[str]]) -> None:
    """Move files that were created or replaced in `old`, while it was copied, into `folder`, which is in its place."""
    for path, _, _ in os.walk(old):
        place = folder / Path(path).relative_to(old)
        late, kept = _files(path), _files(place)
        for name in late.keys() - left_out(str(place), list(late)):
            if late[name] != kept.get(name):
                with contextlib.suppress(OSError):
                    place.mkdir(parents=True, exist_ok=True)
                    Path(path, name).replace(place / name)


def _files(folder: str | Path) -> dict[str, int]:
    """Name -> inode of the files in a folder, without symbolic links; empty if there is no such folder."""
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        return {
            entry.name: entry.inode()
            for entry in entries
            if not entry.is_symlink() and not entry.is_dir(follow_symlinks=False)
        }
    return {}


def _move_committed(folder: Path) -> None:
    """Move all files of a committed run up into the run's folder, if there are any."""
    committed = folder / COMMITTED_NAME
    if committed.is_dir():
        for file in sorted(committed.iterdir()):
            file.replace(folder / file.name)
        flush(folder)
        committed.rmdir()


def _flush_files(folder: Path) -> None:
    """Write a folder and the files in it to the disk."""
    for file in folder.iterdir():
        flush(file)
    flush(folder)
