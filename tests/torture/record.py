"""What a run tried, and what came of it."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Record:
    """One run's result. Nothing was lost where `losses` is empty."""

    what: str
    tried: int
    survived: int
    losses: list[str] = field(default_factory=list)
    """What was lost or let in against the rules, one line each."""
    note: str
    facts: dict[str, Any] = field(default_factory=dict)
    """Counts behind the note."""
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"lost": len(self.losses)}
