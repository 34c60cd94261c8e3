"""What `haechi predict` prints: a table, or one line of JSON for each file."""

import json
from collections import Counter
from dataclasses import asdict

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from haechi.cache.schema import HARMFUL, LABEL_NAMES, SAFE
from haechi.cache.text import counted, visible
from haechi.predict.player_time import player_time
from haechi.predict.prediction import HARMFUL_MOMENT, LONGER, Prediction, ScoredWindow

STYLES = {LABEL_NAMES[HARMFUL]: "bold red", HARMFUL_MOMENT: "red", LABEL_NAMES[SAFE]: "green"}


def json_line(prediction: Prediction) -> str:
    """One line of JSON: all fields of the prediction, its most harmful moment, and the decision in words."""
    moment = prediction.moment and asdict(prediction.moment)
    return json.dumps({**asdict(prediction), "moment": moment, "decision": prediction.decision}, allow_nan=False)


def moment_text(moment: ScoredWindow) -> str:
    """Such as `0.931 at 1:02:10`."""
    return f"{moment.score:.3f} at {player_time(moment.start_seconds)}"


class PredictionTable:
    """One line for each file, and below them the number of files for each decision."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, str, str, str, str]] = []
        self._has_windows = False
        self._num_longer = 0
        self._counts: Counter[str] = Counter()
        self._thresholds: dict[str, float] = {}

    def add(self, prediction: Prediction) -> None:
        """Add the line of one file."""
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
        """Print all lines and the counts; with a column of moments if any file has more than one window."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("score", justify="right")
        table.add_column("calibrated", justify="right")
        if self._has_windows:
            table.add_column("moment", no_wrap=True)
        table.add_column("decision", no_wrap=True)
        table.add_column("file", overflow="fold")
        for score, calibrated, moment, decision, name in self._rows:
            table.add_row(score, calibrated, *([moment] if self._has_windows else []), decision, name)
        console.print(table)
        counts = ", ".join(f"{count} {word}" for word, count in self._counts.items())
        thresholds = ", ".join(f"{threshold:.3f} for {kind}s" for kind, threshold in self._thresholds.items())
        meanings = [f"harmful: score at least {thresholds}"] if thresholds else []
        if HARMFUL_MOMENT in self._counts:
            meanings.append(f"{HARMFUL_MOMENT}: a window reaches the threshold, the whole video does not")
        explained = f" ({'; '.join(meanings)})" if meanings else ""
        console.print(f"{counted(self._counts.total(), 'file')}: {counts}{explained}")
        if self._num_longer:
            instead = "look at their moments" if self._has_windows else "--sampling windows covers long videos"
            console.print(
                f"[yellow]{counted(self._num_longer, 'video lasts', 'videos last')} more than {LONGER:g} times as long "
                "as the longest video that the head was trained on: do not rely on the score of the whole video; "
                f"{instead}[/]"
            )
