"""The recording of each video, from a CSV."""

import csv
from pathlib import Path

import click
import numpy as np

OPTION_TYPE = click.Path(path_type=Path, exists=True, dir_okay=False)


def read_recordings(ids: np.ndarray, path: Path) -> np.ndarray:
    """The recording (N,) str of each id (N,), from a CSV with the columns path (the id) and source; empty: unknown.

    Raises `click.UsageError` if no two videos share a recording.
    """
    with path.open(encoding="utf-8", newline="") as file:
        found = {row["path"]: row["source"] for row in csv.DictReader(file)}
    sources = np.array([found.get(id, "") for id in ids], dtype=object)
    known = sources[sources != ""].tolist()
    if len(set(known)) == len(known):
        raise click.UsageError(f"{path}: no two videos of the cache have the same source")
    return sources
