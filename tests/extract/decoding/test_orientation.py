"""Display matrices: the eight orientations, and the nearest of them."""

import numpy as np
import pytest

from haechi.extract.decoding.orientation import Orientation, is_exact

PICTURE = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
ONE, END = 1 << 16, 1 << 30  # fixed point, as in FFmpeg's display.h

# (a, b, c, d) of the matrix -> the picture as FFmpeg's command line shows it
SHOWN = {
    (1, 0, 0, 1): PICTURE,
    (0, 1, -1, 0): np.rot90(PICTURE, -1),
    (-1, 0, 0, -1): np.rot90(PICTURE, 2),
    (0, -1, 1, 0): np.rot90(PICTURE, 1),
    (-1, 0, 0, 1): PICTURE[:, ::-1],
    (1, 0, 0, -1): PICTURE[::-1],
    (0, 1, 1, 0): PICTURE.swapaxes(0, 1),
    (0, -1, -1, 0): PICTURE[::-1, ::-1].swapaxes(0, 1),
}


def matrix(a: float, b: float, c: float, d: float, scale: float = ONE) -> list[int]:
    return [round(a * scale), round(b * scale), 0, round(c * scale), round(d * scale), 0, 0, 0, END]


@pytest.mark.parametrize("values", SHOWN)
@pytest.mark.parametrize("scale", [ONE, ONE // 2, 3 * ONE])
def test_the_eight_orientations(values: tuple[int, int, int, int], scale: int) -> None:
    found = Orientation.of_matrix(matrix(*values, scale=scale))
    np.testing.assert_array_equal(found.applied(PICTURE), SHOWN[values])
    assert found.is_rotation == (values[0] * values[3] - values[1] * values[2] > 0)
    assert is_exact(matrix(*values, scale=scale))


@pytest.mark.parametrize("degrees", [2, 44, 46, 89.99, 134, 136, 181, 226, 271, 314, 358])
@pytest.mark.parametrize("is_mirrored", [False, True])
def test_other_angles_go_to_the_nearest_quarter_turn(degrees: float, *, is_mirrored: bool) -> None:
    angle, mirror = np.radians(degrees), -1 if is_mirrored else 1
    tilted = matrix(np.cos(angle) * mirror, np.sin(angle) * mirror, -np.sin(angle), np.cos(angle))
    nearest = np.rot90(PICTURE[:, ::mirror], -round(degrees / 90))
    np.testing.assert_array_equal(Orientation.of_matrix(tilted).applied(PICTURE), nearest)
    assert not is_exact(tilted)


def test_a_stretched_turn_is_still_a_turn() -> None:
    stretched = [0, ONE, 0, -3 * ONE, 0, 0, 0, 0, END]
    np.testing.assert_array_equal(Orientation.of_matrix(stretched).applied(PICTURE), np.rot90(PICTURE, -1))
    assert not is_exact(stretched)


@pytest.mark.parametrize("values", [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 1)])
def test_a_matrix_that_shows_nothing_turns_nothing(values: tuple[int, int, int, int]) -> None:
    assert Orientation.of_matrix(matrix(*values)) == Orientation()
    assert not is_exact(matrix(*values))
