"""Which frames: pure index arithmetic.

`uniform` spreads T frames evenly over a video of n frames, first and last included:

    n = 9, T = 5      frame   0  1  2  3  4  5  6  7  8
                      taken   0     1     2     3     4
    n = 3, T = 5      frame   0     1     2
                      taken   0  1  2  3  4      (policy `repeat`: 0 0 1 1 2)
"""

UNIFORM = "uniform"
SHORT_POLICY = "repeat"  # a video with fewer frames than asked for shows some of them several times, in order


def uniform(num_frames: int, num_samples: int) -> list[int]:
    """Indices of `num_samples` frames evenly spaced over `num_frames`, first and last included, never falling.

    The position i * (n - 1) / (T - 1) is rounded down, as `np.linspace(0, n - 1, T, dtype=int)` does. A single sample
    is the middle frame.
    """
    assert num_frames > 0, num_frames
    assert num_samples > 0, num_samples
    if num_samples == 1:
        return [num_frames // 2]
    return [i * (num_frames - 1) // (num_samples - 1) for i in range(num_samples)]
