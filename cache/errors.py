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
    """A cache or a shard that cannot be used: missing, damaged, of another version, or made with other settings."""


class DamageError(CacheError):
    """A shard whose content is wrong: `haechi verify` finds what, and `haechi verify --repair` drops it."""


class FeatureError(HaechiError):
    """Features that must not be stored: NaN, infinity, all-zero rows, or too large for the storage type."""
