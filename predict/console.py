"""What `haechi predict` prints."""

import json
from collections import Counter
from dataclasses import asdict

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from haechi.cache.schema import HARMFUL, LABEL_NAMES, SAFE
from haechi.cache.text import visible
from haechi.predict.clock import clock
from haechi.predict.prediction import HARMFUL_MOMENT, LONGER, Prediction, Window

STYLES = {LABEL_NAMES[HARMFUL]: "bold red", HARMFUL_MOMENT: "red", LABEL_NAMES[SAFE]: "green"}


def json_line(prediction: Prediction) -> str:
    """One line of JSON: all of the prediction, its most harmful moment, and the decision in words."""
    moment = prediction.moment and asdict(prediction.moment)
    return json.dumps({**asdict(prediction), "moment": moment, "decision": prediction.decision}, allow_nan=False)


def moment_text(moment: Window) -> str:
    """As `0.931 at 1:02:10`."""
    return f"{moment.score:.3f} at {clock(moment.start_seconds)}"


class Table:
    """A line a file, and below it how many were decided how."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, str, str, str, str]] = []
        self._has_windows = False
        self._num_longer = 0
        self._counts: Counter[str] = Counter()
        self._thresholds: dict[str, float] = {}

    def add(self, prediction: Prediction) -> None:
        """Take a file's line."""
        word = prediction.decision
        self._counts[word] += 1
        decision = f"[{STYLES.get(word, 'yellow')}]{word}[/]"
        name = escape(visible(prediction.id))
        if prediction.score is None or prediction.calibrated is None or prediction.threshold is None:
            name += f"\n[yellow]{escape(prediction.reason)}[/]: {escape(visible(prediction.message))}"
            self._rows.append(("", "", "", decision, name))
            return
        self._thresholds[prediction.kind] = prediction.threshold
        self._has_windows |= len(prediction.windows) > 1
        self._num_longer += bool(prediction.is_longer_than_trained)
        moment = moment_text(prediction.moment) if prediction.moment else ""
        self._rows.append((f"{prediction.score:.3f}", f"{prediction.calibrated:.3f}", moment, decision, name))

    def show(self, console: Console) -> None:
        """Print all lines and the counts; the most harmful moments where a file has more than one window."""
        table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("score", justify="right")
        table.add_column("calibrated", justify="right")
        if self._has_windows:
            table.add_column("moment", no_wrap=True)
        table.add_column("decision", no_wrap=True)
        table.add_column("file", overflow="fold")
        for score, calibrated, moment, decision, name in self._rows:
            table.add_row(score, calibrated, *([moment] if self._has_windows else []), decision, name)
        console.print(table)
        told = ", ".join(f"{count} {word}" for word, count in self._counts.items())
        least = ", ".join(f"{threshold:.3f} of {kind}s" for kind, threshold in self._thresholds.items())
        words = [f"harmful: a score of at least {least}"] if least else []
        if HARMFUL_MOMENT in self._counts:
            words.append(f"{HARMFUL_MOMENT}: of a window alone, not of the whole")
        console.print(f"{self._counts.total()} files: {told}" + (f" ({'; '.join(words)})" if words else ""))
        if self._num_longer:
            instead = "look at their moments" if self._has_windows else "windows see more of them (--sampling windows)"
            console.print(
                f"[yellow]{self._num_longer} last more than {LONGER:g} times as long as any video that the head was "
                f"trained on: their score as a whole is a guess; {instead}[/]"
            )
