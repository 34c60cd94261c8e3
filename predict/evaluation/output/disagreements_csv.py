"""disagreements.csv: what to check first, in the form that `haechi train --labels` reads."""

import csv
from pathlib import Path

import numpy as np

from haechi.cache.text import harmless
from haechi.predict.evaluation.evaluation import Evaluation
from haechi.train.evaluate.threshold import predict


def write_disagreements(path: Path, evaluation: Evaluation) -> None:
    """Write one row for each disagreement, the most confident first. `label` is as it is now, for the user to correct.

    Scores have all their digits. Texts that a spreadsheet would run as a formula get a `'` in front, as in
    predictions.csv.
    """
    found, here = evaluation.disagreements, evaluation.here
    rows = np.array([each.row for each in found], dtype=int)
    columns = {
        "id": evaluation.ids[rows],
        "label": here.labels[rows],
        "score": here.scores[rows],
        "calibrated": here.calibrated[rows],
        "threshold": here.thresholds[rows],
        "prediction": predict(here.scores[rows], here.thresholds[rows]),
        "self_confidence": np.array([each.self_confidence for each in found]),
        "likely_label_error": np.array([each.is_likely_label_error for each in found], dtype=int),
    }
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for row in zip(*(column.tolist() for column in columns.values()), strict=True):
            writer.writerow([harmless(value) if isinstance(value, str) else value for value in row])
