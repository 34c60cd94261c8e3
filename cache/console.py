"""Sentences that a user should read before or while work goes on."""

from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape


def show_notices(console: Console, notices: Iterable[str]) -> None:
    """Print each, marked as a note; nothing in it is taken for markup."""
    for notice in notices:
        console.print(f"[yellow]note:[/] {escape(notice)}", highlight=False, soft_wrap=True)
