"""Flags of the commands that check requirements."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def requirement_options(command: Command) -> Command:
    """`--require`, which may be repeated, and `--point`."""
    for decorator in (
        click.option(
            "--point",
            "by_point",
            is_flag=True,
            help="Compare the figure itself with --require, not the lower end of its 95 % interval.",
        ),
        click.option(
            "--require",
            metavar="METRIC>=VALUE",
            multiple=True,
            help="A requirement such as 'f1>=0.75': exit status 4 if the lower end of the metric's 95 % interval is "
            "below the value. Repeat it for several.",
        ),
    ):
        command = decorator(command)
    return command
