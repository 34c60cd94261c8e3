"""The errors for users. The command line prints their text and exits; other errors are defects of Haechi."""

from collections.abc import Sequence

from haechi.cache.text import bullet_list


class HaechiError(Exception):
    """Base of all errors with a text for the user: what is wrong and where, got against expected, what to do."""


class SettingsError(HaechiError):
    """Settings that cannot be used."""

    def __init__(self, problems: Sequence[str]) -> None:
        """`problems`: one line for each, such as `frames is 0, expected a whole number from 1 to 4096`."""
        one, *more = problems
        super().__init__(f"these settings cannot be used:\n{bullet_list([one, *more])}" if more else one)
        self.problems = list(problems)


class SettingsConflictError(HaechiError):
    """Settings that differ from those that a cache, or the features of a head, were made with."""


class CacheError(HaechiError):
    """A cache or a shard that cannot be used: missing, damaged, of another version, or made with other settings."""


class DamageError(CacheError):
    """A shard with wrong content. `haechi verify` lists what is wrong, `haechi verify --repair` drops it."""


class FeatureError(HaechiError):
    """Features that must not be stored: NaN, infinity, all-zero rows, or values too large for the storage type."""
