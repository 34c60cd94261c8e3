"""The labelling tools that `haechi evaluate --export` writes for."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from haechi.cache.errors import HaechiError, SettingsError
from haechi.predict.evaluation.evaluation import RunFacts
from haechi.predict.evaluation.output.exported import ExportedVideo
from haechi.predict.evaluation.output.fiftyone import write_fiftyone
from haechi.predict.evaluation.output.label_studio import configuration_file, write_label_studio


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


def check_exports(files: Mapping[str, Path]) -> list[str]:
    """What is wrong with the files (tool -> file) that are to be written, whether or not their folders exist."""
    problems = [
        f"export is {name!r}, expected {' or '.join(map(repr, WRITERS))}" for name in files if name not in WRITERS
    ]
    written = list(files.values())
    if "label-studio" in files:
        try:
            written.append(configuration_file(files["label-studio"]))
        except SettingsError as error:
            problems += error.problems
    problems += [f"{file}: two exports to one file" for file in dict.fromkeys(written) if written.count(file) > 1]
    problems += [f"{file}: is a folder, not a file for an export" for file in written if file.is_dir()]
    return problems


def write_export(
    tool: str,
    path: Path,
    videos: Sequence[ExportedVideo],
    run: RunFacts,
    *,
    media_root: Path | None,
    url_prefix: str,
) -> None:
    """Write the videos that a run has scored for a tool. Its name in the tool says if its scores are meaningless.

    Raises `HaechiError` if the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        WRITERS[tool](
            path,
            videos,
            model_version=f"{run.name}-UNTRAINED" if run.untrained else run.name,
            media_root=media_root,
            url_prefix=url_prefix,
        )
    except OSError as error:
        raise HaechiError(
            f"{error.filename or path}: {error.strerror}; the export for {tool} was not written, the evaluation was"
        ) from error
