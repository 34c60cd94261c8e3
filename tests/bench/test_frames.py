"""The comparison with the ffmpeg command line: right frames are equal, and wrong ones are seen."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from bench import ffmpeg, frames
from haechi.extract.decoding.frame_times import FrameTimes
from haechi.extract.decoding.reasons import Reason, UnusableError
from haechi.extract.samples import scene, write_video
from tests.torture.variations import make, source, with_matrix

needs_ffmpeg = pytest.mark.skipif(not ffmpeg.is_installed(), reason="ffmpeg is not installed: nothing to compare with")

NUM_FRAMES, HEIGHT, WIDTH = 24, 48, 64
SCENE = scene(seed=0, restless=True, num_frames=NUM_FRAMES, height=HEIGHT, width=WIDTH)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("frames")


@pytest.fixture(scope="module")
def video(folder: Path) -> Path:
    return write_video(folder / "a.mp4", SCENE, options={"g": "8", "preset": "ultrafast"})


def faults_with(
    monkeypatch: pytest.MonkeyPatch, video: Path, alter: Callable[[Callable[..., None]], Callable[..., None]]
) -> list[str]:
    """What is found if PyAV's frames reach `show` through `alter(show)`."""
    real = frames.pyav_reader.read
    monkeypatch.setattr(
        frames.pyav_reader, "read", lambda path, header, number, show: real(path, header, number, alter(show))
    )
    return frames.compare(video, num_frames=8).faults


@needs_ffmpeg
def test_frames_that_are_equal(video: Path) -> None:
    result = CliRunner().invoke(frames.main, [str(video), "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    (report,) = json.loads(result.stdout)
    assert report["verdict"] == "equal"
    assert (report["num_frames"], report["width"], report["height"]) == (NUM_FRAMES, WIDTH, HEIGHT)
    assert {comparison["sampling"] for comparison in report["comparisons"]} == {"uniform", "windows"}
    for comparison in report["comparisons"]:
        assert len(comparison["rows"]) >= 32
        for row in comparison["rows"]:
            assert row["nearest"] == row["index"]
            assert max(row["mean_levels"]) < 0.5


@needs_ffmpeg
def test_the_table_shows_every_frame(video: Path) -> None:
    result = CliRunner().invoke(frames.main, [str(video), "--frames", "3"], catch_exceptions=False)
    assert "a.mp4: equal" in result.output
    rows = [line.split() for line in result.output.splitlines() if line.startswith("PyAV, uniform")]
    assert [row[2] for row in rows] == ["0", "11", "23"]


@needs_ffmpeg
def test_a_neighbour_is_seen(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[np.ndarray] = []

    def late(show: Callable[..., None]) -> Callable[..., None]:
        def show_previous(position: int, frame: np.ndarray) -> None:
            held.append(frame)
            show(position, held[-2:][0])

        return show_previous

    (fault,) = faults_with(monkeypatch, video, late)
    assert fault.startswith("PyAV, uniform: 7 of 8 frames differ: frame 3 differs by ")
    assert fault.endswith("the nearest is 0")


@needs_ffmpeg
def test_a_frame_upside_down_is_seen(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = faults_with(monkeypatch, video, lambda show: lambda position, frame: show(position, frame[::-1]))
    assert len(faults) == 1
    assert "8 of 8 frames differ" in faults[0]


@needs_ffmpeg
@pytest.mark.parametrize(
    ("alter", "fault"),
    [
        (lambda t: {"start_seconds": t.start_seconds * 1.1, "end_seconds": t.end_seconds * 1.1}, "in ffmpeg at"),
        (lambda t: {"start_seconds": t.start_seconds[:-1], "end_seconds": t.end_seconds[:-1]}, "ffmpeg shows 24"),
        (lambda t: {"width": t.height, "height": t.width}, "48 x 64 pixels, ffmpeg shows 64 x 48"),
        (lambda t: {"end_seconds": t.end_seconds + 1}, "ffmpeg's last frame begins at"),
    ],
)
def test_wrong_facts_are_seen(
    video: Path, monkeypatch: pytest.MonkeyPatch, alter: Callable[[FrameTimes], dict[str, Any]], fault: str
) -> None:
    real = frames.pyav_reader.read

    def read(*arguments: Any) -> FrameTimes:
        times = real(*arguments)
        return replace(times, **alter(times))

    monkeypatch.setattr(frames.pyav_reader, "read", read)
    result = CliRunner().invoke(frames.main, [str(video), "--summary"], catch_exceptions=False)
    assert result.exit_code == 1
    assert fault in result.output


@needs_ffmpeg
def test_a_refusal_counts_if_ffmpeg_plays_the_file(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.mp4").write_text("no video\n" * 50)
    assert frames.compare(tmp_path / "text.mp4").faults == []

    def refuse(*_: Any) -> FrameTimes:
        raise UnusableError(Reason.DAMAGED, "looks odd")

    monkeypatch.setattr(frames.pyav_reader, "read", refuse)
    (fault,) = frames.compare(video).faults
    assert fault == "PyAV, uniform: refused (damaged: looks odd), ffmpeg shows 24 frames without an error"


def test_stills_are_not_compared(tmp_path: Path) -> None:
    Image.fromarray(SCENE[0]).save(tmp_path / "a.png")
    report = frames.compare(tmp_path / "a.png")
    assert report.verdict.startswith("a still image: not compared")
    assert report.faults == []


def test_without_ffmpeg_the_command_says_so(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    result = CliRunner().invoke(frames.main, [str(video)])
    assert result.exit_code == 1
    assert "ffmpeg is not installed" in result.output


@needs_ffmpeg
@pytest.mark.parametrize(("degrees", "upright"), [(2.0, 0.0), (92.0, 90.0), (200.0, 180.0)])
@pytest.mark.parametrize("is_mirrored", [False, True])
def test_the_reference_turns_by_quarters(folder: Path, degrees: float, upright: float, is_mirrored: bool) -> None:
    """ffmpeg itself shows the exact matrix, so the nearest one must give the same pictures."""
    content = source(folder, "h264-plain", ".mp4").read_bytes()
    pictures = []
    for angle in (degrees, upright):
        path = folder / f"{angle:g}.mp4"
        path.write_bytes(with_matrix(content, angle, is_mirrored=is_mirrored))
        pictures.append(np.stack([shown.pixels for shown in ffmpeg.Playback(path).frames()]))
    np.testing.assert_array_equal(*pictures)


@needs_ffmpeg
def test_the_reference_of_a_recording_begins_with_a_key_frame(folder: Path) -> None:
    whole = [shown.pixels for shown in ffmpeg.Playback(source(folder, "h264-plain", ".ts")).frames()]
    recording = make("tuned in", folder, 3)
    assert recording.what == "h264-plain.ts from packet 157 on"
    playback = ffmpeg.Playback(recording.path)
    found = [shown.pixels for shown in playback.frames()]
    assert len(found) % 9 == len(whole) % 9, "groups of 9 pictures"
    np.testing.assert_array_equal(found, whole[-len(found) :])
    assert playback.errors == []
