"""Flags that several benchmarks share."""

from pathlib import Path
from typing import Any

import click

from bench.measure import RESULTS


def sources(command: Any) -> Any:
    """Adds --data, --out and --quick."""
    for decorator in (
        click.option(
            "--quick",
            is_flag=True,
            help="Tiny networks and sizes: only checks that everything runs; the figures mean nothing.",
        ),
        click.option(
            "--out",
            type=click.Path(path_type=Path),
            default=RESULTS,
            help="Folder for the JSON file. [default: docs/bench]",
        ),
        click.option(
            "--data",
            type=click.Path(path_type=Path, exists=True),
            help="A manifest or a folder of videos. [default: generated videos]",
        ),
    ):
        command = decorator(command)
    return command


def common(command: Any) -> Any:
    """Adds --data, --out, --quick and --rounds."""
    rounds = click.option(
        "--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="How often everything is measured."
    )
    return rounds(sources(command))
