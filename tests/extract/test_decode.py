"""Real files through decord: what each sound one gives, and what each damaged one is called."""

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from extract.decode import sample
from extract.reasons import Reason, UnusableError
from extract.sampling import uniform
from extract.transforms import FrameTransform
from tests.extract.conftest import VFR_TIMES

LIMIT = 7680 * 4320
TRANSFORM = FrameTransform(size=64, interpolation="bicubic")


def frames_of(path: Path, num_samples: int = 8) -> np.ndarray:
    array = np.zeros((num_samples, 64, 64, 3), np.uint8)
    sample(path, num_samples=num_samples, max_pixels=LIMIT, outputs=[(TRANSFORM, list(range(num_samples)), array)])
    return array


@pytest.mark.parametrize(
    ("name", "num_frames", "width", "height"),
    [
        ("sound.mp4", 40, 320, 240),
        ("with_audio.mp4", 40, 320, 240),
        ("vfr.mp4", 40, 320, 240),
        ("portrait.mp4", 40, 180, 320),
        ("odd.mp4", 40, 321, 181),
        ("rotated.mp4", 40, 240, 320),
        ("one_frame.mp4", 1, 320, 240),
        ("short.mp4", 7, 320, 240),
        ("vp9.webm", 20, 320, 240),
        ("mpeg4.avi", 40, 320, 240),
        ("한국어 영상.mp4", 40, 320, 240),
    ],
)
def test_sound_files(videos: Path, name: str, num_frames: int, width: int, height: int) -> None:
    found = sample(videos / name, num_samples=32, max_pixels=LIMIT, outputs=[])
    assert (found.num_frames, found.width, found.height) == (num_frames, width, height)
    assert found.start_seconds.shape == found.end_seconds.shape == (32,)
    assert (np.diff(found.start_seconds) >= 0).all()
    assert (found.end_seconds > found.start_seconds).all()
    assert found.duration_seconds > 0


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nowhere.mp4", Reason.MISSING),
        ("empty.mp4", Reason.EMPTY_FILE),
        ("text.mp4", Reason.NOT_MEDIA),
        ("cut.mp4", Reason.NOT_MEDIA),
        ("audio_only.mp4", Reason.NO_VIDEO_STREAM),
        ("no_frames.mkv", Reason.NO_FRAMES),
        ("damaged.mp4", Reason.DAMAGED),
        ("cut.mkv", Reason.DAMAGED),
        (".", Reason.UNREADABLE),
    ],
)
def test_unsound_files(videos: Path, capfd: pytest.CaptureFixture[str], name: str, reason: Reason) -> None:
    with pytest.raises(UnusableError) as caught:
        frames_of(videos / name)
    assert caught.value.reason == reason, caught.value.message
    assert caught.value.message
    assert capfd.readouterr() == ("", "")  # FFmpeg's chatter is caught


def test_too_large_is_told_from_the_header(videos: Path) -> None:
    with pytest.raises(UnusableError) as caught:
        sample(videos / "sound.mp4", num_samples=8, max_pixels=320 * 240 - 1, outputs=[])
    assert caught.value.reason == Reason.TOO_LARGE
    assert "320 x 240" in caught.value.message


@pytest.mark.parametrize("name", ["sound.mp4", "vfr.mp4", "vp9.webm"])
def test_frames_and_times_are_pyavs(videos: Path, name: str) -> None:
    with av.open(str(videos / name)) as container:
        decoded = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    found = sample(videos / name, num_samples=8, max_pixels=LIMIT, outputs=[])
    indices = uniform(len(decoded), 8)
    np.testing.assert_allclose(found.start_seconds, [decoded[i][0] for i in indices], atol=2e-3)
    for ours, index in zip(frames_of(videos / name), indices, strict=True):
        # the two FFmpegs convert colours by a level or two differently; the next frame differs far more
        assert np.abs(ours.astype(int) - TRANSFORM(decoded[index][1])).mean() < 3


def test_variable_frame_rate_is_sampled_by_frame_and_timed_by_the_clock(videos: Path) -> None:
    found = sample(videos / "vfr.mp4", num_samples=40, max_pixels=LIMIT, outputs=[])
    np.testing.assert_allclose(found.start_seconds, VFR_TIMES, atol=2e-3)


def test_rotation_is_applied(videos: Path) -> None:
    upright, turned = frames_of(videos / "sound.mp4"), frames_of(videos / "rotated.mp4")
    expected = np.rot90(upright, k=-1, axes=(1, 2))  # clockwise
    assert np.abs(turned.astype(int) - expected).mean() < 2
    assert np.abs(turned.astype(int) - upright).mean() > 4


def test_short_videos_repeat_frames(videos: Path) -> None:
    frames = frames_of(videos / "one_frame.mp4")
    assert (frames == frames[0]).all()
    frames = frames_of(videos / "short.mp4", num_samples=14)
    assert uniform(7, 14)[:2] == [0, 0]
    assert (frames[0] == frames[1]).all()
    assert (frames[0] != frames[-1]).any()


def test_outputs_get_their_own_positions(videos: Path) -> None:
    every = frames_of(videos / "sound.mp4")
    some, other = np.zeros((3, 64, 64, 3), np.uint8), np.zeros((2, 32, 32, 3), np.uint8)
    small = FrameTransform(size=32, interpolation="bilinear")
    sample(
        videos / "sound.mp4",
        num_samples=8,
        max_pixels=LIMIT,
        outputs=[(TRANSFORM, [7, 0, 0], some), (small, [1, 2], other)],
    )
    assert (some == every[[7, 0, 0]]).all()
    assert other.any(axis=(1, 2, 3)).all()


def test_the_picture_is_the_video(videos: Path, tmp_path: Path) -> None:
    """Against FFmpeg's own first frame through Pillow: right colours in the right order."""
    with av.open(str(videos / "portrait.mp4")) as container:
        picture = next(container.decode(video=0)).to_image()
    picture.save(tmp_path / "first.png")
    expected = TRANSFORM(np.asarray(Image.open(tmp_path / "first.png")))
    assert np.abs(frames_of(videos / "portrait.mp4")[0].astype(int) - expected).mean() < 3
