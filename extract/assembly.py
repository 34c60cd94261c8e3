"""Collects the features of each video, which come in parts, until all of them have arrived."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from haechi.extract.decoding.decode import DecodedFile

if TYPE_CHECKING:
    from haechi.extract.backbones.pair import MediaFeatures


@dataclass(kw_only=True)
class _Parts:
    """The features of one video so far, all from the same attempt at decoding it."""

    attempt: int
    features: "list[MediaFeatures]" = field(default_factory=list)
    num_clip: int = 0
    num_windows: int = 0
    sampled: DecodedFile | None = None
    """Known after the last frames were decoded."""

    @property
    def is_whole(self) -> bool:
        return self.sampled is not None and (self.num_clip, self.num_windows) == (
            len(self.sampled.clip_seconds),
            len(self.sampled.window_start_seconds),
        )


class Assembly:
    """Collects parts in the order of each video. A video may fail between two parts, and be tried again."""

    def __init__(self) -> None:
        self._parts: dict[int, _Parts] = {}

    def begin(self, index: int, attempt: int) -> None:
        """Expect parts of the video with this index; parts of an earlier attempt are dropped."""
        if index not in self._parts or self._parts[index].attempt != attempt:
            self._parts[index] = _Parts(attempt=attempt)

    def forget(self, index: int) -> None:
        """Drop the video, which failed."""
        self._parts.pop(index, None)

    def add(self, index: int, attempt: int, features: "MediaFeatures") -> None:
        """Take the features of a part, unless its video has failed meanwhile."""
        parts = self._parts.get(index)
        if parts is not None and parts.attempt == attempt:
            parts.features.append(features)
            parts.num_clip += len(features.clip)
            parts.num_windows += len(features.slowfast)

    def end(self, index: int, sampled: DecodedFile) -> None:
        """Record that the whole video was decoded."""
        self._parts[index].sampled = sampled

    def whole(self, index: int) -> "tuple[DecodedFile, MediaFeatures] | None":
        """The video, if all its features have arrived; it is returned once and then dropped."""
        from haechi.extract.backbones.pair import MediaFeatures

        parts = self._parts.get(index)
        if parts is None or not parts.is_whole or parts.sampled is None:
            return None
        del self._parts[index]
        return parts.sampled, MediaFeatures(
            clip=np.concatenate([piece.clip for piece in parts.features]),
            slowfast=np.concatenate([piece.slowfast for piece in parts.features]),
            slowfast_logits=np.concatenate([piece.slowfast_logits for piece in parts.features]),
        )
