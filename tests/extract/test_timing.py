"""Seconds by step."""

import time

import pytest

from haechi.extract.timing import DECODE, READ, STEPS, Stopwatch


def test_seconds_add_up_by_step() -> None:
    watch = Stopwatch()
    for _ in range(2):
        with watch.time(READ):
            time.sleep(0.01)
    watch.add({READ: 1.0, DECODE: 2.0})
    assert watch.seconds[READ] == pytest.approx(1.02, abs=0.2)
    assert watch.seconds[READ] > 1.02
    assert watch.seconds[DECODE] == 2
    assert list(watch.seconds) == list(STEPS)


def test_a_step_that_fails_took_its_time_too() -> None:
    watch = Stopwatch()

    def fail() -> None:
        with watch.time(READ):
            time.sleep(0.01)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert watch.seconds[READ] >= 0.01
