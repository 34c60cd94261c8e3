"""What a shard holds, whatever its format version: arrays and attributes, and how they are read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

Attributes = Mapping[str, str | int | None]
"""Name -> value of a root attribute; None if it is neither one text nor one integer."""

IS_MISSING = "is missing"
"""Why a dataset is refused that is not there."""

MAX_ROW_BYTES = 4 << 20  # limit for one row of float32 values, from the widths that settings may declare


@dataclass(frozen=True, kw_only=True)
class Array:
    """What a shard says about one of its datasets."""

    dtype: np.dtype
    is_text: bool
    """Whether it holds text of fixed length in UTF-8."""
    shape: tuple[int, ...]
    block_rows: int
    """Number of rows that share one checksum: of a chunk in version 1, of a block in version 2."""
    flaw: str
    """What else breaks the rules of the version, such as `has rows that were never written`; empty if nothing."""


class Content(Protocol):
    """The content of an open shard.

    All methods raise `CacheError` if the system cannot read, and `DamageError` if a checksum shows altered bytes.
    """

    @property
    def attributes(self) -> Attributes:
        """The root attributes."""
        ...

    def array(self, name: str) -> Array | str:
        """The dataset `name`; or a text that says why it is refused, such as `IS_MISSING`."""
        ...

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """The rows from `start` up to `stop` of a dataset that was not refused; texts as bytes."""
        ...

    def read_into(self, result: np.ndarray, name: str, ranges: list[tuple[int, int]]) -> None:
        """Fill `result` with the rows in `ranges`: (start, stop) pairs, ascending."""
        ...
