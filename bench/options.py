"""Flags that several benchmarks share."""

from pathlib import Path
from typing import Any

import click

from bench.measure import RESULTS


def results(command: Any) -> Any:
    """Adds --out and --quick."""
    quick = click.option(
        "--quick",
        is_flag=True,
        help="Tiny networks and sizes: only checks that everything runs; the figures mean nothing.",
    )
    out = click.option(
        "--out",
        type=click.Path(path_type=Path),
        default=RESULTS,
        help="Folder for the JSON file. [default: docs/bench]",
    )
    return out(quick(command))


def sources(command: Any) -> Any:
    """Adds --data, --out and --quick."""
    data = click.option(
        "--data",
        type=click.Path(path_type=Path, exists=True),
        help="A manifest or a folder of videos. [default: generated videos]",
    )
    return data(results(command))


def repeated(command: Any) -> Any:
    """Adds --rounds."""
    rounds = click.option(
        "--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="How often everything is measured."
    )
    return rounds(command)


def common(command: Any) -> Any:
    """Adds --data, --out, --quick and --rounds."""
    return repeated(sources(command))
