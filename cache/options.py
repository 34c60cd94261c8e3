"""Flags that the commands of both stages have: how a manifest's labels and groups are understood."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from haechi.cache.errors import SettingsError

Command = TypeVar("Command", bound=Callable[..., Any])


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
