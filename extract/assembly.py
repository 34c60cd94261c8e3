"""What the backbones made of each video's pieces, until all of it is there."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from haechi.extract.decoding.decode import Sampled

if TYPE_CHECKING:
    from haechi.extract.backbones.pair import MediaFeatures


@dataclass(kw_only=True)
class _Parts:
    """Of one video, tried the `attempt`-th time."""

    attempt: int
    features: "list[MediaFeatures]" = field(default_factory=list)
    num_clip: int = 0
    num_windows: int = 0
    sampled: Sampled | None = None
    """Known when the last piece was decoded."""

    @property
    def is_whole(self) -> bool:
        return self.sampled is not None and (self.num_clip, self.num_windows) == (
            len(self.sampled.clip_seconds),
            len(self.sampled.window_start_seconds),
        )


class Assembly:
    """Pieces come in each video's order; a video may fail between them, and be tried again."""

    def __init__(self) -> None:
        self._parts: dict[int, _Parts] = {}

    def begin(self, index: int, attempt: int) -> None:
        """A piece of a video, by its index, is on its way; what an earlier attempt brought is forgotten."""
        if index not in self._parts or self._parts[index].attempt != attempt:
            self._parts[index] = _Parts(attempt=attempt)

    def forget(self, index: int) -> None:
        """The video failed."""
        self._parts.pop(index, None)

    def add(self, index: int, attempt: int, features: "MediaFeatures") -> None:
        """Take a piece's features, unless its video has failed since."""
        parts = self._parts.get(index)
        if parts is not None and parts.attempt == attempt:
            parts.features.append(features)
            parts.num_clip += len(features.clip)
            parts.num_windows += len(features.slowfast)

    def end(self, index: int, sampled: Sampled) -> None:
        """The video's last piece was decoded."""
        self._parts[index].sampled = sampled

    def whole(self, index: int) -> "tuple[Sampled, MediaFeatures] | None":
        """The video, if all of it is there: it is handed out once."""
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
