"""Requirements for pipelines."""

import pytest

from haechi.cache.errors import SettingsError
from haechi.train.evaluate.requirement import Requirement, parse_requirements

FIGURES = {"f1": 0.78, "recall": 1.0, "precision": None}
INTERVALS = {"f1": (0.71, 0.85), "recall": None, "precision": None}


def one(text: str) -> Requirement:
    (found,) = parse_requirements([text])
    return found


@pytest.mark.parametrize(
    ("text", "by_point", "met", "sentence"),
    [
        ("f1>=0.71", False, True, "f1>=0.71 is met: F1 is 0.780, 95 % interval 0.710 to 0.850"),
        ("f1>=0.75", False, False, "f1>=0.75 is not met: F1 is 0.780, 95 % interval 0.710 to 0.850"),
        ("f1 >= .75", True, True, "f1 >= .75 is met: F1 is 0.780"),
        ("f1>=0.79", True, False, "f1>=0.79 is not met: F1 is 0.780"),
        ("precision>=0", False, False, "precision>=0 is not met: precision is undefined on these videos"),
        ("precision>=0", True, False, "precision>=0 is not met: precision is undefined on these videos"),
        ("recall>=0.9", True, True, "recall>=0.9 is met: recall is 1.000"),
    ],
)
def test_the_lower_end_or_the_figure_itself_counts(text: str, by_point: bool, met: bool, sentence: str) -> None:
    verdict = one(text).judge(FIGURES, INTERVALS, by_point=by_point)
    assert (verdict.met, verdict.sentence) == (met, sentence)


def test_without_an_interval_a_requirement_is_not_met() -> None:
    """Recall 1 of three videos proves little: all bootstrap draws give 1."""
    verdict = one("recall>=0.9").judge(FIGURES, INTERVALS, by_point=False)
    assert not verdict.met
    assert "its 95 % interval is undefined" in verdict.sentence
    assert "--point" in verdict.sentence
    assert verdict.record() == {
        "requirement": "recall>=0.9",
        "metric": "recall",
        "least": 0.9,
        "value": 1.0,
        "interval": None,
        "by_point": False,
        "met": False,
    }


def test_all_wrong_requirements_are_named() -> None:
    with pytest.raises(SettingsError) as caught:
        parse_requirements(["f1>=0.5", "f1", "f2>=0.5", "recall>=90", "recall<=0.9", "f1>=nan"])
    problems = caught.value.problems
    assert [text.split(":")[0] for text in problems] == [
        "requirement 'f1'",
        "requirement 'f2>=0.5'",
        "requirement 'recall>=90'",
        "requirement 'recall<=0.9'",
        "requirement 'f1>=nan'",
    ]
    assert "use quotes" in problems[0]
    assert "average_precision" in problems[1]
