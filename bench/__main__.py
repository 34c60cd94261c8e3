"""Runs the benchmarks of speed one after another, then updates the tables in the documents: `python -m bench`."""

from pathlib import Path

import click

from bench import extract, measure, read, scale, train
from bench.options import sources
from bench.tables import DOCUMENTS, filled


@click.command()
@sources
def main(*, data: Path | None, out: Path, quick: bool) -> None:
    """Run extract (on the videos of --data), train, read and scale, and update the tables in README and docs."""
    flags = ["--out", str(out), *(["--quick"] if quick else [])]

    def rounds(number: int) -> list[str]:
        return ["--rounds", str(1 if quick else number)]

    extract.main([*flags, *rounds(3), *(["--data", str(data)] if data else [])], standalone_mode=False)
    train.main([*flags, *rounds(3)], standalone_mode=False)
    read.main([*flags, *rounds(10)], standalone_mode=False)
    scale.main([*flags, *rounds(1)], standalone_mode=False)
    if out == measure.RESULTS and not quick:
        for document in DOCUMENTS:
            document.write_text(filled(document.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
