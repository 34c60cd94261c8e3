"""The folder of a training run, and that of several. A file under its final name is complete."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from haechi.train.errors import TrainError

MODEL_FILE = "model.pt"
METRICS_FILE = "metrics.json"
PREDICTIONS_FILE = "predictions.csv"
CONFUSION_FILE = "confusion_matrix.png"
CURVES_FILE = "curves.png"
PAGE_FILE = "report.html"
EVENTS_FILE = "events.out.tfevents.0.haechi"  # TensorBoard looks for the first three words

# What a run leaves behind, in the words of its summary.
ARTEFACTS = {
    PAGE_FILE: "the page to read: figures, threshold slider, mistakes, leaks",
    MODEL_FILE: "the head that is kept, with its threshold",
    METRICS_FILE: "all figures, for programs",
    PREDICTIONS_FILE: "every labelled video's score and prediction",
    CONFUSION_FILE: "the confusion matrix",
    CURVES_FILE: "loss, F1 and threshold over the epochs",
    EVENTS_FILE: "the same, for TensorBoard",
}

# What several experiments leave beside their runs.
EXPERIMENTS_FILE = "experiments.json"
EXPERIMENTS_TABLE = "experiments.csv"

FORMAT = "haechi-run"
EXPERIMENTS_FORMAT = "haechi-experiments"
FORMAT_VERSION = 2

PARTIAL_PREFIX = ".partial-"


@contextlib.contextmanager
def run_folder(out: Path) -> Iterator[Path]:
    """Yield a folder to write a run's files into; they move to `out` when all went well, and vanish otherwise.

    An earlier run in `out` is replaced file by file, so that `make train` can be repeated; other files in it stay.
    Opened before training, this finds a folder that cannot be written to before an hour is spent.

    Raises `TrainError` where `out` is a file, holds anything but a run, or cannot be written to.
    """
    check_replaceable(out, METRICS_FILE, FORMAT)
    with (
        _folder(out, "the run was not written"),
        tempfile.TemporaryDirectory(prefix=PARTIAL_PREFIX, dir=out) as partial,
    ):
        yield Path(partial)
        for file in sorted(Path(partial).iterdir()):
            file.replace(out / file.name)


@contextlib.contextmanager
def experiments_folder(out: Path, folders: list[str]) -> Iterator[None]:
    """Make the folder of several experiments, whose runs will stand in `folders` under it, each in a `run_folder`.

    Runs of an earlier call stay where this one has none of that name. Raises as `run_folder` does, for `out` and all of
    `folders`, before anything is trained.
    """
    check_replaceable(out, EXPERIMENTS_FILE, EXPERIMENTS_FORMAT)
    for folder in folders:
        check_replaceable(out / folder, METRICS_FILE, FORMAT)
    with _folder(out, "experiments that are done are kept"):
        yield


@contextlib.contextmanager
def _folder(out: Path, told: str) -> Iterator[None]:
    """Make a folder, and take it away again where nothing is left in it; an `OSError` becomes a `TrainError`."""
    is_new = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise TrainError(f"{error.filename or out}: {os.strerror(error.errno)}; {told}") from error
    finally:
        if is_new:
            with contextlib.suppress(OSError):  # it stays when files are in it
                out.rmdir()


def replace_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(PARTIAL_PREFIX + path.name)
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def check_replaceable(out: Path, name: str, format: str) -> None:
    """Raise `TrainError` where `out` is a file, or a folder that holds anything but what has `name` of this format."""
    if out.exists() and not out.is_dir():
        raise TrainError(f"{out}: is a file, not a folder for a run; name another with --out")
    if not out.is_dir() or all(path.name.startswith(PARTIAL_PREFIX) for path in out.iterdir()):
        return
    try:
        found = json.loads((out / name).read_bytes())
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or found.get("format") != format:
        what = "run" if format == FORMAT else "experiments"
        raise TrainError(
            f"{out}: holds files but no {what} ({name} of an earlier `haechi train`); only an earlier run is "
            "replaced: name a new or empty folder with --out"
        )
