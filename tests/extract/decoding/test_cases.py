"""The odd videos of ../shared/cases: each has the outcome that its README gives. Its pictures are tested elsewhere."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from bench import ffmpeg, frames
from haechi.extract.decoding.decode import sample
from haechi.extract.decoding.limits import Limits
from haechi.extract.decoding.reasons import Reason, UnusableError
from haechi.extract.sampling import UNIFORM, WINDOWS, Sampling, Uniform, Windows
from haechi.extract.settings import ExtractSettings
from tests.sinks import Kept

CASES = Path(__file__).parents[4] / "shared" / "cases"
VIDEOS = {".mp4", ".mkv", ".ts"}
NUM_SAMPLES = 16

pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="../shared/cases is not here")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a user must get."""

    num_frames: int
    duration_seconds: float
    width: int
    height: int


USED = {
    "cut-editlist-h264-a.mp4": Outcome(num_frames=77, duration_seconds=3.08, width=320, height=240),
    "cut-editlist-h264-b.mp4": Outcome(num_frames=52, duration_seconds=2.08, width=320, height=240),
    "matrix-flip-h.mp4": Outcome(num_frames=50, duration_seconds=2.0, width=320, height=240),
    "matrix-flip-v.mp4": Outcome(num_frames=50, duration_seconds=2.0, width=320, height=240),
    "matrix-rot-plus2.mp4": Outcome(num_frames=50, duration_seconds=2.0, width=320, height=240),
    "matrix-rot90-inexact.mp4": Outcome(num_frames=50, duration_seconds=2.0, width=240, height=320),
    "two-streams-large-first.mp4": Outcome(num_frames=50, duration_seconds=2.0, width=480, height=360),
    "two-streams-first-disabled.mp4": Outcome(num_frames=50, duration_seconds=2.0, width=480, height=360),
    "two-streams-default-second.mkv": Outcome(num_frames=50, duration_seconds=2.0, width=480, height=360),
    "starts-mid-gop.ts": Outcome(num_frames=100, duration_seconds=4.0, width=320, height=240),
}
COVER = "audio-with-cover.mp4"


def test_every_video_is_tested() -> None:
    assert {path.name for path in CASES.iterdir() if path.suffix in VIDEOS} == {*USED, COVER}


@pytest.mark.parametrize("name", USED)
def test_every_decoder_gives_the_right_outcome(name: str) -> None:
    readings = frames.read(CASES / name, NUM_SAMPLES)
    assert {reading.sampling for reading in readings} == {UNIFORM, WINDOWS}
    for reading in readings:
        assert not reading.refusal, reading.decoder
        found = Outcome(
            num_frames=reading.num_frames,
            duration_seconds=round(reading.duration_seconds, 3),
            width=reading.width,
            height=reading.height,
        )
        assert found == USED[name], f"{reading.decoder}, {reading.sampling}"


@pytest.mark.parametrize("sampling", [Uniform(frames=8), Windows(window_seconds=1, stride_seconds=1, clip_fps=4)])
@pytest.mark.parametrize("name", USED)
def test_times_only_increase(name: str, sampling: Sampling) -> None:
    found = sample(CASES / name, sampling=sampling, limits=Limits.of(ExtractSettings()), sink=Kept())
    assert (found.clip_seconds[1:] > found.clip_seconds[:-1]).all()
    assert found.num_frames == USED[name].num_frames


@pytest.mark.skipif(not ffmpeg.is_installed(), reason="ffmpeg is not installed: nothing to compare with")
@pytest.mark.parametrize("name", USED)
def test_every_frame_is_that_of_ffmpeg(name: str) -> None:
    report = frames.compare(CASES / name, num_frames=NUM_SAMPLES)
    assert report.faults == []
    assert report.num_frames == USED[name].num_frames
    assert all(row.mean_levels for comparison in report.comparisons for row in comparison.rows)


def test_sound_with_a_cover_picture_is_no_video() -> None:
    with pytest.raises(UnusableError) as raised:
        sample(CASES / COVER, sampling=Uniform(frames=8), limits=Limits.of(ExtractSettings()), sink=Kept())
    assert raised.value.reason == Reason.NO_VIDEO_STREAM
    assert raised.value.message.count("video") == 1, "says that it holds a video, and that it does not"
