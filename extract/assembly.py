"""Collects the features of each video, which come in parts, until all of them have arrived."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from haechi.cache.schema import FRAME_STREAM, WINDOW_STREAM
from haechi.extract.decoding.decode import DecodedFile


@dataclass(kw_only=True)
class _Parts:
    """The features of one video so far, all from the same attempt at decoding it."""

    attempt: int
    parts: list[dict[str, np.ndarray]] = field(default_factory=list)
    """Dataset -> rows, for each part."""
    num_rows: dict[str, int]
    """Stream with a network -> rows of all parts."""
    sampled: DecodedFile | None = None
    """Known after the last frames were decoded."""

    @property
    def is_whole(self) -> bool:
        if self.sampled is None:
            return False
        expected = {
            FRAME_STREAM: len(self.sampled.clip_seconds),
            WINDOW_STREAM: len(self.sampled.window_start_seconds),
        }
        return all(expected[stream] == number for stream, number in self.num_rows.items())


class Assembly:
    """Collects parts in the order of each video. A video may fail between two parts, and be tried again."""

    def __init__(self, streams: Sequence[str]) -> None:
        """`streams`: those that have a network."""
        self._streams = streams
        self._parts: dict[int, _Parts] = {}

    def begin(self, index: int, attempt: int) -> None:
        """Expect parts of the video with this index; parts of an earlier attempt are dropped."""
        if index not in self._parts or self._parts[index].attempt != attempt:
            self._parts[index] = _Parts(attempt=attempt, num_rows=dict.fromkeys(self._streams, 0))

    def forget(self, index: int) -> None:
        """Drop the video, which failed."""
        self._parts.pop(index, None)

    def add(self, index: int, attempt: int, features: dict[str, np.ndarray]) -> None:
        """Take the features of a part, unless its video has failed meanwhile."""
        parts = self._parts.get(index)
        if parts is not None and parts.attempt == attempt:
            parts.parts.append(features)
            for stream in self._streams:
                parts.num_rows[stream] += len(features[f"{stream}/features"])

    def end(self, index: int, sampled: DecodedFile) -> None:
        """Record that the whole video was decoded."""
        self._parts[index].sampled = sampled

    def whole(self, index: int) -> tuple[DecodedFile, dict[str, np.ndarray]] | None:
        """The video with dataset -> rows, if all its features have arrived; it is returned once and then dropped."""
        parts = self._parts.get(index)
        if parts is None or not parts.is_whole or parts.sampled is None:
            return None
        del self._parts[index]
        return parts.sampled, {name: np.concatenate([part[name] for part in parts.parts]) for name in parts.parts[0]}
