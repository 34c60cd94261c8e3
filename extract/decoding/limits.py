"""Limits for decoding one video."""

from dataclasses import dataclass
from pathlib import Path

from haechi.extract.decoding.container import Header
from haechi.extract.settings import ExtractSettings

BLOCK_BYTES = 512  # the unit of st_blocks, for every file system


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a file of unknown origin may use."""

    max_pixels: int
    """Width x height of a frame."""
    max_frames: int
    timeout_seconds: float
    """For any video, and again for each minute of it."""
    memory_bytes: int
    """Memory of a decoding process."""

    @classmethod
    def of(cls, settings: ExtractSettings) -> "Limits":
        return cls(
            max_pixels=settings.max_pixels,
            max_frames=settings.max_frames,
            timeout_seconds=settings.timeout_seconds,
            memory_bytes=int(settings.worker_memory_gb * 1e9),
        )

    @property
    def timeout_message(self) -> str:
        limit = f"{self.timeout_seconds:g} s"
        return f"not decoded within the time limit: {limit} plus {limit} for each minute of video (--timeout)"

    def seconds_to_check(self, path: Path) -> float:
        """Time limit until the header is known, for which the whole file is read once.

        The time limit again for each gigabyte that is really on the disk, not the size that the file claims.
        """
        try:
            num_bytes = path.stat().st_blocks * BLOCK_BYTES
        except OSError:
            num_bytes = 0
        return self.timeout_seconds * (1 + num_bytes / 1e9)

    def seconds_to_decode(self, header: Header) -> float:
        """Time limit in total. The length that the header claims counts up to one second for each frame."""
        length_seconds = min(max(header.duration_seconds, 0.0), float(header.num_packets))
        return self.timeout_seconds * (1 + length_seconds / 60)
