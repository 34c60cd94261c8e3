"""disagreements.csv: what to check first, in the form that `haechi train --labels` reads."""

from pathlib import Path

import numpy as np

from haechi.predict.evaluation.evaluation import Evaluation
from haechi.train.evaluate.threshold import predict
from haechi.train.output.csv_columns import write_columns


def write_disagreements(path: Path, evaluation: Evaluation) -> None:
    """Write one row for each disagreement, the most confident first, for the user to correct `label`."""
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
    write_columns(path, columns)
