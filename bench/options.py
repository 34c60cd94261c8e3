"""The flags that every benchmark takes."""

from pathlib import Path
from typing import Any

import click

from bench.measure import RESULTS


def sources(command: Any) -> Any:
    """--data, --out and --quick."""
    for decorator in (
        click.option(
            "--quick", is_flag=True, help="Tiny networks and sizes: to see that it runs; figures mean nothing."
        ),
        click.option(
            "--out", type=click.Path(path_type=Path), default=RESULTS, help="Folder of the JSON. [default: docs/bench]"
        ),
        click.option(
            "--data",
            type=click.Path(path_type=Path, exists=True),
            help="A manifest or a folder of videos. [default: videos made on the spot]",
        ),
    ):
        command = decorator(command)
    return command


def common(command: Any) -> Any:
    """Those and --rounds."""
    rounds = click.option(
        "--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="Repeats, in turn."
    )
    return rounds(sources(command))
