"""The errors a user can cause. The command line prints their text and exits; nothing else is caught there."""

import unicodedata


class HaechiError(Exception):
    """Base of every error whose text is meant for a user: what, where, got against expected, what to do."""


class CacheError(HaechiError):
    """A cache or a shard that is missing, damaged, of another version, or made with other settings."""


class VersionError(CacheError):
    """A shard of another format version: not damage, and not ours to change."""


class FeatureError(HaechiError):
    """Features that must not be stored: NaN, infinity, all-zero rows, or too large for the storage type."""


def visible(text: str) -> str:
    """`text` on one line, safe for a terminal: what would act instead of being seen is spelled out, as in `\\x1b`.

    Control characters, line breaks, changes of writing direction and bytes that were no UTF-8 are spelled out; letters
    of every script and all spaces stay.
    """
    return "".join(
        c if c.isprintable() or unicodedata.category(c) == "Zs" else c.encode("unicode_escape").decode() for c in text
    )


def bullet_list(lines: list[str], *, limit: int = 20) -> str:
    """Join offenders for an error's text, one a line; beyond `limit` only their number is told."""
    shown = [f"  - {line}" for line in lines[:limit]]
    if len(lines) > limit:
        shown.append(f"  - … and {len(lines) - limit} more")
    return "\n".join(shown)
