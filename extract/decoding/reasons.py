"""Why a video could not be used: the codes that stand in `/failure/reason`."""

from enum import StrEnum


class Reason(StrEnum):
    """One code for each way to fail; the value is what the cache and the CSV of `haechi validate` hold."""

    MISSING = "missing"
    UNREADABLE = "unreadable"
    EMPTY_FILE = "empty_file"
    NOT_MEDIA = "not_media"
    NO_VIDEO_STREAM = "no_video_stream"
    NO_FRAMES = "no_frames"
    TOO_LARGE = "too_large"
    DAMAGED = "damaged"
    TIMEOUT = "timeout"
    CRASHED = "crashed"
    OUT_OF_MEMORY = "out_of_memory"
    BAD_FEATURES = "bad_features"


STAGE_OF = {
    Reason.MISSING: "validate",
    Reason.UNREADABLE: "validate",
    Reason.EMPTY_FILE: "validate",
    Reason.NOT_MEDIA: "validate",
    Reason.NO_VIDEO_STREAM: "validate",
    Reason.NO_FRAMES: "validate",
    Reason.TOO_LARGE: "validate",
    Reason.DAMAGED: "decode",
    Reason.TIMEOUT: "decode",
    Reason.CRASHED: "decode",
    Reason.OUT_OF_MEMORY: "decode",
    Reason.BAD_FEATURES: "features",
}
assert STAGE_OF.keys() == set(Reason)


class UnusableError(Exception):
    """A video that cannot be used. Becomes a failure row, never a traceback."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message
