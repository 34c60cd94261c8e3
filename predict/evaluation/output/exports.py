"""The labelling tools that `haechi evaluate --export` writes for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from haechi.predict.evaluation.output.exported import ExportedVideo
from haechi.predict.evaluation.output.fiftyone import write_fiftyone
from haechi.predict.evaluation.output.label_studio import write_label_studio


class Writer(Protocol):
    """Writes scored videos to a file for one tool."""

    def __call__(
        self,
        path: Path,
        videos: Sequence[ExportedVideo],
        *,
        model_version: str,
        media_root: Path | None = None,
        url_prefix: str = "",
    ) -> None:
        """Raises `HaechiError` if the videos cannot be exported together."""


# Name of the tool -> its writer.
WRITERS: dict[str, Writer] = {"label-studio": write_label_studio, "fiftyone": write_fiftyone}
