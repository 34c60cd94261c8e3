"""The result of one run of the stress tests."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Record:
    """The result of one run. If `losses` is empty, nothing was lost."""

    what: str
    """Name of the run in the table."""
    tried: int
    """Number of attempts."""
    survived: int
    """Number of attempts after which everything was as expected."""
    losses: list[str] = field(default_factory=list)
    """One line for each thing that was lost, or accepted although it is damaged."""
    note: str
    """Short summary for the table."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Details behind the note, for the JSON file."""
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"lost": len(self.losses)}
