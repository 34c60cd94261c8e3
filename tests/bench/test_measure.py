"""Rounds, commands, memory, and the file of results."""

import json
from pathlib import Path

import pytest

from bench import measure
from bench.figures import figure, mark
from bench.measure import Measurement
from tests.bench.hungry import MEGABYTES


@pytest.mark.parametrize(
    ("values", "at_least", "at_most", "holds"),
    [
        ([4.0, 9.0, 5.0], 5.0, None, True),
        ([4.0, 9.0, 4.9], 5.0, None, False),
        ([1.0, 1.1, 9.0], None, 1.1, True),
        ([1.11], None, 1.1, False),
        ([1.0], None, None, None),
    ],
)
def test_a_mark_is_held_by_the_median(
    values: list[float], at_least: float | None, at_most: float | None, holds: bool | None
) -> None:
    assert Measurement(what="", unit="x", values=values, at_least=at_least, at_most=at_most).holds is holds


def test_rounds_go_in_turn() -> None:
    calls: list[str] = []

    def contestant(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    found = measure.in_turn({"a": lambda: contestant("a"), "b": lambda: contestant("b")}, rounds=2)
    assert calls == ["a", "b", "a", "b"]
    assert found == {"a": [1.0, 3.0], "b": [2.0, 4.0]}
    assert measure.ratios(found["b"], found["a"]) == [2.0, 4 / 3]


def test_memory_of_a_command_and_its_children_counts_shared_pages_once() -> None:
    run = measure.run(["tests.bench.hungry"], watch=True)
    assert MEGABYTES < run.peak_megabytes < 1.5 * MEGABYTES
    assert run.seconds > 1
    assert run.stdout == f"held {MEGABYTES * 1_000_000}\n"


def test_a_command_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match="No such command 'fly'"):
        measure.run(["haechi", "fly"])


def test_what_is_written_is_what_is_shown(tmp_path: Path) -> None:
    row = Measurement(what="ours", unit="s", values=[5.0, 4.0, 6.5], at_most=5.5)
    path = measure.write(tmp_path, "extract", [row], untrained=True, num_videos=3)
    result = json.loads(path.read_text())
    assert path.name == f"extract-{measure.device_kind()}.json"
    assert {"date", "machine", "versions", "untrained", "num_videos"} <= result.keys()
    assert "opencv-python-headless" in result["versions"]
    assert (figure(result["rows"][0]), mark(result["rows"][0])) == ("5 s (4 to 6.5)", "at most 5.5")
    assert str(measure.ROOT) not in path.read_text()
