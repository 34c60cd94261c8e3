"""Times in a video, as players show them."""

import math


def player_time(seconds: float) -> str:
    """`m:ss`, or `h:mm:ss` from one hour on; seconds are rounded down."""
    minutes, second = divmod(math.floor(abs(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    sign = "-" if seconds < 0 else ""
    return f"{sign}{hours}:{minute:02d}:{second:02d}" if hours else f"{sign}{minute}:{second:02d}"
