"""The page of an evaluation in a real browser: sliders and charts work, and text from outside does nothing."""

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from haechi.predict.evaluation.evaluation import Evaluation
from haechi.predict.evaluation.output import page
from haechi.predict.evaluation.output.page_html import write_page
from tests.browser import By, Driver, Keys, open_page, requested_urls
from tests.predict.evaluation.made import HOSTILE, make_evaluation

ALL_CHARTS = {"fall", "causes", "prevalence", "budget", "calibration-before", "calibration-after", "scores"}


def show(
    driver: Driver,
    path: Path,
    evaluation: Evaluation,
    *,
    title: str = "run-7",
    width: int = 1280,
    scheme: str = "light",
) -> None:
    """Write the page and open it from disk."""
    write_page(path, evaluation, title=title, command=f"haechi evaluate {title}", thumbnails={})
    open_page(driver, path, width=width, scheme=scheme)


def text_of(driver: Driver, id: str) -> str:
    return driver.find_element(By.ID, id).text


def wait_until(is_so: Callable[[], bool]) -> None:
    """Charts are drawn, and fitted to the screen, a moment later."""
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def fits(driver: Driver) -> bool:
    """Whether nothing is wider than the screen."""
    wide, screen = driver.execute_script("const e = document.documentElement; return [e.scrollWidth, e.clientWidth]")
    return bool(wide <= screen)


def charts(driver: Driver) -> dict[str, str]:
    """Name -> sentence for readers who cannot see it, of each chart that is drawn."""
    return {
        element.get_attribute("id").removeprefix("chart-"): element.get_attribute("aria-label")
        for element in driver.find_elements(By.CSS_SELECTOR, ".chart")
        if element.find_elements(By.CSS_SELECTOR, ".trace, .point")
    }


def test_it_opens_without_a_network_and_without_complaints(driver: Driver, tmp_path: Path) -> None:
    path = tmp_path / "evaluation.html"
    show(driver, path, make_evaluation())
    drawn = charts(driver)
    assert set(drawn) == ALL_CHARTS
    assert "Lower by more than chance: Recall" in drawn["fall"]
    assert "class mix −0.08, separation −0.13, threshold −0.05" in drawn["causes"]
    assert driver.get_log("browser") == []
    requested = requested_urls(driver)
    assert path.as_uri() in requested
    assert [url for url in requested if url != path.as_uri() and not url.startswith("data:")] == []


def test_the_sliders_move_figures_and_charts(driver: Driver, tmp_path: Path) -> None:
    evaluation = make_evaluation()
    show(driver, tmp_path / "evaluation.html", evaluation)
    points = page.curve_points(evaluation)
    slider = driver.find_element(By.ID, "prevalence-slider")
    assert text_of(driver, "prevalence-value") == "1 %"
    assert driver.find_element(By.CSS_SELECTOR, "label[for=prevalence-slider]").text == "Prevalence"
    before = charts(driver)["prevalence"]
    for key, point in [(Keys.HOME, points[0]), (Keys.ARROW_RIGHT, points[1]), (Keys.END, points[-1])]:
        slider.send_keys(key)
        assert point.precision is not None
        assert text_of(driver, "prevalence-precision") == f"{point.precision:.3f}"
        assert float(text_of(driver, "prevalence-alerts").replace(",", "")) == pytest.approx(point.alerts, rel=0.01)
        assert float(text_of(driver, "prevalence-misses").replace(",", "")) == pytest.approx(point.misses, rel=0.05)
        low, high = text_of(driver, "prevalence-alerts-interval").replace(",", "").split(" to ")
        assert float(low) < point.alerts < float(high)
        announced = slider.get_attribute("aria-valuetext").replace("\u00a0", " ")
        assert announced == text_of(driver, "prevalence-words")
    wait_until(lambda: charts(driver)["prevalence"] != before)
    # Two sliders that move at once: both charts are drawn.
    before = charts(driver)
    driver.execute_script(
        "for (const id of ['prevalence-slider', 'budget-slider']) { const s = document.getElementById(id);"
        " s.value = s.max - 9; s.dispatchEvent(new Event('input')); }"
    )
    assert text_of(driver, "budget-words") == "Reviewing the 393 highest of 412 videos finds 103 of 103 harmful ones."
    wait_until(lambda: all(charts(driver)[name] != before[name] for name in ("prevalence", "budget")))


def test_hostile_text_is_shown_and_does_nothing(driver: Driver, tmp_path: Path) -> None:
    evaluation = make_evaluation(hostile=True)
    show(driver, tmp_path / "evaluation.html", evaluation, title=HOSTILE)
    assert driver.find_elements(By.CSS_SELECTOR, "[onerror], img[src=x]") == []
    seen = HOSTILE.replace("\u202e", r"\u202e")
    assert driver.title == f"{seen}: Haechi"
    for place in ("header", "#answer", "#slices", "#disagreements", "#overlap", "#data-card", "#command"):
        assert seen in driver.find_element(By.CSS_SELECTOR, place).get_attribute("textContent"), place
    assert driver.get_log("browser") == []
    assert fits(driver)
    phone = {"width": 420, "height": 900, "deviceScaleFactor": 1, "mobile": True}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    wait_until(lambda: fits(driver))


@pytest.mark.parametrize(
    ("evaluation", "expected"),
    [
        (
            dataclasses.replace(
                make_evaluation(num_folds=3), slices=[], disagreements=[], budgets=[], prevalences=[], verdicts=[]
            ),
            ALL_CHARTS,
        ),
        (make_evaluation(60, has_own=False), ALL_CHARTS - {"causes"}),
        (make_evaluation(60, share=0), ALL_CHARTS - {"causes", "prevalence", "budget"}),
        (make_evaluation(60, share=1), ALL_CHARTS - {"causes", "prevalence"}),
        (make_evaluation(0), {"scores"}),
        (make_evaluation(0, num_unlabelled=0), set()),
    ],
    ids=["folds, nothing asked for", "no own figures", "safe", "harmful", "unlabelled", "nothing"],
)
def test_each_case_draws_what_it_has(
    driver: Driver, tmp_path: Path, evaluation: Evaluation, expected: set[str]
) -> None:
    show(driver, tmp_path / "evaluation.html", evaluation, width=420)
    assert set(charts(driver)) == expected
    assert driver.get_log("browser") == []
    assert fits(driver)


def test_dark_mode_reaches_the_charts_and_paper_has_the_position_of_the_slider(driver: Driver, tmp_path: Path) -> None:
    show(driver, tmp_path / "evaluation.html", make_evaluation(), scheme="dark")
    ink = driver.find_element(By.CSS_SELECTOR, "#chart-prevalence .xtitle").value_of_css_property("fill")
    body = driver.find_element(By.TAG_NAME, "body").value_of_css_property("color")
    assert ink == body.replace("rgba", "rgb").replace(", 1)", ")")
    assert ink != "rgb(27, 29, 32)"
    driver.find_element(By.ID, "prevalence-slider").send_keys(Keys.END)
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert not driver.find_element(By.ID, "prevalence-slider").is_displayed()
        assert text_of(driver, "prevalence-value") == "50 %"
        assert "5,000 of them harmful (50 %)" in text_of(driver, "prevalence-words")
        assert driver.find_element(By.CSS_SELECTOR, ".changes td.wide").is_displayed()
    finally:
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_slices_and_disagreements_are_sorted_by_their_columns(driver: Driver, tmp_path: Path) -> None:
    evaluation = make_evaluation()
    show(driver, tmp_path / "evaluation.html", evaluation)
    slices = {each.subset.name: each for each in evaluation.slices}
    rows = {row.id: row for row in page.shown_disagreements(evaluation)}
    for table, cell, title, key in [
        ("table.slices", "tbody th bdi", "Wrong", lambda name: slices[name].mistakes),
        ("table.slices", "tbody th bdi", "Videos", lambda name: slices[name].subset.count),
        ("table.mistakes", "td.id bdi", "Score", lambda name: rows[name].score),
    ]:
        element = driver.find_element(By.CSS_SELECTOR, table)
        button = element.find_element(By.XPATH, f".//th/button[text()='{title}']")
        for direction, reverse in [("ascending", False), ("descending", True)]:
            button.send_keys(Keys.ENTER)
            assert button.find_element(By.XPATH, "..").get_attribute("aria-sort") == direction
            script = "return JSON.stringify([...arguments[0].querySelectorAll(arguments[1])].map((e) => e.textContent))"
            found = [key(name) for name in json.loads(driver.execute_script(script, element, cell))]
            assert found == sorted(found, reverse=reverse)
