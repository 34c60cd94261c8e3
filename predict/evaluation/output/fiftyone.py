"""Writes scored videos as a dataset of FiftyOne, in the JSON that `fiftyone.Dataset.from_json` reads.

The structure is that of `fiftyone.Dataset.write_json` (FiftyOne 1.22). `haechi.cache.annotations` reads the labels that
are corrected there.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from haechi.cache.annotations import GROUND_TRUTH, ID_FIELD
from haechi.cache.atomic import replace_text
from haechi.cache.kinds import VIDEO
from haechi.cache.schema import HARMFUL, LABEL_NAMES, SAFE, UNLABELLED
from haechi.predict.evaluation.output.exported import ExportedVideo, kind_of, location
from haechi.predict.prediction import HARMFUL_MOMENT

FIELDS = "fiftyone.core.fields"
TEXT, NUMBER = f"{FIELDS}.StringField", f"{FIELDS}.FloatField"
CLASSIFICATION = f"{FIELDS}.EmbeddedDocumentField(fiftyone.core.labels.Classification)"
MOMENTS = f"{FIELDS}.EmbeddedDocumentField(fiftyone.core.labels.TemporalDetections)"


def write_fiftyone(
    path: Path,
    videos: Sequence[ExportedVideo],
    *,
    model_version: str,
    media_root: Path | None = None,
    url_prefix: str = "",
) -> None:
    """Write the dataset, which is called `model_version`.

    Fields of a sample: `haechi_id`; `ground_truth`, the label, null if there is none; `prediction`, the decision with
    its calibrated probability as confidence; `moments` of videos; `score`, `calibrated`, `threshold`. `media_root`,
    `url_prefix`: see `exported.location`. Raises `HaechiError` if there are videos and images.
    """
    kind = kind_of(videos, tool="FiftyOne")
    fields = {"id": f"{FIELDS}.ObjectIdField", "filepath": TEXT, "tags": f"{FIELDS}.ListField({TEXT})", ID_FIELD: TEXT}
    fields |= {GROUND_TRUTH: CLASSIFICATION, "prediction": CLASSIFICATION}
    fields |= {"moments": MOMENTS} if kind == VIDEO else {}
    fields |= {"score": NUMBER, "calibrated": NUMBER, "threshold": NUMBER}
    samples = [_sample(video, location(video, media_root=media_root, url_prefix=url_prefix)) for video in videos]
    dataset = {"name": model_version, "media_type": kind, "sample_fields": fields, "info": {}, "samples": samples}
    replace_text(path, json.dumps(dataset, ensure_ascii=False, allow_nan=False) + "\n")


def _sample(video: ExportedVideo, file: str) -> dict[str, Any]:
    prediction = _classification(HARMFUL if video.is_harmful else SAFE) | {"confidence": video.confidence}
    sample: dict[str, Any] = {
        "filepath": file,
        "_media_type": video.kind,
        "tags": [],
        ID_FIELD: video.id,
        GROUND_TRUTH: None if video.label == UNLABELLED else _classification(video.label),
        "prediction": prediction,
        "score": video.score,
        "calibrated": video.calibrated,
        "threshold": video.threshold,
    }
    if video.kind == VIDEO:
        detections = [
            {
                "_cls": "TemporalDetection",
                "label": HARMFUL_MOMENT,
                "support": [segment.first_frame, segment.last_frame],
                "confidence": segment.score,
            }
            for segment in video.segments
        ]
        sample["moments"] = {"_cls": "TemporalDetections", "detections": detections}
    return sample


def _classification(label: int) -> dict[str, Any]:
    return {"_cls": "Classification", "label": LABEL_NAMES[label]}
