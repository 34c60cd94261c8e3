import dataclasses

import pytest

from haechi.predict.evaluation.evaluation import Evaluation
from haechi.predict.evaluation.output.headline import headline
from tests.predict.evaluation.made import make_evaluation


def without_estimate(evaluation: Evaluation) -> Evaluation:
    assert evaluation.estimate is not None
    none = dataclasses.replace(evaluation.estimate, value=None, interval=None, reason="The scores do not fit.")
    return dataclasses.replace(evaluation, estimate=none)


@pytest.mark.parametrize(
    ("evaluation", "expected"),
    [
        (make_evaluation(), "On your 412 videos it finds 70 of 100 harmful ones; on its own test it found 93."),
        (make_evaluation(has_own=False), "On your 412 videos it finds 70 of 100 harmful ones."),
        (
            make_evaluation(num_folds=3),
            "On your 412 videos it finds 70 of 100 harmful ones; in cross-validation it found 93.",
        ),
        (
            make_evaluation(part="val", kind="image"),
            "On your 412 images it finds 70 of 100 harmful ones; on its own validation videos it found 93.",
        ),
        (
            make_evaluation(40, share=0.1),
            "On your 40 videos it finds 3 of 4 harmful ones; on its own test it found 93 of 100.",
        ),
        (make_evaluation(60, share=0), "None of your 60 labelled videos is harmful; it wrongly flags 4 of them."),
        (
            make_evaluation(0),
            "Of your 1,200 unlabelled videos an estimated 4.1 % (2.3 to 6.9 %) are harmful; it flags 208.",
        ),
        (
            without_estimate(make_evaluation(0)),
            "It flags 208 of your 1,200 unlabelled videos; how many are harmful cannot be estimated.",
        ),
        (make_evaluation(0, num_unlabelled=0), "No video of this set could be evaluated."),
    ],
)
def test_one_sentence_says_what_it_is_worth(evaluation: Evaluation, expected: str) -> None:
    assert headline(evaluation).text.replace("\u00a0", " ") == expected


def test_nearly_all_is_not_all() -> None:
    evaluation = make_evaluation(412)
    figures = {**evaluation.figures, "recall": 0.998}
    found = headline(dataclasses.replace(evaluation, own_figures=figures))
    assert found.text.endswith("on its own test it found over 99.")
    assert found.parts[1::2] == ("70 of 100", "over 99")
