"""CSV files of the results, column by column."""

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from haechi.cache.text import harmless


def write_columns(path: Path, columns: Mapping[str, np.ndarray]) -> None:
    """Write columns (N,) by their names, one row for each video.

    Numbers have all their digits. Texts that a spreadsheet would run as a formula (they start with = + - @ or a tab or
    line break) get a `'` in front.
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for row in zip(*(column.tolist() for column in columns.values()), strict=True):
            writer.writerow([harmless(value) if isinstance(value, str) else value for value in row])
