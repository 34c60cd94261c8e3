"""When the frames of a video are shown, and which of them were sampled."""

import math
from dataclasses import dataclass

import numpy as np

from haechi.extract.decoding.reasons import Reason, UnusableError

MAX_TIME_SECONDS = 10 * 365 * 86400  # decoders give larger times for frames without a time

# In a container whose clock may jump, a frame that starts this much later than the previous one ends begins a new part.
# The value is FFmpeg's (-dts_delta_threshold).
JUMP_SECONDS = 10.0


class Clock:
    """Turns the times of a container into times that only increase.

    A frame without a time starts when the previous one ends. So does a frame whose time is earlier than the previous
    one (joined recordings), or much later in a container whose clock may jump: all following times are shifted with it.
    A single frame with the same time as the previous one shifts no other frame; two in a row do.
    """

    def __init__(self, *, may_jump: bool) -> None:
        """`may_jump`: whether the container's clock may restart at any time."""
        self._may_jump = may_jump
        self._shift = 0.0
        self._start = self._until = -math.inf
        self._is_doubled, self._may_double = False, True

    def next_start(self, time: float | None, duration: float) -> float:
        """When the next frame starts, seconds, from its time and duration in the container."""
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
                    self._start += duration / 2  # so that the next frame can keep its own time
                    return self._start
                self._may_double = False
            if back >= 0 or (self._may_jump and start - self._until > JUMP_SECONDS):
                self._may_jump = True
                self._shift, start = self._until - time, self._until
        self._is_doubled = False
        self._start, self._until = start, start + duration
        return start


@dataclass(frozen=True, kw_only=True)
class FrameTimes:
    """The frames of a video in the order in which they are shown."""

    start_seconds: np.ndarray
    """(n,) float64: when each frame is first shown."""
    end_seconds: np.ndarray
    """(n,) float64: when it is no longer shown."""
    fps: float
    width: int
    """Stored pixels, after rotation metadata is applied."""
    height: int

    @property
    def num_frames(self) -> int:
        return len(self.start_seconds)

    @property
    def duration_seconds(self) -> float:
        """From the first frame's start to the last frame's end, rounded to microseconds."""
        return round(float(self.end_seconds[-1] - self.start_seconds[0]), 6)

    def check(self) -> None:
        """Raise `UnusableError` if these cannot be the times of frames."""
        times = np.concatenate([self.start_seconds, self.end_seconds])
        if not np.isfinite(times).all() or np.abs(times).max() > MAX_TIME_SECONDS:
            raise UnusableError(Reason.DAMAGED, "its frames have no valid times")
        if (np.diff(self.start_seconds) < 0).any() or (self.end_seconds < self.start_seconds).any():
            raise UnusableError(Reason.DAMAGED, "the times of its frames run backwards")
        if self.num_frames > 1 and self.duration_seconds <= 0:
            raise UnusableError(Reason.DAMAGED, f"its {self.num_frames} frames last {self.duration_seconds:g} s")

    def sampled(self, indices: list[int]) -> "DecodedMedia":
        """The result of `uniform` sampling: these frames for CLIP, and one window over all. Raises as `check` does."""
        self.check()
        return DecodedMedia(
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
class DecodedMedia:
    """When the sampled frames and windows of a video or image are shown, and what is known of the whole of it."""

    clip_seconds: np.ndarray
    """(T,) float64: when each frame that CLIP sees is shown."""
    window_start_seconds: np.ndarray
    """(S,) float64: start of each window that SlowFast sees. An image has none."""
    window_end_seconds: np.ndarray
    """(S,) float64."""
    duration_seconds: float
    fps: float
    num_frames: int
    width: int
    """Pixels as shown."""
    height: int
