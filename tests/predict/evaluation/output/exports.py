"""Scored videos and images for tests of the exports."""

from haechi.predict.evaluation.output.exported import ExportedVideo
from haechi.predict.prediction import ScoredWindow


def exported(id: str, **changes: object) -> ExportedVideo:
    """A video of 10 s with 25 frames per second."""
    fields: dict[str, object] = {
        "path": "",
        "kind": "video",
        "label": 1,
        "score": 0.7,
        "calibrated": 0.6,
        "threshold": 0.5,
        "is_harmful": True,
        "fps": 25.0,
        "duration_seconds": 10.0,
        "num_frames": 250,
    }
    return ExportedVideo(id=id, **(fields | changes))  # type: ignore[arg-type]


def moment(start_seconds: float, end_seconds: float, score: float = 0.9) -> ScoredWindow:
    """A window that reaches the threshold."""
    return ScoredWindow(start_seconds=start_seconds, end_seconds=end_seconds, score=score)


SAFE = {"score": 0.2, "calibrated": 0.1, "is_harmful": False}


def some_videos() -> list[ExportedVideo]:
    """Labelled and unlabelled ones, with and without moments, with ids that need care."""
    return [
        exported("clips/a.mp4", moments=(moment(0, 2), moment(2, 4, 0.95), moment(8, 10))),
        exported("clips/b & c #1 <é>.mp4", label=0, moments=(moment(9, 12),)),
        exported("clips/unlabelled.mkv", label=-1, **SAFE),
        exported("a name without ending", label=1, path="clips/d.mp4", fps=float("nan"), num_frames=0, **SAFE),
    ]


def some_images() -> list[ExportedVideo]:
    """Images have no frames per second."""
    image = {"kind": "image", "fps": 0.0, "duration_seconds": 0.0, "num_frames": 1}
    return [exported("a.jpg", **image), exported("b.heic", label=-1, **image, **SAFE)]
