"""What the backbones made of each video's pieces, until all of it is there."""

from dataclasses import dataclass, field

import numpy as np

from haechi.cache.schema import FRAME_STREAM, STREAMS, WINDOW_STREAM
from haechi.extract.decoding.decode import Sampled


@dataclass(kw_only=True)
class _Parts:
    """Of one video, tried the `attempt`-th time."""

    attempt: int
    pieces: list[dict[str, np.ndarray]] = field(default_factory=list)
    """Dataset -> rows, of each piece."""
    num_rows: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STREAMS, 0))
    """Stream -> rows of all pieces."""
    sampled: Sampled | None = None
    """Known when the last piece was decoded."""

    @property
    def is_whole(self) -> bool:
        return self.sampled is not None and self.num_rows == {
            FRAME_STREAM: len(self.sampled.clip_seconds),
            WINDOW_STREAM: len(self.sampled.window_start_seconds),
        }


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

    def add(self, index: int, attempt: int, features: dict[str, np.ndarray]) -> None:
        """Take a piece's features, unless its video has failed since."""
        parts = self._parts.get(index)
        if parts is not None and parts.attempt == attempt:
            parts.pieces.append(features)
            for stream in STREAMS:
                parts.num_rows[stream] += len(features[f"{stream}/features"])

    def end(self, index: int, sampled: Sampled) -> None:
        """The video's last piece was decoded."""
        self._parts[index].sampled = sampled

    def whole(self, index: int) -> tuple[Sampled, dict[str, np.ndarray]] | None:
        """The video, if all of it is there: it is handed out once, as dataset -> rows."""
        parts = self._parts.get(index)
        if parts is None or not parts.is_whole or parts.sampled is None:
            return None
        del self._parts[index]
        return parts.sampled, {
            name: np.concatenate([piece[name] for piece in parts.pieces]) for name in parts.pieces[0]
        }
