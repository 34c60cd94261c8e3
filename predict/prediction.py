"""The result for one file: scores and a decision, or a reason why it was not judged."""

from dataclasses import dataclass

from haechi.cache.schema import HARMFUL, LABEL_NAMES, SAFE, Failure

# Decision for a video that is not harmful as a whole but has a window that reaches the threshold.
HARMFUL_MOMENT = "harmful moment"
NOT_JUDGED = "not judged"

# If a video lasts more than this many times as long as the longest training video, its whole score is doubtful. Our
# choice.
LONGER = 2.0


@dataclass(frozen=True, kw_only=True)
class ScoredWindow:
    """A window of a video, with the head's score of it alone."""

    start_seconds: float
    """From the video's first frame, as in players."""
    end_seconds: float
    score: float
    """0 to 1."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The result for one file: either a score, or a reason why there is none.

    The threshold was chosen on scores of whole videos. It is as good for windows if the head was trained on clips about
    as long as a window. In a video of many windows some exceed it by chance: at a false positive rate of 1 %, 36 of
    3,600. So a harmful moment is a place to look at first, not a verdict.
    """

    id: str
    """The path as given; for media of a manifest or a cache, the id there."""
    kind: str
    """`video` or `image`; empty if not judged."""
    score: float | None
    """Of the whole file, 0 to 1."""
    calibrated: float | None
    """The score as a probability, estimated on the run's validation videos."""
    threshold: float | None
    is_harmful: bool | None
    """Whether the score of the whole file reaches the threshold."""
    duration_seconds: float | None
    is_longer_than_trained: bool | None
    """Whether the video lasts more than `LONGER` times as long as the longest video that the head was trained on. If
    so, do not rely on `score`; look at `windows`."""
    windows: tuple[ScoredWindow, ...]
    """In time order. With `windows` sampling each has its own score; with `uniform` there is one, the whole video."""
    reason: str
    """A code of `haechi.extract.decoding.reasons`, or `NO_HEAD`. Empty if there is a score."""
    message: str
    """The reason in words."""

    @property
    def moment(self) -> ScoredWindow | None:
        """The window with the highest score, the first of equal ones; None if there are no windows."""
        return max(self.windows, key=lambda window: window.score, default=None)

    @property
    def decision(self) -> str:
        """`harmful`, `harmful moment` (a window reaches the threshold, the whole does not), `safe` or `not judged`.

        A long video with one harmful minute has a low score as a whole: the head sees the mean over its rows.
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


def failed(failure: Failure) -> Prediction:
    """A file whose extraction failed."""
    return not_judged(failure.id, failure.reason, failure.message)
