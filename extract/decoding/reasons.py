"""Why a video could not be used: the codes of `/failure/reason`."""

import traceback
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

from haechi.cache.errors import SettingsError
from haechi.cache.text import shown


class Reason(StrEnum):
    """One code for each kind of failure; the cache and the CSV of `haechi validate` hold its value."""

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
    NO_MOTION = "no_motion"
    BAD_FEATURES = "bad_features"
    NOT_FOUND = "not_found"
    FORBIDDEN = "forbidden"
    THROTTLED = "throttled"
    FETCH_TIMEOUT = "fetch_timeout"
    FETCH_FAILED = "fetch_failed"
    CHANGED_WHILE_READ = "changed_while_read"


STAGES = {
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
    Reason.NO_MOTION: "features",
    Reason.BAD_FEATURES: "features",
    Reason.NOT_FOUND: "fetch",
    Reason.FORBIDDEN: "fetch",
    Reason.THROTTLED: "fetch",
    Reason.FETCH_TIMEOUT: "fetch",
    Reason.FETCH_FAILED: "fetch",
    Reason.CHANGED_WHILE_READ: "fetch",
}
assert STAGES.keys() == set(Reason)


class UnusableError(Exception):
    """A video that cannot be used. Becomes a failure row, never a traceback."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message


# Starts the message of a file that failed because of an error in Haechi's own code.
DEFECT = "a defect of Haechi"

# Frames of the traceback that the message names, from the innermost one.
FRAMES_NAMED = 3


def defect_message(error: BaseException) -> str:
    """The message of a file at which Haechi's code failed: the exception, its text, and where it was raised."""
    frames = reversed(traceback.extract_tb(error.__traceback__)[-FRAMES_NAMED:])
    places = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 (an exception's own text may fail too)
        text = ""
    return f"{DEFECT}, please report it: {type(error).__name__}{f': {text}' if text else ''} ({places})"


def parse_reasons(names: Iterable[str]) -> frozenset[Reason]:
    """The reasons with these names. Raises `SettingsError` that lists all unknown names."""
    names = set(names)
    if unknown := sorted(names - set(Reason)):
        raise SettingsError([f"no such reason: {', '.join(map(shown, unknown))}; the reasons are {', '.join(Reason)}"])
    return frozenset(map(Reason, names))
