"""What one video may cost, and how a decoding process is held to it."""

import ctypes
import os
import resource
import signal
from dataclasses import dataclass
from pathlib import Path

from haechi.extract.decoding.container import Header
from haechi.extract.settings import ExtractSettings

PR_SET_PDEATHSIG = 1  # of Linux's sys/prctl.h

BLOCK_BYTES = 512  # the unit of st_blocks, whatever the file system's own


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a stranger's file may ask for."""

    max_pixels: int
    """Width x height of a frame."""
    max_frames: int
    timeout_seconds: float
    """For any video, and as much again for each of its minutes."""
    memory_bytes: int
    """Of a decoding process."""

    @classmethod
    def of(cls, settings: ExtractSettings) -> "Limits":
        return cls(
            max_pixels=settings.max_pixels,
            max_frames=settings.max_frames,
            timeout_seconds=settings.timeout_seconds,
            memory_bytes=int(settings.worker_memory_gb * 1e9),
        )

    @property
    def late_message(self) -> str:
        return f"not decoded within {self.timeout_seconds:g} s, and as much for each minute of it (--timeout)"

    def seconds_to_check(self, path: Path) -> float:
        """How long it may take until the header is known, which wants all of the file to be read once.

        As much again for each gigabyte that is really on the disk, whatever size the file claims.
        """
        try:
            num_bytes = path.stat().st_blocks * BLOCK_BYTES
        except OSError:
            num_bytes = 0
        return self.timeout_seconds * (1 + num_bytes / 1e9)

    def seconds_to_decode(self, header: Header) -> float:
        """How long it may take in all. A header's word for its length counts as far as it has frames, one a second."""
        length_seconds = min(max(header.duration_seconds, 0.0), float(header.num_packets))
        return self.timeout_seconds * (1 + length_seconds / 60)


def bind_to_parent(parent: int, memory_bytes: int) -> None:
    """In a decoding process, as it starts: bound its memory, and let it die with the process that started it."""
    _, most = resource.getrlimit(resource.RLIMIT_DATA)  # shared memory and mapped files are no part of it
    memory_bytes = memory_bytes if most == resource.RLIM_INFINITY else min(memory_bytes, most)
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash is expected, and its core dump would fill the disk
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # not handled by Python, which waits for the decoder
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before that
        os._exit(1)
