"""What decoding real files gives: frames and times for undamaged ones, a reason for the others."""

import shutil
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from haechi.extract.decoding.container import Header
from haechi.extract.decoding.decode import sample
from haechi.extract.decoding.limits import Limits
from haechi.extract.decoding.reasons import Reason, UnusableError
from haechi.extract.decoding.shared_frames import NO_OUTPUT, Output
from haechi.extract.decoding.transforms import FrameTransform
from haechi.extract.samples import scene, write_video
from haechi.extract.sampling import Uniform, uniform
from haechi.extract.settings import ExtractSettings
from tests.extract.conftest import VFR_TIMES
from tests.sinks import Kept

LIMITS = Limits.of(ExtractSettings())
TRANSFORM = FrameTransform(size=64, interpolation="bicubic")


def frames_of(path: Path, num_samples: int = 8) -> np.ndarray:
    kept = Kept(Output(transform=TRANSFORM, num_frames=num_samples))
    sample(path, sampling=Uniform(frames=num_samples), limits=LIMITS, sink=kept)
    return kept.frames()


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
    found = sample(videos / name, sampling=Uniform(frames=32), limits=LIMITS, sink=Kept())
    assert (found.num_frames, found.width, found.height) == (num_frames, width, height)
    assert found.clip_seconds.shape == (32,)
    assert (np.diff(found.clip_seconds) >= 0).all()
    assert found.window_start_seconds == found.clip_seconds[0]
    assert found.window_end_seconds > found.clip_seconds[-1]
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
    assert capfd.readouterr() == ("", "")  # FFmpeg's log is captured


def test_too_large_is_reported_from_the_header(videos: Path) -> None:
    limits = replace(LIMITS, max_pixels=320 * 240 - 1)
    with pytest.raises(UnusableError) as caught:
        sample(videos / "sound.mp4", sampling=Uniform(frames=8), limits=limits, sink=Kept())
    assert caught.value.reason == Reason.TOO_LARGE
    assert "320 x 240" in caught.value.message


@pytest.mark.parametrize("name", ["sound.mp4", "vfr.mp4", "vp9.webm"])
def test_frames_and_times_are_pyavs(videos: Path, name: str) -> None:
    with av.open(str(videos / name)) as container:
        decoded = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    found = sample(videos / name, sampling=Uniform(frames=8), limits=LIMITS, sink=Kept())
    indices = uniform(len(decoded), 8)
    np.testing.assert_allclose(found.clip_seconds, [decoded[i][0] for i in indices], atol=2e-3)
    for ours, index in zip(frames_of(videos / name), indices, strict=True):
        # the FFmpegs of decord and PyAV differ by a level or two in colours; the next frame differs much more
        assert np.abs(ours.astype(int) - TRANSFORM(decoded[index][1])).mean() < 3


def test_variable_frame_rate_is_sampled_by_frame_and_timed_by_the_clock(videos: Path) -> None:
    found = sample(videos / "vfr.mp4", sampling=Uniform(frames=40), limits=LIMITS, sink=Kept())
    np.testing.assert_allclose(found.clip_seconds, VFR_TIMES, atol=2e-3)


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
    few = Output(transform=TRANSFORM, num_frames=3)
    small = Output(transform=FrameTransform(size=32, interpolation="bilinear"), num_frames=2)
    kept = Kept(few, small)
    sample(videos / "sound.mp4", sampling=Uniform(frames=8), limits=LIMITS, sink=kept)
    assert (kept.frames(0) == every[[0, 3, 7]]).all()
    assert kept.frames(1).shape == (2, 32, 32, 3)
    assert kept.frames(1).any(axis=(1, 2, 3)).all()


def test_the_picture_is_the_video(videos: Path, tmp_path: Path) -> None:
    """The first frame has the colours of FFmpeg's own conversion."""
    with av.open(str(videos / "portrait.mp4")) as container:
        picture = next(container.decode(video=0)).to_image()
    picture.save(tmp_path / "first.png")
    expected = TRANSFORM(np.asarray(Image.open(tmp_path / "first.png")))
    assert np.abs(frames_of(videos / "portrait.mp4")[0].astype(int) - expected).mean() < 3


def test_more_frames_than_allowed_are_refused_from_the_header(videos: Path) -> None:
    limits = replace(LIMITS, max_frames=39)
    for name in ("sound.mp4", "mpeg4.avi", "whole.mkv"):  # the last one does not declare its number of frames
        with pytest.raises(UnusableError, match=r"4?0 frames or more, the limit is 39 \(--max-frames\)") as caught:
            sample(videos / name, sampling=Uniform(frames=8), limits=limits, sink=Kept())
        assert caught.value.reason == Reason.TOO_LARGE


@pytest.mark.parametrize(
    "content",
    [
        "ffconcat version 1.0\nfile 'sound.mp4'\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:1.6,\nsound.mp4\n#EXT-X-ENDLIST\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:1.6,\nsound.ts\n#EXT-X-ENDLIST\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    ],
)
def test_a_playlist_opens_no_other_file(videos: Path, tmp_path: Path, content: str) -> None:
    """FFmpeg recognises it by its content, and would open the files or addresses that it names."""
    shutil.copy(videos / "sound.mp4", tmp_path / "sound.mp4")
    write_video(tmp_path / "sound.ts", scene(seed=1, restless=True, num_frames=40))
    for name in ("list.mp4", "list.m3u8", "list.ts"):
        (tmp_path / name).write_text(content)
        with pytest.raises(UnusableError) as caught:
            sample(tmp_path / name, sampling=Uniform(frames=8), limits=LIMITS, sink=Kept())
        assert caught.value.reason == Reason.NOT_MEDIA


@pytest.mark.parametrize("name", ["sound.mp4", "vp9.webm", "mpeg4.avi", "whole.mkv"])
def test_the_header_knows_how_long_a_video_is(videos: Path, name: str) -> None:
    headers: list[Header] = []
    sample(videos / name, sampling=Uniform(frames=2), limits=LIMITS, sink=Kept(), on_header=headers.append)
    assert headers[0].duration_seconds == pytest.approx(headers[0].num_packets / 25, abs=0.05)


def test_a_file_is_judged_alike_after_any_other_file(videos: Path, tmp_path: Path) -> None:
    """PyAV drops a log line that is the same as the last one, even of another file."""
    content = (videos / "vp9.webm").read_bytes()
    (tmp_path / "cut.webm").write_bytes(content[: len(content) * 3 // 4])

    def verdict() -> str:
        try:
            sample(tmp_path / "cut.webm", sampling=Uniform(frames=4), limits=LIMITS, sink=Kept())
        except UnusableError as error:
            return str(error.message)
        return "used"

    first = verdict()
    assert first != "used"
    assert [verdict() for _ in range(3)] == [first] * 3
    sample(videos / "vp9.webm", sampling=Uniform(frames=4), limits=LIMITS, sink=Kept())


def test_an_mp4_that_lacks_frames_of_its_index_is_damaged(videos: Path, tmp_path: Path) -> None:
    """The index comes first and the file is cut off, as after an interrupted download."""
    whole = tmp_path / "whole.mp4"
    with (
        av.open(str(videos / "sound.mp4")) as source,
        av.open(str(whole), "w", options={"movflags": "faststart"}) as to,
    ):
        stream = to.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                to.mux(packet)
    sample(whole, sampling=Uniform(frames=4), limits=LIMITS, sink=Kept())
    content = whole.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) * 3 // 4])
    with pytest.raises(UnusableError, match=r"its index lists 40 frames, only \d\d are in the file: cut off") as caught:
        sample(tmp_path / "cut.mp4", sampling=Uniform(frames=4), limits=LIMITS, sink=Kept())
    assert caught.value.reason == Reason.DAMAGED


def test_an_edit_list_that_leaves_frames_out_is_not_damage(tmp_path: Path) -> None:
    """A video that was trimmed on a phone holds more frames than it shows."""
    frames = scene(seed=1, restless=True, num_frames=150)
    content = write_video(tmp_path / "whole.mp4", frames, options={"g": "20"}).read_bytes()
    at = content.index(b"elst") + 4
    assert content[at : at + 8] == bytes(7) + b"\x01"  # version 0, one entry
    ticks_a_second = int.from_bytes(content[content.index(b"mvhd") + 16 :][:4])
    (tmp_path / "trimmed.mp4").write_bytes(content[: at + 8] + (2 * ticks_a_second).to_bytes(4) + content[at + 12 :])
    with av.open(str(tmp_path / "trimmed.mp4")) as container:
        stream = container.streams.video[0]
        assert sum(packet.size > 0 for packet in container.demux(stream)) < stream.frames == 150
    found = sample(tmp_path / "trimmed.mp4", sampling=Uniform(frames=4), limits=LIMITS, sink=Kept())
    assert 2 <= found.duration_seconds < 3


@pytest.mark.parametrize("left_out", [0, 1])
def test_a_backbone_that_is_left_out_gets_no_frames(videos: Path, tmp_path: Path, left_out: int) -> None:
    """The other one gets the same frames; an image without CLIP cannot be used."""
    needed = [Output(transform=TRANSFORM, num_frames=number) for number in (8, 32)]
    both, one = Kept(*needed), Kept(*(NO_OUTPUT if i == left_out else output for i, output in enumerate(needed)))
    files = [sample(videos / "sound.mp4", sampling=Uniform(frames=8), limits=LIMITS, sink=sink) for sink in (both, one)]
    assert files[0].clip_seconds.tolist() == files[1].clip_seconds.tolist()
    assert np.array_equal(one.frames(1 - left_out), both.frames(1 - left_out))
    assert len(one.frames(left_out)) == 0
    Image.new("RGB", (100, 50)).save(tmp_path / "image.png")
    if left_out == 1:
        sample(tmp_path / "image.png", sampling=Uniform(frames=8), limits=LIMITS, sink=one)
        return
    with pytest.raises(UnusableError) as caught:
        sample(tmp_path / "image.png", sampling=Uniform(frames=8), limits=LIMITS, sink=one)
    assert caught.value.reason is Reason.NO_MOTION
