"""Bad rows are found by the bits of their values, as numpy finds them by the values."""

import numpy as np
import pytest

from haechi.cache.bad_rows import PIECE_BYTES, find_bad_rows


@pytest.mark.parametrize("store", ["float16", "float32"])
def test_the_rows_are_those_that_numpy_finds(store: str) -> None:
    width = 100
    num_rows = 3 * PIECE_BYTES // (width * 2) + 7  # several pieces
    values = np.random.default_rng(0).normal(size=(num_rows, width)).astype(store)
    largest, smallest = np.finfo(store).max, np.finfo(store).smallest_subnormal
    for row, value in enumerate([0.0, -0.0, smallest, -smallest, largest, -largest, np.inf, -np.inf, np.nan]):
        values[row] = 0
        values[row, row] = value
    values[-1], values[-2, 3] = 0, np.nan
    nonfinite, zero = find_bad_rows(values)
    np.testing.assert_array_equal(nonfinite, ~np.isfinite(values).all(axis=1))
    np.testing.assert_array_equal(zero, ~values.any(axis=1))
    assert (nonfinite.sum(), zero.sum()) == (4, 3)


def test_no_rows_are_bad() -> None:
    nonfinite, zero = find_bad_rows(np.zeros((0, 512), "float16"))
    assert (nonfinite.shape, zero.shape) == ((0,), (0,))


def test_rows_without_values_are_not_bad() -> None:
    assert [rows.tolist() for rows in find_bad_rows(np.empty((3, 0), np.float16))] == [[False] * 3] * 2
