"""What is done about pixels that are not square. A cache that does not say took them for square (older versions)."""

from typing import Any

# display: they are stretched to their shape on a screen. stored: they are taken for square.
DISPLAY, STORED = PIXEL_ASPECTS = ("display", "stored")

KEY = "pixel_aspect"


def entry(pixel_aspect: str) -> dict[str, str]:
    """The entry of a cache's settings, which the fingerprint hashes; none for `stored`."""
    return {} if pixel_aspect == STORED else {KEY: pixel_aspect}


def of_settings(settings: dict[str, Any]) -> Any:
    """One of `PIXEL_ASPECTS`, from a cache's settings; anything else if a later version wrote it."""
    return settings.get(KEY, STORED)
