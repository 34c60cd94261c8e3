"""Finds the frames and windows of a video that are identical to the one before: they are computed once."""

from dataclasses import dataclass, field

import numpy as np

from haechi.cache.schema import FRAME_STREAM


@dataclass(eq=False, kw_only=True)
class Row:
    """A row of features."""

    features: dict[str, np.ndarray] | None = None
    """Array name -> (width,) float32; None until it is computed."""


@dataclass(eq=False, kw_only=True)
class Seen:
    """What a network sees: a frame or a window, and all that are identical to it one after another."""

    picture: np.ndarray | None
    """The frame, or the single picture that a window shows; None for a window in which something moves."""
    rows: dict[int, Row] = field(default_factory=dict)
    """Number of frames or windows that are computed at once -> the row that is computed so, or will be."""


class Repeats:
    """Compares the frames and windows of each video with the one before, bit by bit.

    A window counts as identical if both show a single picture, and the same one: only these are kept to be compared.
    """

    def __init__(self) -> None:
        self._latest: dict[int, tuple[int, dict[str, Seen]]] = {}  # of each video: its attempt, and by stream

    def find(self, index: int, attempt: int, stream: str, frames: np.ndarray) -> list[Seen]:
        """One for each frame or window of a piece: the one before of its video, if it is identical.

        `index` and `attempt` are those of the video. `frames` are (T, h, w, 3), or windows (S, num_frames, H, W, 3).
        """
        if index not in self._latest or self._latest[index][0] != attempt:
            self._latest[index] = attempt, {}
        by_stream, found = self._latest[index][1], list[Seen]()
        latest = by_stream.get(stream)
        for frame in frames:
            picture = frame if stream == FRAME_STREAM else _single_picture(frame)
            if latest is None or picture is None or latest.picture is None or not _is_equal(picture, latest.picture):
                latest = Seen(picture=picture)
            found.append(latest)
        for seen in found:
            if seen is not latest:
                seen.picture = None
        if found and latest is not None:
            latest.picture = None if latest.picture is None else latest.picture.copy()  # `frames` are overwritten
            by_stream[stream] = latest
        return found

    def forget(self, index: int) -> None:
        """Drop the video, of which no more frames come."""
        self._latest.pop(index, None)


def _single_picture(window: np.ndarray) -> np.ndarray | None:
    """The picture that all frames of a window show; None if they differ."""
    first: np.ndarray = window[0]
    return first if all(_is_equal(frame, first) for frame in window[:0:-1]) else None


def _is_equal(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two pictures (H, W, 3) have the same bits. A line in the middle decides nearly always."""
    a, b = a.view(np.uint8), b.view(np.uint8)
    middle = len(a) // 2
    return np.array_equal(a[middle], b[middle]) and np.array_equal(a, b)
