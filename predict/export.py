"""Writes a trained head as an ONNX file: from rows of a cache to logits and scores, for programs without torch."""

import contextlib
import io
import json
import warnings
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from haechi.cache.atomic import replaced
from haechi.cache.errors import HaechiError
from haechi.train.model.checkpoint import Checkpoint
from haechi.train.model.head import Head, mean_of_rows

FORMAT = "haechi-onnx"
FORMAT_VERSION = 1

OUTPUTS = ("logits", "scores", "calibrated")

# Size of the batch that the graph is traced with, different from every feature width; both are dynamic in the file.
NUM_VIDEOS, NUM_ROWS = 3, 7


class ExportedHead(nn.Module):
    """Joins the streams, applies the head, and turns its logits into scores and calibrated probabilities."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.head: Head = checkpoint.head
        self.calibration = checkpoint.calibration

    def forward(self, *streams_and_masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """From each stream's rows (B, rows, width) float32 and mask (B, rows) bool to logits, scores, calibrated (B,).

        The head sees the first stream row by row, and of another stream the mean of its rows.
        """
        (rows, mask), *others = zip(streams_and_masks[::2], streams_and_masks[1::2], strict=True)
        constant = torch.cat([rows[:, 0, :0], *(mean_of_rows(*other) for other in others)], dim=1)  # (B, V)
        logits = self.head(rows, constant, mask)
        calibrated = (logits - self.calibration.shift) / self.calibration.temperature
        return logits, torch.sigmoid(logits), torch.sigmoid(calibrated)


def input_arrays(checkpoint: Checkpoint) -> dict[str, str]:
    """Input of the ONNX file -> the array of a cache that it takes. In order: rows, then mask, of each stream."""
    inputs = {}
    for name in checkpoint.streams:
        inputs[name.replace("/", "_")] = name
        inputs[name.replace("/", "_") + "_mask"] = name
    return inputs


def export_onnx(checkpoint: Checkpoint, path: Path) -> None:
    """Write the head to `path`, whole or not at all; any number of videos and rows can be given to it.

    The metadata of the file: `threshold` (harmful: score >= threshold), `calibration`, `inputs`, `max_rows` (T: if a
    video has n > T rows of the first input, give it rows i * (n - 1) // (T - 1) for i from 0 to T - 1), `fingerprint`
    and `settings_json` of the features (see cache_schema.md), `untrained`.

    Raises `ModuleNotFoundError` if the packages of the extra `export` are not installed, `OSError` if the file cannot
    be written.
    """
    import onnxscript  # noqa: F401 (first, so that a missing package is reported under its name)

    module = ExportedHead(checkpoint).eval()
    videos, arguments, shapes = torch.export.Dim("videos"), [], []
    for name, width in checkpoint.streams.items():
        rows = torch.export.Dim("rows_" + name.replace("/", "_"))
        mask = torch.ones(NUM_VIDEOS, NUM_ROWS, dtype=torch.bool)
        arguments += [torch.randn(NUM_VIDEOS, NUM_ROWS, width), mask]
        shapes += [{0: videos, 1: rows}, {0: videos, 1: rows}]
    printed = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(printed), torch.no_grad():
        warnings.simplefilter("ignore")  # about the exporter's own code
        program = torch.onnx.export(
            module,
            tuple(arguments),
            input_names=list(input_arrays(checkpoint)),
            output_names=list(OUTPUTS),
            dynamic_shapes=(tuple(shapes),),
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise HaechiError(f"the head could not be exported: {printed.getvalue()}")
    program.model.metadata_props.update(_metadata(checkpoint))
    with replaced(path) as partial:
        program.save(str(partial))


def _metadata(checkpoint: Checkpoint) -> dict[str, str]:
    """All values are strings, as ONNX requires."""
    return {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "threshold": repr(checkpoint.best_threshold),
        "calibration": json.dumps(asdict(checkpoint.calibration)),
        "inputs": json.dumps(input_arrays(checkpoint)),
        "max_rows": str(checkpoint.settings.max_rows),
        "fingerprint": checkpoint.fingerprint,
        "settings_json": json.dumps(checkpoint.features["settings"], sort_keys=True),
        "untrained": json.dumps(checkpoint.untrained),
    }
