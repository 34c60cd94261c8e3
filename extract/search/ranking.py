"""Ranks the videos of a cache, and moments in them, by the similarity of their CLIP features to texts."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from haechi.cache.console import show_notices
from haechi.cache.errors import CacheError
from haechi.cache.reader import Cache
from haechi.cache.schema import FRAME_STREAM, LABEL_NAMES
from haechi.cache.text import bullet_list, counted, visible

NUM_MOMENTS = 3  # shown of one video
MOMENTS_APART_SECONDS = 3.0
BLOCK_ROWS = 1 << 15  # 64 MiB, with the 512 float32 values of ViT-B-32


@dataclass(frozen=True, kw_only=True)
class RankedFrame:
    """A frame and its similarity to a text."""

    time_seconds: float
    """Since the first frame of the video, as a player shows it."""
    score: float
    """Cosine similarity, -1 to 1."""


@dataclass(frozen=True, kw_only=True)
class RankedVideo:
    """A video, ranked by its most similar frame."""

    id: str
    score: float
    time_seconds: float
    label: int
    split: str
    moments: tuple[RankedFrame, ...]
    """Best first: at most `NUM_MOMENTS`, at least `MOMENTS_APART_SECONDS` apart."""


def search(cache: Cache, texts: np.ndarray, *, top: int, block_rows: int = BLOCK_ROWS) -> list[list[RankedVideo]]:
    """The `top` most similar videos for each text, best first; `texts` are embeddings (Q, width) of length 1.

    Videos with equal scores keep the order of the cache. Rows are read in blocks of whole videos, of at most
    `block_rows` rows unless one video has more; the result is exactly the same for all block sizes.

    Raises `CacheError` that names the videos with rows that are all zero or not finite.
    """
    rankings: list[list[RankedVideo]] = [[] for _ in texts]
    damaged: list[str] = []
    for videos, offset in _blocks(cache.offset(FRAME_STREAM), block_rows):
        rows = cache.rows(FRAME_STREAM, "features", videos=videos).astype(np.float32)  # (R, width)
        times = cache.rows(FRAME_STREAM, "time_seconds", videos=videos)  # (R,)
        # Not a matrix product: its last bits depend on the number of rows.
        with np.errstate(all="ignore"):
            norms = np.sqrt(np.einsum("rw,rw->r", rows, rows))  # (R,)
            scores = np.einsum("rw,qw->rq", rows, texts) / norms[:, None]  # (R, Q)
        if not (usable := np.isfinite(scores).all(axis=1) & np.isfinite(times)).all():
            owners = np.repeat(videos, np.diff(offset))
            damaged += cache.media["id"][np.unique(owners[~usable])].tolist()
        if not damaged:
            for i in range(len(texts)):
                best = _best_videos(cache, videos, offset, scores[:, i], times, top=top)
                rankings[i] = sorted(rankings[i] + best, key=lambda video: -video.score)[:top]
    if damaged:
        raise CacheError(
            f"{cache.name}: {counted(len(damaged), 'video')} with CLIP features that are all zero or not finite; "
            f"see `haechi verify`:\n{bullet_list([visible(id) for id in damaged])}"
        )
    return rankings


def _blocks(offset: np.ndarray, block_rows: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blocks of videos to read together: their indices (n,), and the offsets (n+1,) of their rows in the block."""
    start = 0
    while start < len(offset) - 1:
        stop = max(start + 1, int(np.searchsorted(offset, offset[start] + block_rows, side="right")) - 1)
        yield np.arange(start, stop), offset[start : stop + 1] - offset[start]
        start = stop


def _best_videos(
    cache: Cache, videos: np.ndarray, offset: np.ndarray, scores: np.ndarray, times: np.ndarray, *, top: int
) -> list[RankedVideo]:
    """The `top` best of the videos of a block, best first; `scores` and `times` are those of its rows, (R,)."""
    has_rows = np.flatnonzero(np.diff(offset))
    if not len(has_rows):
        return []
    best = np.maximum.reduceat(scores, offset[has_rows])  # (n,)
    result = []
    for i in has_rows[np.argsort(-best, kind="stable")[:top]].tolist():
        rows = slice(offset[i], offset[i + 1])
        moments = _best_moments(scores[rows], times[rows] - times[offset[i]])
        result.append(
            RankedVideo(
                id=str(cache.media["id"][videos[i]]),
                score=moments[0].score,
                time_seconds=moments[0].time_seconds,
                label=int(cache.media["label"][videos[i]]),
                split=str(cache.media["split"][videos[i]]),
                moments=moments,
            )
        )
    return result


def _best_moments(scores: np.ndarray, times: np.ndarray) -> tuple[RankedFrame, ...]:
    """The best frames of one video, far enough from each other; `scores` and `times` are those of its rows, (T,)."""
    chosen: list[RankedFrame] = []
    for i in np.argsort(-scores, kind="stable").tolist():
        moment = RankedFrame(time_seconds=float(times[i]), score=float(scores[i]))
        if all(abs(moment.time_seconds - other.time_seconds) >= MOMENTS_APART_SECONDS for other in chosen):
            chosen.append(moment)
        if len(chosen) == NUM_MOMENTS:
            break
    return tuple(chosen)


def show_too_long(texts: list[str], console: Console) -> None:
    """Say which texts were cut."""
    show_notices(console, [f"longer than the model reads, so its end was cut off: {visible(text)}" for text in texts])


def show_ranking(text: str, videos: list[RankedVideo], console: Console) -> None:
    """Print the table of one text."""
    console.print(f"[bold]{escape(visible(text))}[/]", soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("score", "at"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("also at")
    table.add_column("label", no_wrap=True)
    table.add_column("split", no_wrap=True)
    table.add_column("video", overflow="fold")
    for video in videos:
        table.add_row(
            f"{video.score:.3f}",
            _time(video.moments[0]),
            ", ".join(map(_time, video.moments[1:])),
            LABEL_NAMES.get(video.label, f"{video.label} (not a label)"),
            escape(visible(video.split)) or "-",
            escape(visible(video.id)),
        )
    console.print(table)


def _time(moment: RankedFrame) -> str:
    return f"{moment.time_seconds:.1f} s"
