"""What `haechi predict` prints."""

import json
from collections import Counter
from dataclasses import asdict

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from cache.errors import visible
from cache.schema import HARMFUL, LABEL_NAMES, SAFE
from predict.classifier import Prediction

NOT_JUDGED = "not judged"


def decision(prediction: Prediction) -> str:
    """`harmful`, `safe`, or that it was not judged."""
    if prediction.is_harmful is None:
        return NOT_JUDGED
    return LABEL_NAMES[HARMFUL if prediction.is_harmful else SAFE]


def json_line(prediction: Prediction) -> str:
    """One line of JSON, all of the prediction and the decision in a word."""
    return json.dumps({**asdict(prediction), "decision": decision(prediction)}, allow_nan=False)


class Table:
    """A line a file, and below it how many were decided how."""

    def __init__(self) -> None:
        self._rows = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
        self._rows.add_column("score", justify="right")
        self._rows.add_column("calibrated", justify="right")
        self._rows.add_column("decision", no_wrap=True)
        self._rows.add_column("file", overflow="fold")
        self._counts: Counter[str] = Counter()
        self._thresholds: dict[str, float] = {}

    def add(self, prediction: Prediction) -> None:
        """Take a file's line."""
        word = decision(prediction)
        self._counts[word] += 1
        style = {LABEL_NAMES[HARMFUL]: "bold red", LABEL_NAMES[SAFE]: "green"}.get(word, "yellow")
        name = escape(visible(prediction.id))
        if prediction.score is None or prediction.calibrated is None or prediction.threshold is None:
            name += f"\n[yellow]{escape(prediction.reason)}[/]: {escape(visible(prediction.message))}"
            self._rows.add_row("", "", f"[{style}]{word}[/]", name)
        else:
            self._thresholds[prediction.kind] = prediction.threshold
            self._rows.add_row(f"{prediction.score:.3f}", f"{prediction.calibrated:.3f}", f"[{style}]{word}[/]", name)

    def show(self, console: Console) -> None:
        """Print all lines and the counts."""
        console.print(self._rows)
        told = ", ".join(f"{count} {word}" for word, count in self._counts.items())
        least = ", ".join(f"{threshold:.3f} of {kind}s" for kind, threshold in self._thresholds.items())
        console.print(
            f"{self._counts.total()} files: {told}" + (f" (harmful: a score of at least {least})" if least else "")
        )
