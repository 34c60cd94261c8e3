"""The page in a real browser: slider, switches and charts work, and text from outside does nothing."""

import dataclasses
import time
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics

from haechi.train.output.page import Page
from haechi.train.output.page_html import write_page
from tests.browser import By, Driver, Keys, open_page, requested_urls
from tests.train.output.pages import HOSTILE, METRIC_NAMES, example, scikit_figures


def show(driver: Driver, path: Path, page: Page, *, width: int = 1280, scheme: str = "light") -> None:
    """Write the page and open it from disk."""
    write_page(path, page)
    open_page(driver, path, width=width, scheme=scheme)


def number(driver: Driver, id: str) -> float | None:
    value = driver.find_element(By.ID, id).get_attribute("value")
    return float(value) if value else None


def move(driver: Driver, place: int) -> float:
    """Move the slider to `place` and return its threshold."""
    driver.execute_script(
        "const s = document.getElementById('slider'); s.value = arguments[0]; s.dispatchEvent(new Event('input'))",
        place,
    )
    threshold = number(driver, "threshold")
    assert threshold is not None
    return threshold


def assert_figures(driver: Driver, page: Page, part: str, threshold: float) -> None:
    """All numbers beside the slider equal scikit-learn's."""
    rows = page.part(part)
    scores, labels = np.array([r.score for r in rows]), np.array([r.label for r in rows])
    called = scores >= threshold
    tn, fp, fn, tp = metrics.confusion_matrix(labels, called, labels=[0, 1]).ravel().tolist()
    expected = {
        "true_negative": tn,
        "false_positive": fp,
        "false_negative": fn,
        "true_positive": tp,
        "recall": metrics.recall_score(labels, called),
        "precision": metrics.precision_score(labels, called) if tp + fp else None,
        "f1": metrics.f1_score(labels, called),
        "false_positive_rate": 1 - metrics.recall_score(labels, called, pos_label=0),
    }
    for name, value in expected.items():
        found = number(driver, f"here-{name}")
        assert found == (None if value is None else pytest.approx(value, abs=1e-12)), name
        text = driver.find_element(By.ID, f"here-{name}").text
        assert text == "–" if value is None else float(text.replace(",", "")) == pytest.approx(value, abs=0.00501)


@pytest.mark.parametrize("num_test", [14, 3000])
def test_the_slider_moves_the_figures_as_scikit_learn_says(driver: Driver, tmp_path: Path, num_test: int) -> None:
    page = example(num_test)
    show(driver, tmp_path / "report.html", page)
    assert number(driver, "threshold") == page.threshold.value
    assert_figures(driver, page, "test", page.threshold.value)
    slider = driver.find_element(By.ID, "slider")
    low, high = (int(slider.get_attribute(name)) for name in ("min", "max"))
    for place in np.linspace(low, high, 7).astype(int).tolist():
        assert_figures(driver, page, "test", move(driver, place))
    assert number(driver, "here-true_positive") == 0  # at the upper end no video is flagged
    move(driver, low)
    assert number(driver, "here-true_negative") == number(driver, "here-false_negative") == 0
    driver.find_element(By.ID, "back").click()
    assert number(driver, "threshold") == page.threshold.value
    assert_figures(driver, page, "test", page.threshold.value)


def test_the_switch_shows_the_other_part(driver: Driver, tmp_path: Path) -> None:
    page = example(40)
    show(driver, tmp_path / "report.html", page)
    before = driver.find_element(By.ID, "chart-roc").get_attribute("aria-label")
    driver.find_element(By.CSS_SELECTOR, "input[value=val]").click()
    assert_figures(driver, page, "val", page.threshold.value)
    assert {e.text for e in driver.find_elements(By.CSS_SELECTOR, "[data-part-name]")} == {"validation"}
    deadline = time.monotonic() + 10
    while driver.find_element(By.ID, "chart-roc").get_attribute("aria-label") == before:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_keyboard_moves_it_and_its_value_is_announced(driver: Driver, tmp_path: Path) -> None:
    page = example(40)
    show(driver, tmp_path / "report.html", page)
    slider = driver.find_element(By.ID, "slider")
    assert "the chosen threshold: finds" in slider.get_attribute("aria-valuetext")
    slider.send_keys(Keys.HOME)
    assert number(driver, "here-true_negative") == 0
    slider.send_keys(Keys.ARROW_RIGHT)
    threshold = number(driver, "threshold")
    assert threshold == (int(slider.get_attribute("min")) + 1) / 1000
    assert slider.get_attribute("aria-valuetext").startswith(f"{threshold:.3f}: finds ")
    assert_figures(driver, page, "test", threshold)
    back = driver.find_element(By.ID, "back")
    back.send_keys(Keys.ENTER)
    assert number(driver, "threshold") == page.threshold.value
    assert driver.switch_to.active_element == slider


def test_the_bound_is_marked_and_described(driver: Driver, tmp_path: Path) -> None:
    page = example(60, policy="recall>=0.9")
    show(driver, tmp_path / "report.html", page)
    slider = driver.find_element(By.ID, "slider")
    for place in (
        np.linspace(int(slider.get_attribute("min")), int(slider.get_attribute("max")), 5).astype(int).tolist()
    ):
        move(driver, place)
        recall = number(driver, "here-recall")
        assert recall is not None
        assert driver.find_element(By.ID, "bound").get_attribute("data-kept") == str(recall >= 0.9).lower()
    assert "gradient" in driver.find_element(By.ID, "bound-strip").value_of_css_property("background-image")
    assert "bound ≥ 0.9" in driver.find_element(By.ID, "chart-precision-recall").text


def test_scores_that_lie_close_get_a_finer_slider(driver: Driver, tmp_path: Path) -> None:
    page = example(40, low=0.4990, high=0.5002)
    show(driver, tmp_path / "report.html", page)
    slider = driver.find_element(By.ID, "slider")
    low, high = (int(slider.get_attribute(name)) for name in ("min", "max"))
    assert high - low >= 100
    for place in np.linspace(low, high, 5).astype(int).tolist():
        assert_figures(driver, page, "test", move(driver, place))


@pytest.mark.parametrize("num_folds", [0, 3])
@pytest.mark.parametrize("has_test", [True, False])
def test_it_opens_without_a_network_and_without_complaints(
    driver: Driver, tmp_path: Path, num_folds: int, has_test: bool
) -> None:
    path = tmp_path / "report.html"
    show(driver, path, example(30, num_folds=num_folds, has_test=has_test))
    move(driver, 500)
    charts = driver.find_elements(By.CSS_SELECTOR, ".chart")
    assert len(charts) == 6
    for chart in charts:
        assert chart.find_elements(By.CSS_SELECTOR, ".trace, .point"), chart.get_attribute("id")
        assert len(chart.get_attribute("aria-label")) > 40
    assert driver.get_log("browser") == []
    requested = requested_urls(driver)
    assert path.as_uri() in requested
    assert [url for url in requested if url != path.as_uri() and not url.startswith("data:")] == []


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_screen(driver: Driver, tmp_path: Path, width: int) -> None:
    show(driver, tmp_path / "report.html", example(30, hostile=True), width=width)
    wide, screen = driver.execute_script("const e = document.documentElement; return [e.scrollWidth, e.clientWidth]")
    assert wide <= screen


def test_dark_mode_reaches_the_charts(driver: Driver, tmp_path: Path) -> None:
    inks = {}
    for scheme in ("light", "dark"):
        show(driver, tmp_path / "report.html", example(14), scheme=scheme)
        title = driver.find_element(By.CSS_SELECTOR, "#chart-roc .xtitle")
        inks[scheme] = title.value_of_css_property("fill")
        body = driver.find_element(By.TAG_NAME, "body")
        assert inks[scheme] == body.value_of_css_property("color").replace("rgba", "rgb").replace(", 1)", ")")
    assert inks["light"] != inks["dark"]


def test_hostile_text_is_shown_and_does_nothing(driver: Driver, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    page = example(20, hostile=True)
    wrong = [dataclasses.replace(r, prediction=1 - r.label) if r.id == HOSTILE else r for r in page.videos]
    show(driver, path, dataclasses.replace(page, videos=wrong))
    assert driver.find_elements(By.CSS_SELECTOR, "[onerror], img[src=x]") == []
    seen = HOSTILE.replace("\u202e", r"\u202e")
    assert driver.title == f"{seen}: Haechi"
    for place in ("header", "#command", "#mistakes", "#leaks", "#data-card", "#threshold-section", "#slices"):
        assert seen in driver.find_element(By.CSS_SELECTOR, place).text, place
    assert driver.get_log("browser") == []
    assert "\u202e" not in path.read_text(encoding="utf-8").partition('id="data"')[0]


def test_mistakes_are_sorted_by_their_columns(driver: Driver, tmp_path: Path) -> None:
    page = example(200)
    show(driver, tmp_path / "report.html", page)
    expected = [row.id for row in page.mistakes]
    table = driver.find_element(By.CSS_SELECTOR, "table.mistakes")

    def ids() -> list[str]:
        return [cell.text for cell in table.find_elements(By.CSS_SELECTOR, "td.id bdi")]

    assert ids() == expected
    by_id = {row.id: row for row in page.mistakes}
    for title, key in [
        ("Score", lambda r: r.score),
        ("Seconds", lambda r: r.duration_seconds),
        ("Calibrated", lambda r: r.calibrated),
        ("Pixels", lambda r: r.width * r.height),
    ]:
        button = table.find_element(By.XPATH, f".//th/button[text()='{title}']")
        for direction, reverse in [("ascending", False), ("descending", True)]:
            button.send_keys(Keys.ENTER)
            header = button.find_element(By.XPATH, "..")
            assert header.get_attribute("aria-sort") == direction
            assert len(table.find_elements(By.CSS_SELECTOR, "[aria-sort]")) == 1
            found = [key(by_id[id]) for id in ids()]
            assert found == sorted(found, reverse=reverse)
    assert table.find_element(By.TAG_NAME, "img").get_attribute("src").startswith("data:image/jpeg;base64,")


def test_figures_that_are_undefined_are_dashes(driver: Driver, tmp_path: Path) -> None:
    page = example(14)
    rows = [dataclasses.replace(row, label=0) for row in page.videos]
    undefined = {
        part: scikit_figures(
            np.array([r.score for r in rows if r.split == part]), np.zeros(n, int), page.threshold.value
        )
        for part in ("train", "val", "test")
        for n in [len(page.part(part))]
    }
    intervals = {part: dict.fromkeys(METRIC_NAMES) for part in undefined}
    changed = dataclasses.replace(page, videos=rows, figures=undefined, intervals=intervals)
    show(driver, tmp_path / "report.html", changed)
    assert driver.find_element(By.ID, "here-recall").text == "–"
    assert "one class" in driver.find_element(By.ID, "chart-roc").get_attribute("aria-label")
    assert driver.get_log("browser") == []
