"""Writes all files of an evaluation."""

from dataclasses import dataclass
from pathlib import Path

from haechi.predict.evaluation.evaluation import Evaluation
from haechi.predict.evaluation.output.evaluation_json import write_evaluation, write_scores
from haechi.train import run_folder

EXPORTS = ("label-studio", "fiftyone")


@dataclass(frozen=True, kw_only=True)
class Output:
    """What the files say beside the evaluation itself."""

    command: str
    """The command that made the evaluation."""
    media_root: Path | None
    """The folder that ids are relative to; None: the page has no thumbnails."""


def save(folder: Path, evaluation: Evaluation, output: Output) -> None:
    """Write the files of an evaluation into `folder` (see `run_folder`)."""
    write_evaluation(folder / run_folder.EVALUATION_FILE, evaluation)
    write_scores(folder / run_folder.SCORES_FILE, evaluation)
