"""Writes scored videos as tasks of Label Studio, with the head's decision as prediction, and a labelling configuration.

Task format: https://labelstud.io/guide/task_format, predictions: https://labelstud.io/guide/predictions, moments:
https://labelstud.io/tags/timelinelabels. `haechi.cache.annotations` reads the decisions that are made there.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from haechi.cache.annotations import DECISION, ID_FIELD, LABEL_FIELD
from haechi.cache.atomic import replace_text
from haechi.cache.errors import SettingsError
from haechi.cache.kinds import VIDEO
from haechi.cache.schema import HARMFUL, LABEL_NAMES, SAFE
from haechi.predict.evaluation.output.exported import ExportedVideo, kind_of, location
from haechi.predict.prediction import HARMFUL_MOMENT

# The name of the controls for moments in the configuration; that of the decision is `DECISION`.
MOMENTS = "moments"

# Frame rates belong to the tasks: with another one than the file's, Label Studio shows moments at wrong times.
MEDIA_TAG = {
    VIDEO: f"""<Video name="video" value="$video" frameRate="$fps"/>
  <TimelineLabels name="{MOMENTS}" toName="video">
    <Label value="{HARMFUL_MOMENT}" background="#d9480f"/>
  </TimelineLabels>""",
    "image": '<Image name="image" value="$image"/>',
}
CONFIGURATION = """<View>
  <Header value="${id_field}"/>
  {media}
  <Choices name="{decision}" toName="{kind}" choice="single" showInline="true" required="true">
    <Choice value="{harmful}"/>
    <Choice value="{safe}"/>
  </Choices>
</View>
"""


def write_label_studio(
    path: Path,
    videos: Sequence[ExportedVideo],
    *,
    model_version: str,
    media_root: Path | None = None,
    url_prefix: str = "",
) -> None:
    """Write the tasks to `path`, and beside it, with the suffix .xml, the labelling configuration for their project.

    `model_version` names the head in Label Studio. `media_root`, `url_prefix`: see `exported.location`; Label Studio
    reads local files through the prefix `/data/local-files/?d=`.

    Raises `HaechiError` if there are videos and images, `SettingsError` if `path` itself ends in .xml.
    """
    interface = configuration_file(path)
    kind = kind_of(videos, tool="Label Studio")
    tasks = []
    for video in videos:
        file = location(video, media_root=media_root, url_prefix=url_prefix)
        tasks.append(_task(video, file, model_version=model_version))
    replace_text(path, json.dumps(tasks, ensure_ascii=False, allow_nan=False) + "\n")
    replace_text(interface, configuration(kind))


def configuration_file(path: Path) -> Path:
    """The file of the labelling configuration, for the tasks in `path`. Raises `SettingsError` if that ends in .xml."""
    if path.suffix.lower() == ".xml":
        raise SettingsError([f"{path}: the tasks are JSON, and the labelling configuration is written beside as .xml"])
    return path.with_suffix(".xml")


def configuration(kind: str) -> str:
    """The labelling configuration for tasks of a kind, `video` or `image`, in XML."""
    return CONFIGURATION.format(
        id_field=ID_FIELD,
        media=MEDIA_TAG[kind],
        decision=DECISION,
        kind=kind,
        harmful=LABEL_NAMES[HARMFUL],
        safe=LABEL_NAMES[SAFE],
    )


def _task(video: ExportedVideo, file: str, *, model_version: str) -> dict[str, Any]:
    data: dict[str, Any] = {
        video.kind: file,
        ID_FIELD: video.id,
        LABEL_FIELD: LABEL_NAMES[video.label],
        "score": video.score,
        "calibrated": video.calibrated,
        "threshold": video.threshold,
    }
    result: list[dict[str, Any]] = [
        {
            "id": DECISION,
            "from_name": DECISION,
            "to_name": video.kind,
            "type": "choices",
            "value": {"choices": [LABEL_NAMES[HARMFUL if video.is_harmful else SAFE]]},
            "score": video.confidence,
        }
    ]
    if video.kind == VIDEO:
        data["fps"] = video.fps if video.fps > 0 else None
        result += [
            {
                "id": f"{MOMENTS}-{number}",
                "from_name": MOMENTS,
                "to_name": video.kind,
                "type": "timelinelabels",
                "value": {
                    "ranges": [{"start": segment.first_frame, "end": segment.last_frame}],
                    "timelinelabels": [HARMFUL_MOMENT],
                },
                "score": segment.score,
            }
            for number, segment in enumerate(video.segments, start=1)
        ]
    return {
        "data": data,
        "predictions": [{"model_version": model_version, "score": video.score, "result": result}],
    }
