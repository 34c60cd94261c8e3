"""`windows` sampling: by time, whatever the container, without gaps, and in memory that does not grow."""

import math
import time
from pathlib import Path

import numpy as np
import pytest

from haechi.extract.decoding import pool
from haechi.extract.decoding.decode import DecodedFile, sample
from haechi.extract.decoding.frame_times import Clock
from haechi.extract.decoding.limits import Limits
from haechi.extract.decoding.pool import DecodedFrames, DecodePool
from haechi.extract.decoding.reasons import Reason, UnusableError
from haechi.extract.decoding.shared_frames import NO_OUTPUT, Output
from haechi.extract.decoding.supply import Rejected
from haechi.extract.decoding.transforms import FrameTransform
from haechi.extract.decoding.windows import WINDOW_FRAMES, TimedFrame, WindowStream, timed_frames
from haechi.extract.samples import write_video
from haechi.extract.sampling import Uniform, Windows
from haechi.extract.settings import ExtractSettings
from haechi.extract.timing import Stopwatch
from tests.extract import poison
from tests.extract.conftest import VFR_TIMES
from tests.extract.decoding.test_exactness import bar_code, number_of
from tests.sinks import Kept

LIMITS = Limits.of(ExtractSettings())
SIDE = 32
TRANSFORM = FrameTransform(size=SIDE, interpolation="bilinear")
FPS = 25


def outputs(sampling: Windows) -> tuple[Output, Output]:
    return (
        Output(transform=TRANSFORM, num_frames=sampling.max_clip_frames),
        Output(transform=TRANSFORM, num_frames=WINDOW_FRAMES),
    )


def windows_of(kept: Kept) -> list[np.ndarray]:
    return [window for _, window in kept.published if len(window)]


def sampling(window_seconds: float = 2.0, stride_seconds: float | None = None, clip_fps: float = 2.0) -> Windows:
    stride_seconds = window_seconds if stride_seconds is None else stride_seconds
    return Windows(window_seconds=window_seconds, stride_seconds=stride_seconds, clip_fps=clip_fps)


def streamed(
    times: list[float], duration: float, how: Windows, *, max_samples: int = 1 << 20
) -> tuple[Kept, list[float], list[float], list[float]]:
    """The result for frames that start at `times`; all pixels of a frame have its number as value."""
    kept = Kept(*outputs(how))
    stream = WindowStream(how, kept, Stopwatch(), max_samples=max_samples)
    ends = [*times[1:], times[0] + duration]
    for i, (start, end) in enumerate(zip(times, ends, strict=True)):
        stream.show(lambda i=i: np.full((SIDE, SIDE, 3), i % 256, np.uint8), start, end)  # type: ignore[misc]
    return kept, *stream.finish(ends[-1])


def test_every_window_and_clip_frame_is_the_one_shown_at_its_moment() -> None:
    how = sampling(2.0, 1.5, 2.0)
    times = [5 + i / FPS for i in range(int(7 * FPS))]  # 7 seconds, starting at 5
    kept, clip_seconds, starts, ends = streamed(times, 7, how)
    assert clip_seconds == [5 + i / 2 for i in range(14)]
    assert starts == [5.0, 6.5, 8.0, 9.5, 10.0]  # the last window ends with the video
    assert ends == [7.0, 8.5, 10.0, 11.5, 12.0]
    shown = [int(frame[0, 0, 0]) for frame in kept.frames(0)]
    assert shown == [math.floor((at - 5) * FPS + 0.05) for at in clip_seconds]
    for start, window in zip(starts, windows_of(kept), strict=True):
        grid = [start - 5 + i * 2 / WINDOW_FRAMES for i in range(WINDOW_FRAMES)]
        assert [int(frame[0, 0, 0]) for frame in window] == [math.floor(at * FPS + 0.05) for at in grid]


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        (0.5, [(0.0, 0.5)]),
        (2.0, [(0.0, 2.0)]),
        (2.001, [(0.0, 2.0)]),  # a rounding error of a millisecond makes no window
        (2.04, [(0.0, 2.0), (0.0625, 2.04)]),
        (3.0, [(0.0, 2.0), (1.0, 3.0)]),
        (4.0, [(0.0, 2.0), (2.0, 4.0)]),
        (5.0, [(0.0, 2.0), (2.0, 4.0), (3.0, 5.0)]),
    ],
)
def test_windows_cover_the_video_and_no_more(duration: float, expected: list[tuple[float, float]]) -> None:
    times = [i / 50 for i in range(max(1, round(duration * 50)))]
    _, clip_seconds, starts, ends = streamed(times, duration, sampling())
    assert list(zip(starts, ends, strict=True)) == [pytest.approx(pair) for pair in expected]
    assert clip_seconds == [i / 2 for i in range(math.ceil((duration - 0.002) * 2))]


@pytest.mark.parametrize(("num_frames", "seen"), [(1, {0}), (2, {0, 1}), (5, set(range(5)))])
def test_a_video_shorter_than_a_window_is_one(num_frames: int, seen: set[int]) -> None:
    kept, _, starts, _ = streamed([i / FPS for i in range(num_frames)], num_frames / FPS, sampling(1.1))
    (window,) = windows_of(kept)
    shown = window[:, 0, 0, 0].tolist()
    assert (len(shown), starts) == (WINDOW_FRAMES, [0.0])
    assert shown == sorted(shown)
    assert set(shown) == seen


def test_no_frame_is_lost_where_many_clip_frames_come_with_a_window() -> None:
    """If there are more than fit with one window, they are handed on without a window."""
    how = sampling(60.0, 60.0, 10.0)
    kept, clip_seconds, starts, _ = streamed([i / 10 for i in range(1000)], 100, how)
    assert len(clip_seconds) == len(kept.frames(0)) == 1000
    assert kept.frames(0)[:, 0, 0, 0].tolist() == [i % 256 for i in range(1000)]
    assert starts == [0.0, 41.25]  # on the grid of 60 / 32 s
    assert max(len(clip) for clip, _ in kept.published) == how.max_clip_frames == 64


def test_a_slide_show_is_seen_at_every_moment() -> None:
    kept, clip_seconds, starts, _ = streamed([0, 10, 20], 30, sampling())
    assert starts == [2.0 * i for i in range(15)]
    assert kept.frames(0)[:, 0, 0, 0].tolist() == [int(at // 10) for at in clip_seconds]


def test_more_than_is_allowed_is_refused() -> None:
    """Two frames may claim to be years apart."""
    with pytest.raises(
        UnusableError, match=r"more than 1000 frames would be sampled, which is the limit \(--max-frames\)"
    ) as caught:
        streamed([0, 1e7], 2e7, sampling(), max_samples=1000)
    assert caught.value.reason == Reason.TOO_LARGE


def test_each_frame_lasts_until_the_next() -> None:
    found = list(timed_frames([("a", 1.0, 0.25), ("b", 1.5, 0.25), ("c", 3.0, 0.25)], Clock(may_jump=False)))
    assert found == [
        TimedFrame(frame="a", start_seconds=1.0, end_seconds=1.5),
        TimedFrame(frame="b", start_seconds=1.5, end_seconds=3.0),
        TimedFrame(frame="c", start_seconds=3.0, end_seconds=3.25),
    ]


def test_no_frames_no_times() -> None:
    assert list(timed_frames([], Clock(may_jump=False))) == []


@pytest.mark.parametrize("name", ["h264.mp4", "h264.mkv", "vp9.webm", "mpeg4.avi", "open_gop.mp4"])
def test_the_frames_of_real_files(tmp_path: Path, name: str) -> None:
    """Frames show their number: 8 seconds at 25 frames/s, in windows of 3 seconds."""
    codec = {"vp9.webm": "libvpx-vp9", "mpeg4.avi": "mpeg4"}.get(name, "libx264")
    options = {"x264-params": "open-gop=1:keyint=20:bframes=3"} if name == "open_gop.mp4" else {}
    options |= {"deadline": "realtime", "cpu-used": "8"} if codec == "libvpx-vp9" else {}
    path = write_video(tmp_path / name, [bar_code(i) for i in range(200)], fps=FPS, codec=codec, options=options)
    how = sampling(3.0, 2.0, 5.0)
    kept = Kept(*outputs(how))
    found = sample(path, sampling=how, limits=LIMITS, sink=kept)
    origin = found.clip_seconds[0]
    assert (found.num_frames, found.fps) == (200, pytest.approx(25, abs=0.1))
    assert found.duration_seconds == pytest.approx(8, abs=0.05)
    np.testing.assert_allclose(found.clip_seconds - origin, np.arange(40) / 5, atol=1e-6)
    np.testing.assert_allclose(found.window_start_seconds - origin, [0, 2, 4, 5], atol=0.1)
    np.testing.assert_allclose(found.window_end_seconds - origin, [3, 5, 7, 8], atol=0.1)
    expected = (found.clip_seconds - origin) * FPS
    assert np.abs(np.array([number_of(frame) for frame in kept.frames(0)]) - expected).max() < 1
    for start, window in zip(found.window_start_seconds - origin, windows_of(kept), strict=True):
        grid = (start + np.arange(WINDOW_FRAMES) * 3 / WINDOW_FRAMES) * FPS
        assert np.abs(np.array([number_of(frame) for frame in window]) - np.floor(grid + 0.05)).max() < 1


def test_variable_frame_rate_goes_by_the_clock(tmp_path: Path) -> None:
    """Frames show their number, 30 frames/s and then 5: each sample is the frame that is shown at that time."""
    frames = [bar_code(i) for i in range(len(VFR_TIMES))]
    path = write_video(tmp_path / "vfr.mp4", frames, times_seconds=VFR_TIMES)
    how = sampling(1.0, 1.0, 4.0)
    kept = Kept(*outputs(how))
    found = sample(path, sampling=how, limits=LIMITS, sink=kept)
    assert found.duration_seconds == pytest.approx(VFR_TIMES[-1] + 0.2, abs=0.25)
    assert len(found.clip_seconds) == math.ceil(found.duration_seconds * 4 - 0.01)
    expected = np.searchsorted(np.array(VFR_TIMES) - 0.002, found.clip_seconds, side="right") - 1
    assert [number_of(frame) for frame in kept.frames(0)] == expected.tolist()
    for start, window in zip(found.window_start_seconds, windows_of(kept), strict=True):
        grid = start + np.arange(WINDOW_FRAMES) / WINDOW_FRAMES
        expected = np.searchsorted(np.array(VFR_TIMES) - 0.002, grid, side="right") - 1
        assert [number_of(frame) for frame in window] == expected.tolist()


@pytest.mark.parametrize("starts", [[1000, 10], [10, 1000], [1000, 10, 1005]])
def test_recordings_joined_byte_by_byte_last_as_long_as_they_do(tmp_path: Path, starts: list[int]) -> None:
    """MPEG-TS as dashcams and recorders write it: each part has its own clock."""
    joined = tmp_path / "joined.ts"
    for number, start in enumerate(starts):
        frames = [bar_code(40 * number + i // FPS) for i in range(5 * FPS)]
        times = [start + i / FPS for i in range(5 * FPS)]
        part = write_video(tmp_path / "part.ts", frames, times_seconds=times, options={"bf": "0"})
        joined.write_bytes((joined.read_bytes() if number else b"") + part.read_bytes())
    how = sampling(1.0)
    kept = Kept(*outputs(how))
    found = sample(joined, sampling=how, limits=LIMITS, sink=kept)
    assert found.num_frames == 5 * FPS * len(starts)
    assert found.duration_seconds == pytest.approx(5 * len(starts), abs=0.1)
    assert len(found.window_start_seconds) == 5 * len(starts)
    seen = [number_of(frame) for frame in kept.frames(0)]
    assert seen == [40 * part + second for part in range(len(starts)) for second in (0, 0, 1, 1, 2, 2, 3, 3, 4, 4)]
    uniform = sample(joined, sampling=Uniform(frames=8), limits=LIMITS, sink=Kept())
    assert uniform.duration_seconds == pytest.approx(found.duration_seconds, abs=1e-3)


def test_a_small_file_that_claims_days_is_refused_before_it_is_looked_at(tmp_path: Path) -> None:
    path = write_video(tmp_path / "gap.mkv", [bar_code(i) for i in range(3)], times_seconds=[0.0, 0.04, 200_000.0])
    kept = Kept(*outputs(sampling()))
    with pytest.raises(UnusableError, match="3 frames in 200,000 s: more than 600 s per frame") as caught:
        sample(path, sampling=sampling(), limits=LIMITS, sink=kept)
    assert caught.value.reason == Reason.TOO_LARGE
    assert kept.published == []


def test_rotation_is_applied(videos: Path) -> None:
    shown = {}
    for name in ("sound.mp4", "rotated.mp4"):
        kept = Kept(*outputs(sampling()))
        found = sample(videos / name, sampling=sampling(), limits=LIMITS, sink=kept)
        shown[name] = (found.width, found.height), kept.frames(0).astype(int)
    assert [size for size, _ in shown.values()] == [(320, 240), (240, 320)]
    turned = np.rot90(shown["sound.mp4"][1], k=-1, axes=(1, 2))
    assert np.abs(turned - shown["rotated.mp4"][1]).mean() < 2


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nowhere.mp4", Reason.MISSING),
        ("empty.mp4", Reason.EMPTY_FILE),
        ("audio_only.mp4", Reason.NO_VIDEO_STREAM),
        ("no_frames.mkv", Reason.NO_FRAMES),
        ("damaged.mp4", Reason.DAMAGED),
        ("cut.mkv", Reason.DAMAGED),
    ],
)
def test_unsound_files(videos: Path, capfd: pytest.CaptureFixture[str], name: str, reason: Reason) -> None:
    with pytest.raises(UnusableError) as caught:
        sample(videos / name, sampling=sampling(), limits=LIMITS, sink=Kept(*outputs(sampling())))
    assert caught.value.reason == reason, caught.value.message
    assert capfd.readouterr() == ("", "")


def start_pool(how: Windows, *, num_workers: int = 1, timeout_seconds: float = 60, **changes: float) -> DecodePool:
    limits = Limits.of(ExtractSettings(timeout_seconds=timeout_seconds, **changes))  # type: ignore[arg-type]
    return DecodePool(num_workers=num_workers, sampling=how, limits=limits)


@pytest.fixture(scope="module")
def minute(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of a minute at 10 frames/s; each frame shows its number modulo 256."""
    folder = tmp_path_factory.mktemp("minute")
    return write_video(folder / "minute.mp4", [bar_code(i % 256) for i in range(600)], fps=10)


def test_frames_come_in_order_at_any_pace(minute: Path) -> None:
    """The time in which a worker waits for the main process does not count against its time limit."""
    how = sampling(1.0, 1.0, 10.0)
    numbers: list[int] = []
    with start_pool(how, timeout_seconds=4) as decoders:  # 8 s in total, since the video lasts one minute
        for _, result in decoders.run([minute], outputs(how)):
            if isinstance(result, DecodedFrames):
                numbers += [number_of(frame) for frame in result.frames[0]]
                time.sleep(0.16)
    assert isinstance(result, DecodedFile)
    assert numbers == [i % 256 for i in range(600)]
    assert len(result.window_start_seconds) == 60
    assert result.seconds["decode"] < 8  # the whole took more than 9 s


def test_videos_side_by_side_keep_their_frames(videos: Path, minute: Path) -> None:
    how = sampling(1.0, 1.0, 10.0)
    found: dict[int, list[np.ndarray]] = {}
    ended: dict[int, DecodedFile | Rejected] = {}
    paths = [minute, videos / "sound.mp4", videos / "cut.mkv", minute, videos / "sound.mp4"]
    with start_pool(how, num_workers=2) as decoders:
        for index, result in decoders.run(paths, outputs(how)):
            assert index not in ended
            if isinstance(result, DecodedFrames):
                found.setdefault(index, []).append(result.frames[0].copy())
            else:
                ended[index] = result
    assert {i: isinstance(result, DecodedFile) for i, result in ended.items()} == {0: 1, 1: 1, 2: 0, 3: 1, 4: 1}
    for one, other in ((0, 3), (1, 4)):
        np.testing.assert_array_equal(np.concatenate(found[one]), np.concatenate(found[other]))


def test_a_long_video_fits_where_its_frames_do_not(tmp_path: Path) -> None:
    """Its windows would need 15 GB; the worker has less than 1 GB, and half of that is the program."""
    path = write_video(tmp_path / "long.mp4", [bar_code(i % 256) for i in range(600)], fps=1)
    how = sampling(2.0, 0.5, 2.0)
    large = FrameTransform(size=256, interpolation="bilinear", in_float=True)
    wanted = outputs(how)[0], Output(transform=large, num_frames=WINDOW_FRAMES)
    num_windows = 0
    with start_pool(how, worker_memory_gb=0.75) as decoders:
        for _, result in decoders.run([path], wanted):
            num_windows += isinstance(result, DecodedFrames) and len(result.frames[1]) > 0
    assert isinstance(result, DecodedFile), result
    assert num_windows == len(result.window_start_seconds) == 1197


def test_what_a_killed_worker_handed_on_is_marked(
    minute: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its video is tried again from the beginning, with another attempt number."""
    monkeypatch.setattr(pool, "_sample_into_slot", poison.sample_into_slot)
    path = tmp_path / "terminated_midway.mp4"
    path.write_bytes(minute.read_bytes())
    how = sampling(1.0, 1.0, 10.0)
    numbers: dict[int, list[int]] = {}
    with start_pool(how) as decoders:
        for _, result in decoders.run([path], outputs(how)):
            if isinstance(result, DecodedFrames):
                numbers.setdefault(result.attempt, []).extend(number_of(frame) for frame in result.frames[0])
    assert isinstance(result, DecodedFile)
    first, second = numbers.values()
    assert 0 < len(first) < 600
    assert second == [i % 256 for i in range(600)]


@pytest.mark.parametrize(("left_out", "num_pictures"), [(0, 68), (1, 9), (None, 68)])
def test_frames_are_taken_only_for_backbones_that_are_used(left_out: int | None, num_pictures: int) -> None:
    """Windows and times are the same, whichever backbone is left out; of it, nothing is passed on."""
    how = sampling()
    both, *times = streamed([i / 40 for i in range(170)], 170 / 40, how)
    needed = [NO_OUTPUT if i == left_out else output for i, output in enumerate(outputs(how))]
    kept = Kept(*needed)
    stream, taken = WindowStream(how, kept, Stopwatch(), max_samples=1 << 20), set()

    def picture(i: int) -> np.ndarray:
        taken.add(i)
        return np.full((SIDE, SIDE, 3), i % 256, np.uint8)

    for i in range(170):
        stream.show(lambda i=i: picture(i), i / 40, (i + 1) / 40)  # type: ignore[misc]
    assert list(stream.finish(170 / 40)) == times
    assert len(taken) == num_pictures
    for i in range(2):
        assert np.array_equal(kept.frames(i), both.frames(i)[:0, :1, :1] if i == left_out else both.frames(i))
