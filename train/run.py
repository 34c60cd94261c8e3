"""The folder of a training run. A file under its final name is complete."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from train.errors import TrainError

MODEL_FILE = "model.pt"
METRICS_FILE = "metrics.json"
PREDICTIONS_FILE = "predictions.csv"
CONFUSION_FILE = "confusion_matrix.png"
CURVES_FILE = "curves.png"

# What a run leaves behind, in the words of its summary.
ARTEFACTS = {
    MODEL_FILE: "the head of the best epoch, with its threshold",
    METRICS_FILE: "every epoch, for programs",
    PREDICTIONS_FILE: "every labelled video's score and prediction",
    CONFUSION_FILE: "the best epoch's confusion matrix",
    CURVES_FILE: "loss, F1 and threshold over the epochs",
}

FORMAT = "haechi-run"
FORMAT_VERSION = 1

PARTIAL_PREFIX = ".partial-"


@contextlib.contextmanager
def run_folder(out: Path) -> Iterator[Path]:
    """Yield a folder to write a run's files into; they move to `out` when all went well, and vanish otherwise.

    An earlier run in `out` is replaced file by file, so that `make train` can be repeated; other files in it stay.
    Opened before training, this finds a folder that cannot be written to before an hour is spent.

    Raises `TrainError` where `out` is a file, holds anything but a run, or cannot be written to.
    """
    if out.exists() and not out.is_dir():
        raise TrainError(f"{out}: is a file, not a folder for a run; name another with --out")
    if out.is_dir() and not is_run(out) and any(not p.name.startswith(PARTIAL_PREFIX) for p in out.iterdir()):
        raise TrainError(
            f"{out}: holds files but no run ({METRICS_FILE} of an earlier `haechi train`); only an earlier run is "
            "replaced: name a new or empty folder with --out"
        )
    is_new = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=PARTIAL_PREFIX, dir=out) as partial:
            yield Path(partial)
            for file in sorted(Path(partial).iterdir()):
                file.replace(out / file.name)
    except OSError as error:
        if error.errno is None:
            raise
        raise TrainError(f"{error.filename or out}: {os.strerror(error.errno)}; the run was not written") from error
    finally:
        if is_new:
            with contextlib.suppress(OSError):  # it stays when the run's files are in it
                out.rmdir()


def is_run(folder: Path) -> bool:
    """Whether the folder holds what `haechi train` wrote."""
    try:
        metrics = json.loads((folder / METRICS_FILE).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(metrics, dict) and metrics.get("format") == FORMAT
