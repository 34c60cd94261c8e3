"""The warning that features come from random weights."""

from rich.markup import escape


def untrained_warning(untrained: list[str]) -> str:
    """A warning, as markup, that backbones whose features a head sees have random weights."""
    names = escape(", ".join(untrained))
    return f"[bold red]UNTRAINED[/]: random weights in {names}; the metrics are meaningless"
