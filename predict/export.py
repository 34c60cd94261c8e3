"""A trained head as an ONNX file: rows of a cache in, logits and scores out, for programs without torch."""

import contextlib
import io
import json
import warnings
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from haechi.cache.errors import HaechiError
from haechi.train.model.checkpoint import Checkpoint
from haechi.train.model.head import Head, mean_of_rows

FORMAT = "haechi-onnx"
FORMAT_VERSION = 1

OUTPUTS = ("logits", "scores", "calibrated")

# Of the videos that the graph is traced with; both are free in the file. Numbers that no width is equal to.
NUM_VIDEOS, NUM_ROWS = 3, 7


class Exported(nn.Module):
    """The head behind the joining of the streams, and what makes its logits scores and probabilities."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.head: Head = checkpoint.head
        self.calibration = checkpoint.calibration

    def forward(self, *streams_and_masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Each stream's rows (B, rows, width) float32, then its mask (B, rows) bool; (B,) logits, scores, calibrated.

        The first stream is what the head sees row by row; of another it sees the mean.
        """
        (rows, mask), *others = zip(streams_and_masks[::2], streams_and_masks[1::2], strict=True)
        constant = torch.cat([rows[:, 0, :0], *(mean_of_rows(*other) for other in others)], dim=1)  # (B, V)
        logits = self.head(rows, constant, mask)
        calibrated = (logits - self.calibration.shift) / self.calibration.temperature
        return logits, torch.sigmoid(logits), torch.sigmoid(calibrated)


def inputs_of(checkpoint: Checkpoint) -> dict[str, str]:
    """The file's inputs in their order, and which array of a cache each is of: rows, then mask, of every stream."""
    inputs = {}
    for name in checkpoint.streams:
        inputs[name.replace("/", "_")] = name
        inputs[name.replace("/", "_") + "_mask"] = name
    return inputs


def export_onnx(checkpoint: Checkpoint, path: Path) -> None:
    """Write the head to `path`, whole or not at all; numbers of videos and rows are free.

    The file's metadata says what is needed to use it: `threshold` (harmful: score >= it), `calibration`, `inputs`,
    `max_rows` (T: of the first input, a video of n > T rows has rows i * (n - 1) // (T - 1) for i from 0 to T - 1),
    `fingerprint` and `settings_json` of the features (see cache_schema.md), `untrained`.

    Raises `ModuleNotFoundError` without the packages of the extra `export`, `OSError` where it cannot be written.
    """
    import onnxscript  # noqa: F401 (torch would say it in other words)

    module = Exported(checkpoint).eval()
    videos, arguments, shapes = torch.export.Dim("videos"), [], []
    for name, width in checkpoint.streams.items():
        rows = torch.export.Dim("rows_" + name.replace("/", "_"))
        mask = torch.ones(NUM_VIDEOS, NUM_ROWS, dtype=torch.bool)
        arguments += [torch.randn(NUM_VIDEOS, NUM_ROWS, width), mask]
        shapes += [{0: videos, 1: rows}, {0: videos, 1: rows}]
    said = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(said), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's, about itself
        program = torch.onnx.export(
            module,
            tuple(arguments),
            input_names=list(inputs_of(checkpoint)),
            output_names=list(OUTPUTS),
            dynamic_shapes=(tuple(shapes),),
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise HaechiError(f"the head could not be exported: {said.getvalue()}")
    program.model.metadata_props.update(_metadata(checkpoint))
    temporary = path.with_name(f".partial-{path.name}")
    try:
        program.save(str(temporary))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _metadata(checkpoint: Checkpoint) -> dict[str, str]:
    """All values are texts, as ONNX has them."""
    return {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "threshold": repr(checkpoint.best_threshold),
        "calibration": json.dumps(asdict(checkpoint.calibration)),
        "inputs": json.dumps(inputs_of(checkpoint)),
        "max_rows": str(checkpoint.settings.max_rows),
        "fingerprint": checkpoint.fingerprint,
        "settings_json": json.dumps(checkpoint.features["settings"], sort_keys=True),
        "untrained": json.dumps(checkpoint.untrained),
    }
