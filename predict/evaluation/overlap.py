"""Videos of a set that the head was trained or chosen on: the same bytes, or a near-duplicate scene."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class OverlapPair:
    """A video of the set, and the video of the run that it is the same as."""

    id: str
    other_id: str
    other_part: str
    """`train` or `val`."""
    kind: str
    """`same bytes`, or `near-duplicate`."""
    similarity: float | None
    """Cosine of the two scene descriptors; None for the same bytes."""


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """The overlap of a set with the videos that a head was trained or chosen on."""

    pairs: list[OverlapPair]
    """One for each video of the set that overlaps, with the closest video of the run; labelled or not."""
    kept: bool
    """Whether these videos are evaluated nevertheless (`--keep-overlap`)."""
    num_test: int
    """Labelled videos of the set that are in the run's own test part (same bytes): then the two samples are not
    independent."""
    unchecked: str
    """Why scenes, or anything, could not be compared, in a sentence; empty: all was compared."""
