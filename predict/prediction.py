"""What is said of a file."""

from dataclasses import dataclass

from haechi.cache.schema import HARMFUL, LABEL_NAMES, SAFE

# A video that is not harmful as a whole, with a window that is.
HARMFUL_MOMENT = "harmful moment"
NOT_JUDGED = "not judged"

# Our choice: so much longer a video may be than those that a head knows, before its score as a whole is doubted.
LONGER = 2.0


@dataclass(frozen=True, kw_only=True)
class Window:
    """A piece of a video, with the head's score of it alone."""

    start_seconds: float
    """From the video's first frame on, as players count."""
    end_seconds: float
    score: float
    """0 to 1."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What is said of one file. Either it has a score, or a reason why not.

    The threshold was chosen on scores of whole videos. Of windows it says as much where the head was trained on clips
    about as long as they are. A video of many windows has some above it by chance: at a false positive rate of 1 %,
    36 of 3,600. A harmful moment is where to look first, no verdict.
    """

    id: str
    """The path as it was given; of a manifest or a cache, its id."""
    kind: str
    """`video` or `image`; empty where it is not judged."""
    score: float | None
    """0 to 1, of the whole."""
    calibrated: float | None
    """The score as a probability, as far as the run's validation videos tell."""
    threshold: float | None
    is_harmful: bool | None
    """Whether the score of the whole reaches the threshold."""
    duration_seconds: float | None
    is_longer_than_trained: bool | None
    """Whether it lasts more than `LONGER` times as long as any video that the head was trained on. Then the score of
    the whole is a guess, and its windows are what to look at."""
    windows: tuple[Window, ...]
    """In time order. Those of a run on `windows` sampling have scores of their own; `uniform` has one, the video."""
    reason: str
    """A code of `haechi.extract.decoding.reasons`, or `NO_HEAD`. Empty where there is a score."""
    message: str
    """The reason in words."""

    @property
    def moment(self) -> Window | None:
        """The most harmful window, the first of equal ones; None where there is none."""
        return max(self.windows, key=lambda window: window.score, default=None)

    @property
    def decision(self) -> str:
        """`harmful`, `harmful moment` (a window reaches the threshold, the whole does not), `safe` or `not judged`.

        A long video with one bad minute has a low score as a whole: the head sees the mean over its rows.
        """
        if self.threshold is None:
            return NOT_JUDGED
        if self.is_harmful:
            return LABEL_NAMES[HARMFUL]
        if self.moment is not None and self.moment.score >= self.threshold:
            return HARMFUL_MOMENT
        return LABEL_NAMES[SAFE]


def not_judged(id: str, reason: str, message: str) -> Prediction:
    """A file without a score."""
    return Prediction(
        id=id,
        kind="",
        score=None,
        calibrated=None,
        threshold=None,
        is_harmful=None,
        duration_seconds=None,
        is_longer_than_trained=None,
        windows=(),
        reason=reason,
        message=message,
    )
