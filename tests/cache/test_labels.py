"""What a label or a class name means."""

import pytest

from haechi.cache.labels import LabelRule, understood

SPELLINGS = {
    1: ["1", "1.0", "1.000", "harmful", "Harmful", "TRUE", "true", "Yes", " yes "],
    0: ["0", "0.0", "safe", "SAFE", "False", "no"],
    -1: ["", " ", "unlabelled"],
    None: ["Fight", "2", "-1", "0.5", "1.", "1e0", "nan", "10", "true story", "y"],
}


@pytest.mark.parametrize(("label", "text"), [(label, text) for label, texts in SPELLINGS.items() for text in texts])
def test_spellings(label: int | None, text: str) -> None:
    assert LabelRule().label_of(text) == label


def test_names_given_by_the_user_replace_the_spellings() -> None:
    rule = LabelRule(positive=("fight", "Caf\u00e9"))
    assert [rule.label_of(text) for text in ("FIGHT", "Cafe\u0301", "NonFight", "1", "0")] == [1, 1, 0, 0, 0]
    assert [rule.label_of(text) for text in ("", "Unlabelled")] == [-1, -1]
    assert LabelRule(positive=("0",)).label_of("0") == 1


def test_names_that_do_not_occur_and_a_harmful_that_would_be_safe() -> None:
    assert LabelRule(positive=("fight",)).problems(["Fight", "normal", ""]) == []
    assert LabelRule().problems(["Harmful"]) == []
    assert LabelRule(positive=("war", "Fight", "unlabelled")).problems(["Fight", "Normal", "", "unlabelled"]) == [
        "no label 'war' in the file; there are: 'Fight', 'Normal'",
        "no label 'unlabelled' in the file; there are: 'Fight', 'Normal'",
    ]
    assert LabelRule(positive=("weapon",)).problems(["weapon", "HARMFUL", "safe"]) == [
        "'harmful' would be safe, because --positive-label does not name it; add --positive-label harmful"
    ]


def test_what_was_understood_is_one_line() -> None:
    classes = {"NonFight": 0, "Fight": 1}
    noun = ("class", "classes")
    assert understood(classes, noun, labels=[1, 0, 0], splits=["train", "val", "val"]) == (
        "2 splits, 2 classes: Fight = harmful, NonFight = safe (1 harmful, 2 safe; 1 train, 2 val)"
    )
    assert understood({"Fight": 1}, noun, labels=[1] * 1000, splits=["train"] * 999 + [""]) == (
        "1 split, 1 class: Fight = harmful (1,000 harmful; 999 train, 1 in no split)"
    )
    assert understood({}, noun, labels=[-1, -1]) == "no classes (2 unlabelled)"
    many = understood({f"c{i:02d}\n": 0 for i in range(30)}, noun, labels=[0])
    assert r"c19\n = safe, and 10 more (1 safe)" in many
    assert "\n" not in many
