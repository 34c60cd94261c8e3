"""Finds damage in FFmpeg's log. Its decoders conceal damaged pictures, and report that only in the log."""

import re
from dataclasses import dataclass

# Concealment is logged at level info; all other signs of damage are errors.
CONCEALMENT = re.compile(r"concealing \d+ DC, \d+ AC, \d+ MV errors")
DAMAGE_LEVELS = {"panic", "fatal", "error", "critical"}

# These errors are logged for undamaged files too: for unusual headers, and for references to frames before the first.
BENIGN = re.compile(
    r"mmco: unref short failure|number of reference frames .* exceeds max|reference picture missing during reorder|"
    r"Missing reference picture|co located POCs unavailable|Could not find ref with POC|"
    r"SEI type .* truncated|SPS unavailable in decode_picture_timing|"
    r"Missing key frame while searching for timestamp|Cannot find an index entry before timestamp"
)


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of the log."""

    source: str
    """The codec or container that logged it, such as `h264`."""
    level: str
    text: str

    @property
    def reports_damage(self) -> bool:
        return bool(self.level in DAMAGE_LEVELS or CONCEALMENT.match(self.text)) and not BENIGN.search(self.text)


def damage(lines: list[Line], *, ignored_sources: frozenset[str]) -> str:
    """The first line that reports damaged pictures, and how many more there are; empty if there are none.

    `ignored_sources`: the decoders of audio and subtitles.
    """
    found = [line for line in lines if line.reports_damage and line.source not in ignored_sources]
    if not found:
        return ""
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return f"{found[0].source}: {found[0].text}{more}"
