"""What a user asks of an evaluation."""

import pytest

from haechi.cache.errors import SettingsError
from haechi.predict.evaluation.questions import Questions, parse_prevalences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.01", [0.01]),
        ("1%", [0.01]),
        (".5 %", [0.005]),
        ("0.001-0.1", [0.001, 0.01, 0.1]),
        ("0.1%-10%", [0.001, 0.01, 0.1]),
        ("1e-3-1e-1", [0.001, 0.01, 0.1]),
    ],
)
def test_shares_and_ranges_are_read(text: str, expected: list[float]) -> None:
    assert parse_prevalences(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "one", "1-2-3", "-0.1", "1e-3x"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="expected a share such as"):
        parse_prevalences(text)


def test_all_wrong_values_are_named() -> None:
    with pytest.raises(SettingsError) as caught:
        Questions(prevalences=[0.5, 0.0, 1.0, 30], budgets=[1, 0, 2.5])  # type: ignore[list-item]
    assert [text.split(",")[0] for text in caught.value.problems] == [
        "prevalence is 0.0",
        "prevalence is 1.0",
        "prevalence is 30",
        "budget is 0",
        "budget is 2.5",
    ]
