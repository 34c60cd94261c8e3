"""What `haechi evaluate` prints, in 80 columns."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from haechi.predict.evaluation.causes import Loss
from haechi.predict.evaluation.evaluation import Evaluation
from haechi.predict.evaluation.output.console import show_evaluation
from tests.predict.evaluation.made import make_evaluation


def shown(evaluation: Evaluation) -> str:
    file = io.StringIO()
    show_evaluation(Console(file=file, width=80), evaluation)
    return file.getvalue()


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("width", [0.0, 0.2])
def test_no_figure_is_cut_off(width: float) -> None:
    """With the longest texts that the table can have: undefined figures, and long intervals of the others."""
    evaluation = make_evaluation()
    long = [
        replace(change, here=None, here_interval=None, difference_interval=None)
        if place % 2
        else replace(change, difference_interval=(-0.5 - width, 0.5 + width))
        for place, change in enumerate(evaluation.changes)
    ]
    text = shown(replace(evaluation, changes=long))
    assert "average precision " in text
    for change in long:
        line = next(line for line in text.splitlines() if line.strip().startswith(f"{change.metric.column} "))
        assert f"{change.own:.3f} {change.own_interval[0]:.3f}–{change.own_interval[1]:.3f}" in words(line)
        assert line.rstrip().endswith("–" if change.difference_interval is None else f"to {0.5 + width:+.3f}")
    assert "–: undefined" in text


def test_an_undefined_bound_is_not_called_broken() -> None:
    evaluation = make_evaluation()
    assert evaluation.policy_check is not None
    check = replace(evaluation.policy_check, here=None, here_interval=None, kept=None)
    text = shown(replace(evaluation, policy_check=check))
    assert "policy precision>=0.9: undefined here" in words(text)
    assert "kept" not in text
    for kept in (True, False):
        text = shown(replace(evaluation, policy_check=replace(evaluation.policy_check, kept=kept)))
        assert f"policy precision>=0.9: {'kept' if kept else 'not kept'}, precision is" in words(text)


@pytest.mark.parametrize(("fall", "title"), [(0.1, "fell"), (-0.1, "rose"), (0.0001, "is the same")])
def test_the_best_threshold_is_said_to_be_chosen_on_these_videos(fall: float, title: str) -> None:
    evaluation = make_evaluation()
    assert evaluation.causes is not None
    causes = replace(
        evaluation.causes,
        own=0.8,
        here=0.8 - fall,
        best=0.81,
        fall=Loss(value=fall, interval=None),
    )
    text = words(shown(replace(evaluation, causes=causes)))
    assert (
        f"F1 {title}: 0.800 and 0.800 here" in text if title == "is the same" else f"why F1 {title} from 0.800" in text
    )
    assert "F1 with the best threshold for this set: 0.810, corrected for being chosen on these videos" in text


def test_images_are_not_called_videos() -> None:
    assert "412 images here, 300 own test" in words(shown(make_evaluation(kind="image")))


def test_overlap_is_told_in_whole_sentences() -> None:
    text = words(shown(make_evaluation()))
    assert "2 labelled videos of this set are also in the run's own test part" in text
    evaluation = make_evaluation()
    text = words(shown(replace(evaluation, overlap=replace(evaluation.overlap, num_test=1))))
    assert "1 labelled video of this set is also in the run's own test part" in text
