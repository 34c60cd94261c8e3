"""When the frames of a video are shown, and which of them were taken."""

import math
from dataclasses import dataclass

import numpy as np

from haechi.extract.decoding.reasons import Reason, UnusableError

MAX_SECONDS = 10 * 365 * 86400  # times beyond are what decoders give where there are none

# A frame that comes so much later than the one before is over, in a container whose clock may jump, begins a new part.
# FFmpeg's own measure for those (-dts_delta_threshold).
JUMP_SECONDS = 10.0


class Clock:
    """Makes the times of a container rise.

    A frame without a time is shown when the one before is over. So is one whose time falls back, as where recordings
    were joined, or leaps ahead in a container whose clock may jump: what follows is shifted with it. A time that is
    only doubled moves no other, until two are doubled in a row.
    """

    def __init__(self, *, may_jump: bool) -> None:
        """`may_jump`: whether the container's clock may begin anew at any time."""
        self._may_jump = may_jump
        self._shift = 0.0
        self._start = self._until = -math.inf
        self._is_doubled, self._may_double = False, True

    def start_of(self, time: float | None, duration: float) -> float:
        """When the next frame is shown, from its `time` in the container and how long it lasts by its own word."""
        if self._start == -math.inf:
            start = 0.0 if time is None else time
        elif time is None:
            start = self._until
        else:
            start = time + self._shift
            back = self._start - start
            if self._may_double and 0 <= back < 2 * duration:
                if not self._is_doubled:
                    self._is_doubled = True
                    self._start += duration / 2  # the frame after finds its own time free
                    return self._start
                self._may_double = False
            if back >= 0 or (self._may_jump and start - self._until > JUMP_SECONDS):
                self._may_jump = True
                self._shift, start = self._until - time, self._until
        self._is_doubled = False
        self._start, self._until = start, start + duration
        return start


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """The frames of a video in the order in which they are shown."""

    start_seconds: np.ndarray
    """(n,) float64: when each frame is first shown."""
    end_seconds: np.ndarray
    """(n,) float64: until when."""
    fps: float
    width: int
    """Pixels as shown, after rotation metadata is applied."""
    height: int

    @property
    def num_frames(self) -> int:
        return len(self.start_seconds)

    @property
    def duration_seconds(self) -> float:
        """From the first frame's start to the last frame's end, to the microsecond."""
        return round(float(self.end_seconds[-1] - self.start_seconds[0]), 6)

    def check(self) -> None:
        """Raise `UnusableError` where these cannot be the times of frames."""
        times = np.concatenate([self.start_seconds, self.end_seconds])
        if not np.isfinite(times).all() or np.abs(times).max() > MAX_SECONDS:
            raise UnusableError(Reason.DAMAGED, "its frames have no valid times")
        if (np.diff(self.start_seconds) < 0).any() or (self.end_seconds < self.start_seconds).any():
            raise UnusableError(Reason.DAMAGED, "the times of its frames run backwards")
        if self.num_frames > 1 and self.duration_seconds <= 0:
            raise UnusableError(Reason.DAMAGED, f"its {self.num_frames} frames last {self.duration_seconds:g} s")

    def taken(self, indices: list[int]) -> "Taken":
        """These frames as CLIP's, all of them in one window. Raises as `check`."""
        self.check()
        return Taken(
            clip_seconds=self.start_seconds[indices],
            window_start_seconds=self.start_seconds[indices[:1]],
            window_end_seconds=self.end_seconds[indices[-1:]],
            duration_seconds=self.duration_seconds,
            fps=self.fps,
            num_frames=self.num_frames,
            width=self.width,
            height=self.height,
        )


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What the backbones are shown of a video or image, and what is known of the whole."""

    clip_seconds: np.ndarray
    """(T,) float64: when each frame that CLIP sees is shown."""
    window_start_seconds: np.ndarray
    """(S,) float64: of each window that SlowFast sees. An image has none."""
    window_end_seconds: np.ndarray
    duration_seconds: float
    fps: float
    num_frames: int
    width: int
    """Pixels as shown."""
    height: int
