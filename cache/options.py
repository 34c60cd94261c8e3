"""Flags that the commands of both stages have: where a cache is, and how labels and groups are understood."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from haechi.cache.errors import SettingsError
from haechi.cache.local_path import local_path
from haechi.cache.location import SHARD_CACHE_GB, scheme_of

Command = TypeVar("Command", bound=Callable[..., Any])


class LocalPath(click.Path):
    """A path on this machine. The location of an object store is a usage error."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            local_path(value, what="it")
        except SettingsError as error:
            self.fail(str(error).removeprefix("it is "), param, ctx)
        return super().convert(value, param, ctx)


class CachePath(click.Path):
    """A cache: a path on this machine, or as text a place in an object store."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if scheme_of(str(value)) else super().convert(value, param, ctx)


shard_cache_option = click.option(
    "--shard-cache-gb",
    type=click.FloatRange(min=0, min_open=True),
    default=SHARD_CACHE_GB,
    help="For a cache in an object store: what local copies of shards may use together, GB (1e9 bytes).",
)


def _checked(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """A regular expression; a usage error if it is none."""
    from haechi.cache.groups import GroupRule

    if value is not None:
        try:
            GroupRule.parse(value)
        except SettingsError as error:
            raise click.BadParameter(str(error)) from error
    return value


def positive_label_option(command: Command) -> Command:
    """`--positive-label`, which may be repeated."""
    return click.option(
        "--positive-label",
        "positive_labels",
        metavar="NAME",
        multiple=True,
        help="A label in the manifest that means harmful, in any case; all others are safe, empty ones unlabelled. "
        "Repeat it for several.",
    )(command)


def group_by_option(what: str) -> Callable[[Command], Command]:
    """`--group-by`; `what` ends its help."""
    return click.option(
        "--group-by",
        metavar="REGEX",
        default=None,
        callback=_checked,
        help="A regular expression that finds the group in each id: its first capture group, or the whole match. "
        + what,
    )
