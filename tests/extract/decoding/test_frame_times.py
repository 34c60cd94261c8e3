import itertools

import pytest

from haechi.extract.decoding.frame_times import Clock

QUARTER = 0.25  # seconds, the duration of every frame here according to the container


def starts(times: list[float | None], *, may_jump: bool = False, duration: float = QUARTER) -> list[float]:
    clock = Clock(may_jump=may_jump)
    return [clock.next_start(time, duration) for time in times]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([0.0, 0.5, 1.0], [0.0, 0.5, 1.0]),
        ([-1.0, -0.5, 0.0], [-1.0, -0.5, 0.0]),
        ([None, None, None], [0.0, 0.25, 0.5]),
        ([3.0, None, 4.0], [3.0, 3.25, 4.0]),
        ([3.0, 3.5, 0.0, 0.5], [3.0, 3.5, 3.75, 4.25]),  # a clock that restarted
        ([3.0, 1000.0], [3.0, 1000.0]),  # a picture that is shown for a long time
        ([1.0, 1.0, 2.0], [1.0, 1.125, 2.0]),  # doubled
        ([1.0, 1.0, 1.0, 1.0, 1.0], [1.0, 1.125, 1.25, 1.5, 1.75]),  # a clock that does not advance
    ],
)
def test_times_that_rise(times: list[float | None], expected: list[float]) -> None:
    assert starts(times) == expected


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([3.0, 12.0], [3.0, 12.0]),  # frames were lost
        ([3.0, 1000.0, 1000.5], [3.0, 3.25, 3.75]),  # another recording
        ([3.0, 3.25, 95000.0, 3.75], [3.0, 3.25, 3.5, 3.75]),  # one stray time
        ([1000.0, 1000.25, 10.0, 1000.5], [1000.0, 1000.25, 1000.5, 1000.75]),
    ],
)
def test_clocks_that_jump(times: list[float | None], expected: list[float]) -> None:
    assert starts(times, may_jump=True) == pytest.approx(expected)


def test_a_doubled_time_now_and_then_delays_nothing() -> None:
    """One in each second of an hour."""
    times = [i / 25 - (i % 25 == 24) / 25 for i in range(90_000)]
    found = starts(list(times), duration=1 / 25)
    assert found[-2] == times[-2]
    assert all(a < b for a, b in itertools.pairwise(found))
