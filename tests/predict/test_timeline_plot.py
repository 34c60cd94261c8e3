"""The picture of scores over time."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.font_manager import FontEntry

from haechi.cache.errors import HaechiError
from haechi.predict import timeline_plot
from haechi.predict.prediction import Prediction, ScoredWindow, not_judged
from haechi.predict.timeline_plot import TimelinePlot, envelope
from tests.predict import film
from tests.predict.conftest import call, flags
from tests.predict.test_windows import prediction
from tests.train.output.test_plots import assert_nothing_is_cut_off, red_pixels


def new_plot(
    path: Path, *, untrained: tuple[str, ...] = (), media: str = "video", sampling: str = "windows"
) -> TimelinePlot:
    heads: Any = SimpleNamespace(models={media: None}, untrained=list(untrained), sampling=sampling)
    return TimelinePlot(path, heads)


def draw(path: Path, *predictions: Prediction, **options: Any) -> list[str]:
    picture = new_plot(path, **options)
    for each in predictions:
        picture.add(each)
    return picture.draw()


def windows(*table: tuple[float, float, float]) -> list[ScoredWindow]:
    return [ScoredWindow(start_seconds=start, end_seconds=end, score=score) for start, end, score in table]


@pytest.mark.parametrize(
    ("given", "edges", "lowest", "highest"),
    [
        ([(0, 2, 0.1), (2, 4, 0.3)], [0, 2, 4], [0.1, 0.3], [0.1, 0.3]),
        ([(0, 2, 0.1), (1, 3, 0.3)], [0, 1, 2, 3], [0.1, 0.1, 0.3], [0.1, 0.3, 0.3]),
        ([(0, 3, 0.5), (1, 4, 0.1), (2, 5, 0.3)], [0, 1, 2, 3, 4, 5], [0.5, 0.1, 0.1, 0.1, 0.3], [0.5] * 3 + [0.3] * 2),
        ([(0, 1, 0.1), (2, 3, 0.3)], [0, 1, 2, 3], [0.1, np.nan, 0.3], [0.1, np.nan, 0.3]),
        ([(0, 2.0000002, 0.1), (2, 4, 0.3)], [0, 2, 4], [0.1, 0.3], [0.1, 0.3]),
        ([(1, 1, 0.1)], [1, 1.04], [0.1], [0.1]),
    ],
)
def test_the_lowest_and_highest_score_of_a_moment(
    given: list[tuple[float, float, float]], edges: list[float], lowest: list[float], highest: list[float]
) -> None:
    found = envelope(windows(*given))
    for array, expected in zip(found, (edges, lowest, highest), strict=True):
        np.testing.assert_allclose(array, expected)


@pytest.mark.parametrize("stride", [2.0, 0.125])
def test_no_window_is_lost_where_several_share_a_piece(stride: float) -> None:
    scores = np.random.default_rng(0).uniform(0.1, 0.5, size=3600)
    scores[1234], scores[2345] = 0.9, 0.01
    table = [(stride * i, stride * i + 2, score) for i, score in enumerate(scores)]
    edges, lowest, highest = envelope(windows(*table), max_columns=100)
    assert (len(edges), len(lowest), len(highest)) == (101, 100, 100)
    assert (edges[0], edges[-1]) == (0, stride * 3599 + 2)
    for i, score, which in ((1234, 0.9, highest), (2345, 0.01, lowest)):
        shown = np.flatnonzero(which == score)
        assert edges[shown[0]] <= stride * i
        assert edges[shown[-1] + 1] >= stride * i + 2


def test_red_is_above_the_threshold(tmp_path: Path) -> None:
    """Red is used for scores above the threshold with their mark, and for UNTRAINED, and for nothing else."""
    safe, bad = prediction(0.2, 0.1, 0.3, 0.2), prediction(0.2, 0.1, 0.9, 0.2)
    for name, options in (("trained", {}), ("untrained", {"untrained": ("clip",)})):
        for each, kind in ((safe, "safe"), (bad, "bad")):
            assert draw(tmp_path / f"{name}-{kind}.png", each, **options) == []
            assert_nothing_is_cut_off(tmp_path / f"{name}-{kind}.png")
    assert red_pixels(tmp_path / "trained-safe.png") == 0
    assert red_pixels(tmp_path / "trained-bad.png") > 100
    assert red_pixels(tmp_path / "untrained-safe.png") > 100


def test_a_panel_a_video(tmp_path: Path) -> None:
    image, broken = prediction(0.9), not_judged("b.mp4", "damaged", "is damaged")
    long = replace(prediction(0.2, *[0.1] * 3600), id="folder/" + "$매우 긴 이름_" * 40 + ".mp4")
    draw(tmp_path / "one.png", prediction(0.2, 0.1), image, broken)
    draw(tmp_path / "three.png", prediction(0.2, 0.1), broken, long, prediction(0.9, 1.0, 1.0))
    one, three = (matplotlib.image.imread(tmp_path / f"{name}.png") for name in ("one", "three"))
    assert one.shape[1] == three.shape[1]
    assert 2 * one.shape[0] < three.shape[0] < 3 * one.shape[0]
    assert_nothing_is_cut_off(tmp_path / "three.png")


def test_videos_that_are_left_out_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline_plot, "MAX_PANELS", 3)
    videos = [replace(prediction(0.2, 0.1), id=f"{i}.mp4") for i in range(5)]
    (note,) = draw(tmp_path / "a.png", *videos)
    assert "first 3 videos" in note
    assert note.splitlines()[1:] == ["  - 3.mp4", "  - 4.mp4"]
    assert draw(tmp_path / "b.png", *videos[:3]) == []


def test_letters_that_no_font_has_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = replace(prediction(0.2, 0.1), id="aᶁ.mp4")  # in a font that comes with matplotlib, not in its first one
    assert draw(tmp_path / "a.png", named) == []
    monkeypatch.setattr(timeline_plot, "_letters", lambda font: set(map(ord, "a.mp4")))
    (note,) = draw(tmp_path / "a.png", named)
    assert "no installed font has ᶁ; boxes are drawn instead" in note


def test_a_font_that_is_gone_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Matplotlib lists fonts once, when it is first used."""
    gone = FontEntry(fname=str(tmp_path / "gone.ttf"), name="Gone")
    monkeypatch.setattr(timeline_plot.fontManager, "ttflist", [gone, *timeline_plot.fontManager.ttflist])
    assert draw(tmp_path / "a.png", replace(prediction(0.2, 0.1), id="aᶁ.mp4")) == []


def test_nothing_to_draw_is_reported(tmp_path: Path) -> None:
    (note,) = draw(tmp_path / "a.png", not_judged("b.mp4", "damaged", "is damaged"))
    assert "not drawn, because no video was judged" in note
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_no_half_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(b"an older one")

    def savefig(self: Figure, path: Path, **options: Any) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", savefig)
    with pytest.raises(OSError, match="No space left"):
        draw(tmp_path / "a.png", prediction(0.2, 0.1))
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.png", b"an older one")]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nowhere/a.png", {}, "nowhere: no such folder; create it first"),
        ("", {}, "--timeline: an empty name"),
        ("a.jpg", {}, "expected the name of a PNG; use --timeline .*a.png"),
        ("a.png", {"sampling": "uniform"}, "extract with --sampling windows and train on that cache"),
        ("a.png", {"media": "image"}, "for videos, but the run is for images"),
    ],
)
def test_what_cannot_be_drawn_is_refused(tmp_path: Path, name: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(HaechiError, match=message):
        new_plot(tmp_path / name if name else Path(), **options)


def test_on_the_command_line(tmp_path: Path) -> None:
    run = film.train_run(tmp_path)
    film.write_cache(tmp_path / "films", [film.film(film.media("film.mp4", 61.0), bad=(12, 14))])
    judged = ["predict", run, "--cache", tmp_path / "films", "--device", "cpu"]
    done = call(*judged, "--timeline", tmp_path / "a.png")
    assert done.exit_code == 3, done.output  # `broken.mp4`
    assert "1 harmful moment" in done.stdout
    assert red_pixels(tmp_path / "a.png") > 100
    assert_nothing_is_cut_off(tmp_path / "a.png")
    done = call(*judged, "--timeline", tmp_path / "nowhere" / "a.png")
    assert done.exit_code == 1
    assert "no such folder; create it first" in done.output
    assert "film.mp4" not in done.output  # nothing was judged before


def test_uniform_sampling_is_refused_before_the_work(folder: Path, tmp_path: Path) -> None:
    done = call("predict", folder / "run", folder / "videos", *flags(folder), "--timeline", tmp_path / "a.png")
    assert done.exit_code == 1
    assert "extract with --sampling windows and train on that cache" in done.output
    assert "harmful-00.mp4" not in done.output
