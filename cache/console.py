"""How the commands print to the terminal."""

from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape


def make_console(*, stderr: bool = False) -> Console:
    """A console for standard output or standard error, without styles for numbers and emoji for `:words:`."""
    return Console(stderr=stderr, highlight=False, emoji=False)


def show_notices(console: Console, notices: Iterable[str]) -> None:
    """Print each notice as `note: ...`, without interpreting markup in it."""
    for notice in notices:
        console.print(f"[yellow]note:[/] {escape(notice)}", highlight=False, soft_wrap=True)
