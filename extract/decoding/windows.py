"""`windows` sampling of a stream of frames: each frame is read once, and few are held in memory."""

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from haechi.extract.decoding.frame_times import Clock
from haechi.extract.decoding.reasons import Reason, UnusableError
from haechi.extract.decoding.shared_frames import Sink
from haechi.extract.sampling import Windows, uniform
from haechi.extract.timing import RESIZE, Stopwatch

WINDOW_FRAMES = 32  # frames of a window that SlowFast's fast pathway takes

# Containers round times to milliseconds: a sample closer than this to the end of a frame takes the next frame.
TOLERANCE_SECONDS = 0.002


@dataclass(frozen=True, kw_only=True)
class TimedFrame:
    """A frame, and from when to when it is shown."""

    frame: Any
    start_seconds: float
    end_seconds: float


def timed_frames(frames: Iterable[tuple[Any, float | None, float]], clock: Clock) -> Iterator[TimedFrame]:
    """Give each (frame, time or None, duration), seconds, its start and end: a frame ends when the next one starts."""
    before: tuple[Any, float, float] | None = None
    for frame, time, duration in frames:
        start = clock.next_start(time, duration)
        if before is not None:
            yield TimedFrame(frame=before[0], start_seconds=before[1], end_seconds=start)
        before = frame, start, duration
    if before is not None:
        yield TimedFrame(frame=before[0], start_seconds=before[1], end_seconds=before[1] + before[2])


class WindowStream:
    """Takes the frames of one video in order, and passes windows and CLIP frames to a sink.

    The motion backbone samples the video on a time grid with as many points in each window as it takes frames, and
    every window starts on a point. CLIP has its own grid. A point takes the frame that is shown at that moment.
    """

    def __init__(
        self, sampling: Windows, sink: Sink, watch: Stopwatch, *, max_samples: int, pixel_aspect: float = 1.0
    ) -> None:
        """`pixel_aspect`: width of a pixel / its height."""
        self._sampling, self._sink, self._watch, self._max_samples = sampling, sink, watch, max_samples
        self._pixel_aspect = pixel_aspect
        self._is_taken = [output.num_frames > 0 for output in sink.outputs] or [False, False]  # by CLIP, by SlowFast
        self._window_frames = sink.outputs[1].num_frames if self._is_taken[1] else WINDOW_FRAMES
        self._step_seconds = sampling.window_seconds / self._window_frames
        self._held: deque[np.ndarray] = deque(maxlen=self._window_frames)  # frames of the last points of the grid
        self._num_points = 0
        self._origin = 0.0
        self._clip: list[np.ndarray] = []  # CLIP frames that are not passed on yet
        self._clip_seconds: list[float] = []
        self._first_points: list[int] = []  # the first grid point of each window

    def show(self, picture: Callable[[], np.ndarray], start_seconds: float, end_seconds: float) -> None:
        """Take the next frame. `picture` is called for it, (H, W, 3) uint8 RGB, only if a point takes it.

        Raises `UnusableError` if up to here more than `max_samples` frames would be sampled; this frame is then not
        passed on.
        """
        if not self._num_points:
            self._origin = start_seconds
        if (end_seconds - self._origin) * (1 / self._step_seconds + self._sampling.clip_fps) > self._max_samples:
            message = f"more than {self._max_samples} frames would be sampled, which is the limit (--max-frames)"
            raise UnusableError(Reason.TOO_LARGE, message)
        until = end_seconds - TOLERANCE_SECONDS
        pixels = functools.cache(picture)

        @functools.cache
        def transformed(output: int) -> np.ndarray:
            if not self._is_taken[output]:
                return np.empty(0)
            frame = pixels()
            with self._watch.time(RESIZE):
                return self._sink.outputs[output].transform(frame, self._pixel_aspect)

        while True:
            point = self._origin + self._num_points * self._step_seconds
            clip = self._origin + len(self._clip_seconds) / self._sampling.clip_fps
            if min(point, clip) >= until and self._num_points and self._clip_seconds:
                return
            if clip <= point:
                self._take_clip(transformed, clip)
            else:
                self._take_point(transformed)

    def _take_clip(self, transformed: Callable[[int], np.ndarray], seconds: float) -> None:
        self._clip_seconds.append(seconds)
        if self._is_taken[0]:
            if len(self._clip) == self._sampling.max_clip_frames:
                self._publish([])
            self._clip.append(transformed(0))

    def _take_point(self, transformed: Callable[[int], np.ndarray]) -> None:
        self._held.append(transformed(1))
        self._num_points += 1
        following = round(len(self._first_points) * self._sampling.stride_seconds / self._step_seconds)
        if self._num_points == following + self._window_frames:
            self._publish_window()

    def finish(self, end_seconds: float) -> tuple[list[float], list[float], list[float]]:
        """Pass on what is left after the last frame, which was shown until `end_seconds`.

        The times of the CLIP frames (T,), and the starts and ends of the windows (S,), in seconds.
        """
        last = self._first_points[-1] + self._window_frames if self._first_points else 0
        if last < self._num_points:
            self._publish_window()
        else:
            self._publish([])
        starts = [self._origin + first * self._step_seconds for first in self._first_points]
        ends = [min(start + self._sampling.window_seconds, end_seconds) for start in starts]
        return self._clip_seconds, starts, ends

    def _publish_window(self) -> None:
        self._first_points.append(self._num_points - len(self._held))
        positions = uniform(len(self._held), self._window_frames) if self._is_taken[1] else []
        self._publish([self._held[i] for i in positions])

    def _publish(self, window: list[np.ndarray]) -> None:
        """Pass on the CLIP frames that wait, and the frames of one window, or none; nothing if there are neither."""
        if self._clip or window:
            outputs = [self._clip, window]
            for array, frames in zip(self._sink.free_arrays(), outputs, strict=True):
                for row, frame in zip(array, frames, strict=False):
                    row[:] = frame
            self._sink.publish([len(frames) for frames in outputs])
        self._clip = []
