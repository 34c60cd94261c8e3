import numpy as np
import pytest

from haechi.extract.sampling import uniform


@pytest.mark.parametrize(
    ("num_frames", "num_samples", "expected"),
    [
        (9, 5, [0, 2, 4, 6, 8]),
        (3, 5, [0, 0, 1, 1, 2]),
        (1, 4, [0, 0, 0, 0]),
        (10, 1, [5]),
        (2, 2, [0, 1]),
        (32, 32, list(range(32))),
    ],
)
def test_table(num_frames: int, num_samples: int, expected: list[int]) -> None:
    assert uniform(num_frames, num_samples) == expected


def test_is_numpys_linspace_rounded_down() -> None:
    for num_frames in [1, 2, 31, 33, 60, 1001]:
        exact = [int(x) for x in np.linspace(0, num_frames - 1, 32)]
        # linspace may fall a rounding error short of a whole number; the integer rule does not
        assert np.abs(np.array(uniform(num_frames, 32)) - exact).max() <= 1


@pytest.mark.parametrize("num_frames", [1, 2, 7, 31, 32, 33, 100, 216_000])
def test_covers_the_video_in_order(num_frames: int) -> None:
    indices = uniform(num_frames, 32)
    assert (indices[0], indices[-1]) == (0, num_frames - 1)
    assert indices == sorted(indices)
    steps = np.diff(indices)
    assert steps.max() - steps.min() <= 1


def test_slow_pathway_of_pytorchvideo() -> None:
    import torch

    assert uniform(32, 8) == torch.linspace(0, 31, 8).long().tolist()
