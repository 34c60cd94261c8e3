"""The errors a user can cause. The command line prints their text and exits; nothing else is caught there."""


class HaechiError(Exception):
    """Base of every error whose text is meant for a user: what, where, got against expected, what to do."""


class CacheError(HaechiError):
    """A cache or a shard that is missing, damaged, of another version, or made with other settings."""


class FeatureError(HaechiError):
    """Features that must not be stored: NaN, infinity, all-zero rows, or too large for the storage type."""


def bullet_list(lines: list[str], *, limit: int = 20) -> str:
    """Join offenders for an error's text, one a line; beyond `limit` only their number is told."""
    shown = [f"  - {line}" for line in lines[:limit]]
    if len(lines) > limit:
        shown.append(f"  - … and {len(lines) - limit} more")
    return "\n".join(shown)
