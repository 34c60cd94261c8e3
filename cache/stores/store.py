"""What every kind of store can do."""

from collections.abc import Iterator
from typing import Protocol

from haechi.cache.file_state import FileState
from haechi.cache.stores.location import Location

# A connection on which nothing arrives for this time is given up.
SILENCE_SECONDS = 30.0
CONNECT_SECONDS = 10.0

CHUNK_BYTES = 1 << 20


class Store(Protocol):
    """One bucket, repository or host. Methods make one try each, and raise `StoreError`. Used by several threads."""

    def head(self, location: Location) -> FileState:
        """Size, modification time and ETag of a file."""

    def read(self, location: Location, state: FileState, *, start: int) -> Iterator[memoryview]:
        """The bytes of a file from `start` on, if it still is what `state` says."""

    def pages(self, prefix: str) -> Iterator[list[tuple[str, FileState]]]:
        """The keys of all files below a prefix with their states, as many at a time as a request brings."""
