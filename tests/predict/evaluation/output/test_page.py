import dataclasses
import html
import json
import re
from pathlib import Path

import numpy as np
import pytest

from haechi.predict.evaluation.causes import Loss
from haechi.predict.evaluation.evaluation import Evaluation
from haechi.predict.evaluation.output import page
from haechi.predict.evaluation.output.page_html import write_page
from haechi.train.evaluate.metrics import page_metrics
from tests.predict.evaluation.made import HOSTILE, THRESHOLD, make_evaluation

JPEG = bytes.fromhex("ffd8ffe000104a46494600010100000100010000ffd9")


def written(folder: Path, evaluation: Evaluation, *, title: str = "run-7 on uploads", thumbnail: bytes = JPEG) -> str:
    """The page as HTML, without its scripts."""
    path = folder / "evaluation.html"
    pictures = {row.id: thumbnail for row in page.shown_disagreements(evaluation)}
    write_page(path, evaluation, title=title, command=f"haechi evaluate {title} data", thumbnails=pictures)
    assert path.stat().st_size < 6_000_000
    return path.read_text(encoding="utf-8").partition("<script>")[0]


def words(text: str, section: str = "") -> str:
    """The words of a page or of one section, without tags."""
    if section:
        text = text.partition(f'<section id="{section}"')[2].partition("</section>")[0]
    return " ".join(html.unescape(re.sub("<[^>]*>", " ", text.partition('<script type="application/json"')[0])).split())


def data_of(text: str) -> dict:
    return json.loads(text.partition('id="data">')[2].partition("</script>")[0])


def test_sections_stand_in_this_order(tmp_path: Path) -> None:
    text = written(tmp_path, make_evaluation())
    order = ["answer", "fall", "why", "prevalence", "budget", "calibration", "slices", "disagreements", "overlap"]
    order += ["data-card", "command"]
    assert re.findall(r'<section id="([^"]+)"', text) == order
    assert re.findall(r'<a href="#([^"]+)">', text.partition("<nav")[2].partition("</nav>")[0]) == order
    assert "UNTRAINED" not in text
    assert "not met" in words(text, "answer")


def test_random_weights_are_shown_first(tmp_path: Path) -> None:
    text = words(written(tmp_path, make_evaluation(hostile=True)).partition("<body>")[2])
    assert "UNTRAINED The weights of CLIP are random" in text
    assert text.index("UNTRAINED") < text.index("it finds")


def test_each_metric_has_a_row_and_falls_are_marked_in_words(tmp_path: Path) -> None:
    evaluation = make_evaluation()
    marks = {"recall": (-0.3, -0.1), "precision": (-0.1, 0.1), "f1": (0.01, 0.2), "accuracy": None}
    changes = [
        dataclasses.replace(change, difference_interval=marks.get(change.metric.name, (-0.2, -0.01)))
        for change in evaluation.changes
    ]
    text = written(tmp_path, dataclasses.replace(evaluation, changes=changes))
    rows = re.findall("<tr>.*?</tr>", text.partition('<section id="fall"')[2].partition("</section>")[0], re.DOTALL)[1:]
    titles = [words(re.sub("<span.*", "", row.partition("</th>")[0], flags=re.DOTALL)) for row in rows]
    assert titles == [metric.heading for metric in page_metrics()]
    expected = {"recall": "lower", "precision": "within chance", "f1": "higher", "accuracy": "–"}
    for row, metric in zip(rows, page_metrics(), strict=True):
        assert words(row).endswith(f" {expected.get(metric.name, 'lower')}")


def test_the_parts_add_up_from_own_to_here(tmp_path: Path) -> None:
    evaluation = make_evaluation()
    assert evaluation.causes is not None
    assert evaluation.own is not None
    steps = page.find_steps(evaluation.causes, evaluation.own, evaluation.here)
    assert [step.name for step in steps] == ["class mix", "separation", "threshold"]
    places = [steps[0].start, *(step.end for step in steps)]
    assert places[0] == evaluation.causes.own
    assert places[-1] == evaluation.causes.here
    assert [step.start for step in steps[1:]] == places[1:-1]
    assert sum(step.change for step in steps) == pytest.approx(-evaluation.causes.fall.value, abs=1e-12)
    assert steps[1].interval == (-evaluation.causes.separation.interval[1], -evaluation.causes.separation.interval[0])
    text = words(written(tmp_path, evaluation), "why")
    assert "73 % of its own videos are harmful and 25 % of these" in text
    assert "What lowers F1 most: separation. Label more videos" in text
    assert "A precision of at least 0.9 was promised; it is 0.68" in text


def make_loss(value: float) -> Loss:
    return Loss(value=value, interval=(value - 0.02, value + 0.02))


@pytest.mark.parametrize(
    ("largest", "advice"),
    [("threshold", "Choose the threshold again"), ("class_mix", "precision at the real prevalence"), ("", "")],
)
def test_the_largest_part_says_what_to_do_next(tmp_path: Path, largest: str, advice: str) -> None:
    evaluation = make_evaluation()
    losses = {name: make_loss(0.3 if name == largest else -0.01) for name in ("class_mix", "separation", "threshold")}
    parts = {name: loss.value for name, loss in losses.items()}
    own = 0.9
    causes = dataclasses.replace(
        evaluation.causes,
        **losses,
        own=own,
        best=own - parts["class_mix"] - parts["separation"],
        here=own - sum(parts.values()),
        fall=make_loss(sum(parts.values())),
    )
    text = words(written(tmp_path, dataclasses.replace(evaluation, causes=causes)), "why")
    assert advice in text
    assert ("What lowers F1 most" in text) == bool(largest)
    assert ("Why F1 did not fall" in text) == (not largest)


def test_the_slider_stands_on_the_prevalence_that_was_asked_for(tmp_path: Path) -> None:
    evaluation = make_evaluation()
    dial = data_of(written(tmp_path, evaluation))["dials"]["prevalence"]
    prevalences = [point["prevalence"] for point in dial["points"]]
    assert prevalences == sorted(prevalences)
    assert len(prevalences) == 63
    assert prevalences[dial["start"]] == 0.01
    assert dial["texts"][dial["start"]]["value"] == "1\u00a0%"
    nothing_asked = dataclasses.replace(evaluation, prevalences=[])
    points = page.curve_points(nothing_asked)
    assert points[page.first_point(nothing_asked, points)].prevalence == pytest.approx(0.041, rel=0.06)
    text = words(written(tmp_path, nothing_asked), "prevalence")
    assert "an estimated 4.1 % (2.3 to 6.9 %) are harmful, about 49 videos. Counting decisions would give 17 %" in text


def test_failing_slices_come_first(tmp_path: Path) -> None:
    evaluation = make_evaluation()
    tables = {table.by: table for table in page.slice_tables(evaluation.slices)}
    assert [row.subset.name for row in tables["duration"].rows] == ["5 s to 15 s", "up to 5 s"]
    groups = tables["group"].rows
    assert groups[0].subset.name == "camera 4"
    mistakes = [row.mistakes for row in groups[1:]]
    assert mistakes == sorted(mistakes, reverse=True)
    assert len(tables["city"].rows) == page.MAX_SLICES_OF_A_KIND
    text = words(written(tmp_path, evaluation), "slices")
    assert "In 2 slices of 52 the head is wrong more often" in text
    assert text.count("fails more often") == 2 + 1  # in the note
    assert "10 more slices" in text


def test_long_lists_are_cut(tmp_path: Path) -> None:
    evaluation = make_evaluation()
    text = written(tmp_path, evaluation)
    number = len(evaluation.disagreements)
    assert f"Of {number} disagreements, the 50 most confident" in words(text, "disagreements")
    assert text.count("<img ") == 50
    assert "63 pairs; 50 are listed here, 13 more" in words(text, "overlap")
    assert "They were left out of all figures" in words(text, "overlap")
    kept = dataclasses.replace(evaluation, overlap=dataclasses.replace(evaluation.overlap, kept=True))
    assert "the figures may be too good" in words(written(tmp_path, kept), "overlap")


def test_disagreements_say_what_label_and_head_say() -> None:
    evaluation = make_evaluation()
    rows = page.shown_disagreements(evaluation)
    assert {row.kind for row in rows} == {"missed", "false alarm"}
    assert all(row.is_flagged == (row.score >= THRESHOLD) for row in rows)
    agreeing = int(np.flatnonzero((evaluation.here.scores >= THRESHOLD) == (evaluation.here.labels == 1))[0])
    one = dataclasses.replace(evaluation.disagreements[0], row=agreeing)
    assert page.shown_disagreements(dataclasses.replace(evaluation, disagreements=[one]))[0].kind == "same"


def test_histograms_hold_all_scores() -> None:
    edges, found = page.score_histograms(make_evaluation(num_folds=3))
    assert [each.name for each in found] == ["harmful", "safe", "unlabelled"]
    assert all(sum(bins) == pytest.approx(1, abs=1e-3) for each in found for bins in (each.here, each.own) if bins)
    evaluation = make_evaluation(60, has_own=False, num_unlabelled=0)
    same = dataclasses.replace(evaluation, here=dataclasses.replace(evaluation.here, scores=np.full(60, THRESHOLD)))
    edges, found = page.score_histograms(same)
    assert edges[0] < THRESHOLD < edges[-1]
    assert sum(found[0].here) == 1


def bare(evaluation: Evaluation) -> Evaluation:
    """Every optional field is None, every list empty."""
    return dataclasses.replace(
        evaluation,
        run=dataclasses.replace(evaluation.run, untrained=[]),
        data=dataclasses.replace(evaluation.data, labels_file="", failures={}, group_source=""),
        own=None,
        own_figures=None,
        own_reliability=None,
        reliability=None,
        changes=[
            dataclasses.replace(
                change, own=None, own_interval=None, here=None, here_interval=None, difference_interval=None
            )
            for change in evaluation.changes
        ],
        causes=None,
        policy_check=None,
        slices=[],
        prevalences=[],
        prevalence_curve=[],
        budgets=[],
        budget_curve=[],
        estimate=None,
        disagreements=[],
        verdicts=[],
        notices=[],
    )


@pytest.mark.parametrize("count", [0, 30])
def test_nothing_optional_is_needed(tmp_path: Path, count: int) -> None:
    text = words(written(tmp_path, bare(make_evaluation(count, num_pairs=0))).partition("<body>")[2])
    assert ("all decisions agree" in text) == bool(count)
    assert "None: no video of this set is among those" in text
    assert "None" not in text.replace("None: ", "").replace("None of your", "")
    assert "nan" not in text


@pytest.mark.parametrize(
    ("evaluation", "expected"),
    [
        (make_evaluation(60, share=0), ["harmful and 60 safe ones", "there is nothing to find", "cannot be split"]),
        (make_evaluation(60, share=1), ["60 harmful and 0 safe ones", "cannot be split"]),
        (make_evaluation(60, has_own=False), ["there is no fall to explain", "All figures of this set"]),
        (make_evaluation(0), ["No video of this set has a label", "How many are harmful"]),
        (make_evaluation(0, num_unlabelled=0, num_pairs=0), ["No video was scored", "damaged 4"]),
    ],
    ids=["safe", "harmful", "no own figures", "unlabelled", "nothing"],
)
def test_what_cannot_be_said_is_said(tmp_path: Path, evaluation: Evaluation, expected: list[str]) -> None:
    text = words(written(tmp_path, evaluation))
    for sentence in expected:
        assert sentence in text


def test_no_estimate_says_why(tmp_path: Path) -> None:
    evaluation = make_evaluation()
    reason = "The scores of the unlabelled videos are not a mixture of those of the labelled ones."
    estimate = dataclasses.replace(evaluation.estimate, value=None, interval=None, reason=reason)
    text = words(written(tmp_path, dataclasses.replace(evaluation, estimate=estimate)), "prevalence")
    assert f"No estimate. {reason} The head flags 207 of 1,200" in text


def test_text_from_outside_is_escaped_and_in_no_script(tmp_path: Path) -> None:
    text = written(tmp_path, make_evaluation(hostile=True), title=HOSTILE)
    head, _, data = text.partition('<script type="application/json"')
    assert "</script>" not in head
    assert "<img src=x" not in head
    assert "\u202e" not in text
    assert "long" not in data
    assert html.escape("</script><img src=x") in head
    assert "{{ 7 * 7 }}" in head


def test_a_hundred_thousand_videos_give_a_small_page(tmp_path: Path) -> None:
    evaluation = make_evaluation(100_000, num_unlabelled=100_000)
    text = written(tmp_path, evaluation, thumbnail=JPEG + bytes(8000))  # also checks the size
    assert len(json.dumps(data_of(text))) < 100_000
    assert text.count('<td class="id"') == 50 + 2 * 50  # disagreements, and pairs of videos
    assert data_of(text)["digits"] == 3
