"""What FFmpeg's log tells of damage. Its decoders conceal damaged pictures and only log that they did."""

import re
from dataclasses import dataclass

# Concealment is told at level info; all else that tells of damage is an error.
CONCEALMENT = re.compile(r"concealing \d+ DC, \d+ AC, \d+ MV errors")
DAMAGE_LEVELS = {"panic", "fatal", "error", "critical"}

# These errors are logged for sound files too, at odd headers and where frames refer to what lies before the first.
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
    """The codec or container that speaks, such as `h264`."""
    level: str
    text: str

    @property
    def tells_damage(self) -> bool:
        return bool(self.level in DAMAGE_LEVELS or CONCEALMENT.match(self.text)) and not BENIGN.search(self.text)


def damage(lines: list[Line], *, ignored_sources: frozenset[str]) -> str:
    """What the log says of damaged pictures, in a few words; empty where it says nothing.

    `ignored_sources` are the decoders of sound and subtitles.
    """
    found = [line for line in lines if line.tells_damage and line.source not in ignored_sources]
    if not found:
        return ""
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return f"{found[0].source}: {found[0].text}{more}"
