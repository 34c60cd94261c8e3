"""A scored video or image in the form that the exports to labelling tools take."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from haechi.cache.errors import HaechiError, SettingsError
from haechi.cache.kinds import VIDEO
from haechi.predict.prediction import ScoredWindow

# The local files of Label Studio and web addresses are URLs, whose special characters are escaped; the keys of
# `s3://bucket/` and the like are not.
URL_STARTS = ("/", "http://", "https://")


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Neighbouring moments of a video, as one range of frames."""

    first_frame: int
    """From 1."""
    last_frame: int
    """From 1; belongs to the segment."""
    score: float
    """The highest of its moments."""


@dataclass(frozen=True, kw_only=True)
class ExportedVideo:
    """A scored video or image."""

    id: str
    path: str
    """The file: relative to the folder of all media, or absolute; empty: it is the id."""
    kind: str
    """`video` or `image`."""
    label: int
    """1 harmful, 0 safe, -1 unlabelled."""
    score: float
    """Of the whole file, 0 to 1."""
    calibrated: float
    """The score as a probability that it is harmful."""
    threshold: float
    is_harmful: bool
    """Whether the score reaches the threshold."""
    fps: float
    """Average frames per second; 0 or NaN: unknown, as of images."""
    duration_seconds: float
    num_frames: int
    moments: tuple[ScoredWindow, ...] = ()
    """Windows whose own score reaches the threshold, in time order; empty if windows were not scored."""

    @property
    def confidence(self) -> float:
        """Calibrated probability of the decision, harmful or safe."""
        return self.calibrated if self.is_harmful else 1 - self.calibrated

    @property
    def segments(self) -> list[Segment]:
        """The moments as ranges of frames. Those that overlap or follow each other directly are one.

        seconds    0.0   0.5   1.0        at 4 frames per second
        frame       1  2  3  4  5  6
        moment     [0.0,  0.5)            frames 1 to 2
        """
        if not (math.isfinite(self.fps) and self.fps > 0 and self.num_frames > 0):
            return []
        segments: list[Segment] = []
        for moment in self.moments:
            last_frame = min(max(round(moment.end_seconds * self.fps), 1), self.num_frames)
            first_frame = min(max(round(moment.start_seconds * self.fps) + 1, 1), last_frame)
            score = moment.score
            if segments and first_frame <= segments[-1].last_frame + 1:
                before = segments.pop()
                first_frame, last_frame = before.first_frame, max(before.last_frame, last_frame)
                score = max(before.score, score)
            segments.append(Segment(first_frame=first_frame, last_frame=last_frame, score=score))
        return segments


def kind_of(videos: Sequence[ExportedVideo], *, tool: str) -> str:
    """The one kind of the files, `video` or `image`. Raises `HaechiError` if there are both."""
    kinds = sorted({video.kind for video in videos}) or [VIDEO]
    if len(kinds) > 1:
        raise HaechiError(
            f"an export to {tool} holds files of one kind, and these are {' and '.join(f'{kind}s' for kind in kinds)}; "
            "export those of each head to a file of their own"
        )
    return kinds[0]


def location(video: ExportedVideo, *, media_root: Path | None, url_prefix: str) -> str:
    """Where a tool finds the file: below `media_root`, or after `url_prefix`; without both, relative, as it is given.

    A path is absolute only with `media_root`, or if the id is. Raises `SettingsError` if both are given.
    """
    if media_root is not None and url_prefix:
        raise SettingsError(["media_root and url_prefix are both given; use one of them"])
    file = video.path or video.id
    if media_root is not None:
        return os.path.abspath(media_root / file)  # noqa: PTH100 (resolve() would follow links)
    if Path(file).is_absolute():
        file = video.id
    if not url_prefix:
        return file
    file = file.lstrip("/")
    return url_prefix + (quote(file) if url_prefix.startswith(URL_STARTS) else file)
