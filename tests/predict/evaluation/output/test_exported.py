"""Moments as ranges of frames, and where a labelling tool finds a file."""

from itertools import pairwise
from pathlib import Path

import pytest

from haechi.cache.errors import HaechiError, SettingsError
from haechi.predict.evaluation.output.exported import Segment, kind_of, location
from haechi.predict.evaluation.output.exports import WRITERS
from haechi.predict.prediction import ScoredWindow
from tests.predict.evaluation.output.exports import exported, moment, some_images, some_videos


@pytest.mark.parametrize(
    ("moments", "expected"),
    [
        ([], []),
        ([moment(0, 2)], [(1, 50, 0.9)]),
        ([moment(2, 4)], [(51, 100, 0.9)]),
        ([moment(0, 2, 0.6), moment(2, 4, 0.8), moment(4, 6, 0.7)], [(1, 150, 0.8)]),
        ([moment(0, 2), moment(1, 3, 0.95)], [(1, 75, 0.95)]),  # windows may overlap
        ([moment(0, 3), moment(1, 2)], [(1, 75, 0.9)]),
        ([moment(0, 2), moment(4, 6)], [(1, 50, 0.9), (101, 150, 0.9)]),
        ([moment(8, 10.4)], [(201, 250, 0.9)]),  # no more frames than the file has
        ([moment(9.99, 9.991)], [(250, 250, 0.9)]),  # at least one frame
        ([moment(-0.1, 0.001)], [(1, 1, 0.9)]),
    ],
)
def test_moments_are_ranges_of_frames(moments: list[ScoredWindow], expected: list[tuple[int, int, float]]) -> None:
    """Frame n, from 1, is shown from (n - 1) / fps to n / fps."""
    segments = exported("a", moments=tuple(moments)).segments
    assert segments == [Segment(first_frame=a, last_frame=b, score=score) for a, b, score in expected]


@pytest.mark.parametrize("fps", [24.0, 25.0, 30000 / 1001, 29.97, 59.94, 7.5])
def test_windows_that_follow_each_other_share_no_frame_and_miss_none(fps: float) -> None:
    """Windows begin and end with a frame, whose times are n / fps with rounding errors."""
    ends = [n * 13 / fps for n in range(50)]
    ranges = [
        exported("a", fps=fps, num_frames=10_000, moments=(moment(start + 1e-9, end - 1e-9),)).segments[0]
        for start, end in pairwise(ends)
    ]
    assert [(each.first_frame, each.last_frame) for each in ranges] == [(13 * n + 1, 13 * n + 13) for n in range(49)]


@pytest.mark.parametrize(("fps", "num_frames"), [(0.0, 100), (float("nan"), 100), (float("inf"), 100), (25.0, 0)])
def test_without_frame_times_there_are_no_ranges(fps: float, num_frames: int) -> None:
    assert exported("a", fps=fps, num_frames=num_frames, moments=(moment(0, 2),)).segments == []


@pytest.mark.parametrize(
    ("id", "path", "root", "prefix", "expected"),
    [
        ("clips/a.mp4", "", None, "", "clips/a.mp4"),
        ("name", "clips/a.mp4", None, "", "clips/a.mp4"),
        ("name", "/secret/a.mp4", None, "", "name"),
        ("name", "clips/../a.mp4", Path("/media"), "", "/media/a.mp4"),
        ("name", "/elsewhere/a.mp4", Path("/media"), "", "/elsewhere/a.mp4"),
        ("clips/a b#é.mp4", "", None, "/data/local-files/?d=set/", "/data/local-files/?d=set/clips/a%20b%23%C3%A9.mp4"),
        ("a b.mp4", "", None, "s3://bucket/", "s3://bucket/a b.mp4"),
        ("name", "/secret/a.mp4", None, "https://host/", "https://host/name"),
    ],
)
def test_where_the_file_is(id: str, path: str, root: Path | None, prefix: str, expected: str) -> None:
    assert location(exported(id, path=path), media_root=root, url_prefix=prefix) == expected


def test_a_relative_root_becomes_absolute() -> None:
    assert location(exported("a.mp4"), media_root=Path("media"), url_prefix="") == f"{Path.cwd()}/media/a.mp4"


def test_a_root_and_a_prefix_exclude_each_other() -> None:
    with pytest.raises(SettingsError, match="media_root and url_prefix are both given"):
        location(exported("a"), media_root=Path("/media"), url_prefix="https://host/")


@pytest.mark.parametrize("name", WRITERS)
def test_an_export_holds_one_kind_of_media(tmp_path: Path, name: str) -> None:
    with pytest.raises(HaechiError, match="these are images and videos"):
        WRITERS[name](tmp_path / "export.json", some_videos() + some_images(), model_version="run")
    assert list(tmp_path.iterdir()) == []
    assert kind_of([], tool="x") == "video"


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("videos", [some_videos(), some_images(), []], ids=["videos", "images", "none"])
def test_no_absolute_path_is_written_unless_a_root_is_given(tmp_path: Path, name: str, videos: list) -> None:  # type: ignore[type-arg]
    WRITERS[name](tmp_path / "export.json", videos, model_version="run")
    text = (tmp_path / "export.json").read_text()
    assert '"/' not in text
    assert "NaN" not in text
    WRITERS[name](tmp_path / "export.json", videos, model_version="run", media_root=tmp_path / "media")
    assert (tmp_path / "export.json").read_text().count(f'"{tmp_path}/media/') == len(videos)
