import pytest

from haechi.train.output.page_numbers import percent, percent_interval, signed


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0"),
        (0.000012, "0.0012"),
        (0.0025, "0.25"),
        (0.01, "1"),
        (0.041, "4.1"),
        (0.0996, "10"),
        (0.734, "73"),
        (1, "100"),
    ],
)
def test_shares_in_percent(share: float, text: str) -> None:
    assert percent(share) == f"{text}\u00a0%"


def test_an_interval_has_one_unit() -> None:
    assert percent_interval((0.023, 0.0691)) == "2.3 to 6.9\u00a0%"
    assert percent_interval(None) == ""


@pytest.mark.parametrize(
    ("value", "text"), [(-0.123, "−0.12"), (0.1, "+0.10"), (-0.001, "0.00"), (0.0, "0.00"), (None, "–")]
)
def test_differences_have_a_sign(value: float | None, text: str) -> None:
    assert signed(value, 2) == text
