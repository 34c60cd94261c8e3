"""The errors a user can cause. The command line prints their text and exits; nothing else is caught there."""


class HaechiError(Exception):
    """Base of every error whose text is meant for a user: what, where, got against expected, what to do."""


class CacheError(HaechiError):
    """A cache or a shard that is missing, damaged, of another version, or made with other settings."""


class VersionError(CacheError):
    """A shard of another format version: not damage, and not ours to change."""


class SettingsConflictError(HaechiError):
    """Other settings than those that a cache was made with."""


class FeatureError(HaechiError):
    """Features that must not be stored: NaN, infinity, all-zero rows, or too large for the storage type."""
