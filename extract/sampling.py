"""Which frames: pure arithmetic.

`uniform` spreads T frames evenly over a video of n frames, first and last included:

    n = 9, T = 5      frame   0  1  2  3  4  5  6  7  8
                      taken   0     1     2     3     4
    n = 3, T = 5      frame   0     1     2
                      taken   0  1  2  3  4      (policy `repeat`: 0 0 1 1 2)

`windows` covers a video of any length, in time: every window shows SlowFast its own frames, CLIP sees some a second.

    seconds           0         1         2         3         4        5    window 2 s, stride 1.5 s, 2 CLIP frames/s
    windows           ├── 0 ──────────────┤
                                     ├── 1 ──────────────┤
                                                ├── 2 ──────────────┤    the last one ends with the video
    CLIP              0    1    2    3    4    5    6    7    8    9
"""

import math
from dataclasses import dataclass
from typing import Any

UNIFORM, WINDOWS = "uniform", "windows"
SAMPLINGS = (UNIFORM, WINDOWS)

SHORT_POLICY = "repeat"  # a video with fewer frames than asked for shows some of them several times, in order

MAX_CLIP_FRAMES = 64  # of `windows`, that are handed on at once


def uniform(num_frames: int, num_samples: int) -> list[int]:
    """Indices of `num_samples` frames evenly spaced over `num_frames`, first and last included, never falling.

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
    """So many frames over the whole video, whatever its length: one window, the report's way."""

    frames: int

    @property
    def settings(self) -> dict[str, Any]:
        """Its part of the cache's settings."""
        return {"name": UNIFORM, "frames": self.frames, "short": SHORT_POLICY}

    @property
    def max_clip_frames(self) -> int:
        """CLIP frames that come with a window, at most."""
        return self.frames


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Windows over the whole video, and CLIP frames by the clock."""

    window_seconds: float
    stride_seconds: float
    """From the start of a window to that of the next; as long as a window, or less."""
    clip_fps: float
    """CLIP frames a second."""

    @property
    def settings(self) -> dict[str, Any]:
        """Its part of the cache's settings."""
        return {
            "name": WINDOWS,
            "window_seconds": self.window_seconds,
            "stride_seconds": self.stride_seconds,
            "clip_fps": self.clip_fps,
        }

    @property
    def max_clip_frames(self) -> int:
        """CLIP frames that come with a window, at most: those of its length, and one at either end; or without one."""
        return min(math.floor(self.window_seconds * self.clip_fps) + 2, MAX_CLIP_FRAMES)


Sampling = Uniform | Windows
