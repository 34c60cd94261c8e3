"""Time and memory limits of decoding one video."""

import os
from pathlib import Path

import pytest

from haechi.cache.errors import SettingsError
from haechi.extract.decoding.container import Header
from haechi.extract.decoding.limits import Limits
from haechi.extract.decoding.orientation import Orientation
from haechi.extract.settings import ExtractSettings

LIMITS = Limits.of(ExtractSettings(timeout_seconds=10))


def header(*, duration_seconds: float, num_packets: int) -> Header:
    return Header(
        codec="h264",
        width=320,
        height=240,
        other_codecs=frozenset(),
        container="avi",
        stream_index=0,
        num_streams=1,
        num_packets=num_packets,
        num_skipped=0,
        num_shown=num_packets,
        num_hidden=0,
        last_frame_seconds=0.04,
        duration_seconds=duration_seconds,
        has_closed_gops=False,
        orientation=Orientation(),
        is_turned_by_container=True,
        pixel_aspect=1.0,
        traits=frozenset(),
    )


@pytest.mark.parametrize(
    ("duration_seconds", "num_packets", "expected"),
    [
        (0.0, 50, 10),
        (60.0, 1500, 20),
        (7200.0, 180_000, 1210),
        (1e12, 120, 30),  # a false length counts as one second per frame
        (-1e12, 120, 10),
    ],
)
def test_time_grows_with_the_video(duration_seconds: float, num_packets: int, expected: float) -> None:
    got = LIMITS.seconds_to_decode(header(duration_seconds=duration_seconds, num_packets=num_packets))
    assert got == pytest.approx(expected)


def test_time_to_check_grows_with_what_is_on_the_disk(tmp_path: Path) -> None:
    file = tmp_path / "hole.mp4"
    file.write_bytes(b"head")
    os.truncate(file, 1 << 40)
    assert LIMITS.seconds_to_check(file) == pytest.approx(10, abs=0.01)
    file.write_bytes(b"1" * 20_000_000)
    assert LIMITS.seconds_to_check(file) >= 10
    assert LIMITS.seconds_to_check(tmp_path / "missing") == 10


def test_limits_are_settings() -> None:
    assert LIMITS.memory_bytes == 4_000_000_000
    with pytest.raises(SettingsError, match=r"worker_memory_gb is 0\.1, expected a number at least 0\.5 and"):
        ExtractSettings(worker_memory_gb=0.1)
    with pytest.raises(SettingsError, match="shard_minutes is 0"):
        ExtractSettings(shard_minutes=0)
