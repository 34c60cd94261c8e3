"""Which frames of a video are used: pure arithmetic.

`uniform` spreads T frames evenly over a video of n frames, first and last included:

    n = 9, T = 5      frame    0  1  2  3  4  5  6  7  8
                      sample   0     1     2     3     4
    n = 3, T = 5      frame    0     1     2
                      sample   0  1  2  3  4      (policy `repeat`: frames 0 0 1 1 2)

`windows` covers a video of any length: SlowFast sees windows of fixed length, CLIP a fixed number of frames per second.

    seconds           0         1         2         3         4        5    window 2 s, stride 1.5 s, 2 CLIP frames/s
    windows           ├── 0 ──────────────┤
                                     ├── 1 ──────────────┤
                                                ├── 2 ──────────────┤    the last window ends with the video
    CLIP              0    1    2    3    4    5    6    7    8    9
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

UNIFORM, WINDOWS = "uniform", "windows"
SAMPLINGS = (UNIFORM, WINDOWS)

SHORT_POLICY = "repeat"  # if a video has fewer frames than samples, some frames are used several times, in order

MAX_CLIP_FRAMES = 64  # CLIP frames that `windows` passes on at once


def uniform(num_frames: int, num_samples: int) -> list[int]:
    """Indices of `num_samples` frames evenly spaced over `num_frames`, first and last included, in ascending order.

    The position i * (n - 1) / (T - 1) is rounded down, as `np.linspace(0, n - 1, T, dtype=int)` does. A single sample
    is the middle frame.
    """
    assert num_frames > 0, num_frames
    assert num_samples > 0, num_samples
    if num_samples == 1:
        return [num_frames // 2]
    return [i * (num_frames - 1) // (num_samples - 1) for i in range(num_samples)]


@dataclass(frozen=True, kw_only=True)
class Uniform:
    """A fixed number of frames over the whole video, of any length, in one window. The default."""

    is_streamed: ClassVar = False
    """Whether frames are passed on while the video is still being decoded."""

    frames: int

    @property
    def settings(self) -> dict[str, Any]:
        """The `sampling` part of the cache's settings."""
        return {"name": UNIFORM, "frames": self.frames, "short": SHORT_POLICY}

    @property
    def max_clip_frames(self) -> int:
        """Largest number of CLIP frames that are passed on with a window."""
        return self.frames


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Windows of fixed length over the whole video, and CLIP frames at fixed times."""

    is_streamed: ClassVar = True

    window_seconds: float
    stride_seconds: float
    """From the start of a window to the start of the next; at most the length of a window."""
    clip_fps: float
    """CLIP frames per second."""

    @property
    def settings(self) -> dict[str, Any]:
        """The `sampling` part of the cache's settings."""
        return {
            "name": WINDOWS,
            "window_seconds": self.window_seconds,
            "stride_seconds": self.stride_seconds,
            "clip_fps": self.clip_fps,
        }

    @property
    def max_clip_frames(self) -> int:
        """Largest number of CLIP frames that are passed on at once: those of a window, and one at each end."""
        return min(math.floor(self.window_seconds * self.clip_fps) + 2, MAX_CLIP_FRAMES)


Sampling = Uniform | Windows
