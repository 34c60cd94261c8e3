import dataclasses
import json
import re
from pathlib import Path

import numpy as np

from haechi.train.output import page_html
from haechi.train.output.page import MAX_MISTAKES
from haechi.train.output.page_html import write_page
from tests.train.output.pages import JPEG, example


def test_at_most_fifty_mistakes_and_under_six_megabytes(tmp_path: Path) -> None:
    page = example(3000, thumbnail=JPEG + bytes(8000))
    assert len(page.mistakes) == MAX_MISTAKES
    distances = [abs(row.score - page.threshold.value) for row in page.mistakes]
    assert distances == sorted(distances, reverse=True)
    assert all(row.is_mistake and row.split == "test" for row in page.mistakes)
    write_page(tmp_path / "report.html", page)
    assert (tmp_path / "report.html").stat().st_size < 6_000_000


def test_the_head_of_the_page_leads_with_the_answer(tmp_path: Path) -> None:
    page = example(40)
    write_page(tmp_path / "report.html", page)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    head = page.figures["test"]
    title = " ".join(re.sub("<[^>]*>", "", text[text.index("<h1") : text.index("</h1>")]).split())
    assert f"finds {head['true_positive']} of {head['true_positive'] + head['false_negative']} harmful" in title
    assert "UNTRAINED" in text[: text.index("<h1")]
    write_page(tmp_path / "report.html", dataclasses.replace(page, data=dataclasses.replace(page.data, untrained=[])))
    assert "UNTRAINED" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_folds_with_thresholds_of_their_own_agree_at_the_chosen_one(tmp_path: Path) -> None:
    page = example(60, num_folds=3)
    thresholds = {1: 0.2, 2: 0.5, 3: 0.85}
    rows = [
        dataclasses.replace(row, threshold=thresholds[row.fold], prediction=int(row.score >= thresholds[row.fold]))
        for row in page.videos
        if row.fold
    ]
    rows[0] = dataclasses.replace(rows[0], score=rows[0].threshold, prediction=1)
    write_page(tmp_path / "report.html", dataclasses.replace(page, videos=rows))
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    data = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    flagged = data["parts"]["test"]["flagged"]
    for name, label in (("harmful", 1), ("safe", 0)):
        assert flagged[name]["chosen"] == sum(row.prediction for row in rows if row.label == label)
    shown = page_html._scores(rows, page.threshold.value).tolist()
    assert [int(score >= page.threshold.value) for score in shown] == [row.prediction for row in rows]
    for fold in thresholds:  # the order within a fold is kept
        mine = [i for i, row in enumerate(rows) if row.fold == fold]
        assert sorted(mine, key=lambda i: rows[i].score) == sorted(mine, key=lambda i: (shown[i], rows[i].score))


def test_the_page_counts_exactly_and_holds_no_score(tmp_path: Path) -> None:
    """At each step of the slider it has the numbers that the scores give; curves have a bounded number of points."""
    page = example(3000)
    write_page(tmp_path / "report.html", page)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    data = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    part, scale = data["parts"]["test"], data["scale"]
    rows = page.part("test")
    steps = [step / 10 ** scale["digits"] for step in range(scale["low"], scale["high"] + 1)]
    for name, label in (("harmful", 1), ("safe", 0)):
        scores = np.array([row.score for row in rows if row.label == label])
        assert part["count"][name] == len(scores)
        assert part["flagged"][name]["steps"] == [int((scores >= step).sum()) for step in steps]
    assert all(len(values) <= page_html.MAX_CURVE_POINTS for values in part["curves"].values())
    assert len(json.dumps(part)) < 300_000
