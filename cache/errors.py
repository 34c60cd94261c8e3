"""The errors that a user can cause. The command line prints their text and exits; it catches nothing else."""

from collections.abc import Sequence

from haechi.cache.text import bullet_list


class HaechiError(Exception):
    """Base of every error whose text is meant for a user: what, where, got against expected, what to do."""


class SettingsError(HaechiError):
    """Settings that cannot be used."""

    def __init__(self, problems: Sequence[str]) -> None:
        """`problems`: a line for each, such as `frames is 0, expected a whole number from 1 to 4096`."""
        one, *more = problems
        super().__init__(f"these settings cannot be used:\n{bullet_list([one, *more])}" if more else one)
        self.problems = list(problems)


class SettingsConflictError(HaechiError):
    """Other settings than those that a cache, or the features of a head, were made with."""


class CacheError(HaechiError):
    """A cache or a shard that is missing, damaged, of another version, or made with other settings."""


class VersionError(CacheError):
    """A shard of another format version: not damaged, and not ours to change."""


class FeatureError(HaechiError):
    """Features that must not be stored: NaN, infinity, all-zero rows, or too large for the storage type."""
