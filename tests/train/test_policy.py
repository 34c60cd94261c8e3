import pytest

from haechi.train.errors import TrainError
from haechi.train.policy import FORMS, Bound, Policy


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("f1", {"beta": 1.0}),
        ("fbeta:2", {"beta": 2.0}),
        ("fbeta:.5", {"beta": 0.5}),
        ("precision>=0.9", {"bound": Bound(figure="precision", sense=">=", value=0.9)}),
        ("recall >= 1", {"bound": Bound(figure="recall", sense=">=", value=1.0)}),
        ("fpr<=1e-3", {"bound": Bound(figure="false_positive_rate", sense="<=", value=0.001)}),
        ("cost:1,10", {"costs": (1.0, 10.0)}),
    ],
)
def test_what_users_write(text: str, expected: dict) -> None:
    assert Policy.parse(text) == Policy(text=text, **expected)


@pytest.mark.parametrize(
    "text",
    [
        *("", "F1", "f2", "f1\n", "fbeta:0", "fbeta:-1", "fbeta:1e999", "precision>=1.1", "precision<=0.5"),
        *("recall>0.5", "fpr<=nan", "cost:0,0", "cost:1", "cost:-1,2", "accuracy>=0.9"),
    ],
)
def test_all_else_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(TrainError) as caught:
        Policy.parse(text)
    assert all(form in str(caught.value) for form in FORMS)
    assert "use quotes" not in str(caught.value)


def test_a_policy_that_the_shell_has_cut_gets_a_hint() -> None:
    with pytest.raises(TrainError, match="use quotes"):
        Policy.parse("recall")


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("f1", "for the best F1"),
        ("fbeta:2", "beta 2"),
        ("cost:1,10", "1 for each false positive, 10 for each missed video"),
        ("precision>=0.9", "a precision of at least 0.9"),
        ("recall>=0.9", "a recall of at least 0.9"),
        ("fpr<=0.05", "at most 0.05 of the safe videos"),
    ],
)
def test_goals_in_words(policy: str, words: str) -> None:
    assert words in Policy.parse(policy).goal
