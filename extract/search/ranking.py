"""Ranks a cache's videos, and the moments in them, by how near their CLIP rows are to texts."""

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
from haechi.cache.schema import LABEL_NAMES
from haechi.cache.text import bullet_list, visible

NUM_MOMENTS = 3  # of one video
MOMENTS_APART_SECONDS = 3.0
BLOCK_ROWS = 1 << 15  # 64 MiB of ViT-B-32's 512 float32 values


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A frame that a text was compared with."""

    time_seconds: float
    """From the video's first frame on, as players count."""
    score: float
    """Cosine similarity, -1 to 1."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A video, ranked by its best moment."""

    id: str
    score: float
    time_seconds: float
    label: int
    split: str
    moments: tuple[Moment, ...]
    """Best first, at most `NUM_MOMENTS`, at least `MOMENTS_APART_SECONDS` from each other."""


def search(cache: Cache, texts: np.ndarray, *, top: int, block_rows: int = BLOCK_ROWS) -> list[list[Found]]:
    """For each of the texts (Q, width), rows of length 1: the `top` nearest videos, best first.

    Equal scores stand in the cache's order. Rows are read in blocks of whole videos, of `block_rows` rows unless one
    video has more; the result is the same to the last bit whatever the blocks.

    Raises `CacheError` that names the videos with rows that point nowhere: all zero, or not finite.
    """
    found: list[list[Found]] = [[] for _ in texts]
    damaged: list[str] = []
    for videos, offset in _blocks(cache.offset("clip"), block_rows):
        rows = cache.rows("clip", "features", videos=videos).astype(np.float32)  # (R, width)
        times = cache.rows("clip", "time_seconds", videos=videos)  # (R,)
        # Not a matrix product, whose last bits depend on the number of rows.
        with np.errstate(all="ignore"):
            norms = np.sqrt(np.einsum("rw,rw->r", rows, rows))  # (R,)
            scores = np.einsum("rw,qw->rq", rows, texts) / norms[:, None]  # (R, Q)
        if not (usable := np.isfinite(scores).all(axis=1) & np.isfinite(times)).all():
            owners = np.repeat(videos, np.diff(offset))
            damaged += cache.media["id"][np.unique(owners[~usable])].tolist()
        if not damaged:
            for i in range(len(texts)):
                nearest = _nearest(cache, videos, offset, scores[:, i], times, top=top)
                found[i] = sorted(found[i] + nearest, key=lambda video: -video.score)[:top]
    if damaged:
        told = bullet_list([visible(id) for id in damaged])
        raise CacheError(
            f"{cache.path}: {len(damaged)} videos have CLIP rows that are all zero or not finite; "
            f"see `haechi verify`:\n{told}"
        )
    return found


def _blocks(offset: np.ndarray, block_rows: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Videos (n,) that are read together, and where their rows (n+1,) begin and end among those that are read."""
    start = 0
    while start < len(offset) - 1:
        stop = max(start + 1, int(np.searchsorted(offset, offset[start] + block_rows, side="right")) - 1)
        yield np.arange(start, stop), offset[start : stop + 1] - offset[start]
        start = stop


def _nearest(
    cache: Cache, videos: np.ndarray, offset: np.ndarray, scores: np.ndarray, times: np.ndarray, *, top: int
) -> list[Found]:
    """The `top` best of some videos, best first: the scores and times of their rows are (R,)."""
    has_rows = np.flatnonzero(np.diff(offset))
    if not len(has_rows):
        return []
    best = np.maximum.reduceat(scores, offset[has_rows])  # (n,)
    result = []
    for i in has_rows[np.argsort(-best, kind="stable")[:top]].tolist():
        rows = slice(offset[i], offset[i + 1])
        moments = _moments(scores[rows], times[rows] - times[offset[i]])
        result.append(
            Found(
                id=str(cache.media["id"][videos[i]]),
                score=moments[0].score,
                time_seconds=moments[0].time_seconds,
                label=int(cache.media["label"][videos[i]]),
                split=str(cache.media["split"][videos[i]]),
                moments=moments,
            )
        )
    return result


def _moments(scores: np.ndarray, times: np.ndarray) -> tuple[Moment, ...]:
    """The best rows (T,) of one video that are far enough from each other in time."""
    chosen: list[Moment] = []
    for i in np.argsort(-scores, kind="stable").tolist():
        moment = Moment(time_seconds=float(times[i]), score=float(scores[i]))
        if all(abs(moment.time_seconds - other.time_seconds) >= MOMENTS_APART_SECONDS for other in chosen):
            chosen.append(moment)
        if len(chosen) == NUM_MOMENTS:
            break
    return tuple(chosen)


def show_cut(texts: list[str], console: Console) -> None:
    """Say which texts were too long."""
    show_notices(console, [f"longer than the model reads, its end was not seen: {visible(text)}" for text in texts])


def show_found(text: str, found: list[Found], console: Console) -> None:
    """Lay out what was found for one text."""
    console.print(f"[bold]{escape(visible(text))}[/]", soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("score", "at"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("also at")
    table.add_column("label", no_wrap=True)
    table.add_column("split", no_wrap=True)
    table.add_column("video", overflow="fold")
    for video in found:
        table.add_row(
            f"{video.score:.3f}",
            _time(video.moments[0]),
            ", ".join(map(_time, video.moments[1:])),
            LABEL_NAMES.get(video.label, f"{video.label}, which is no label"),
            escape(visible(video.split)) or "-",
            escape(visible(video.id)),
        )
    console.print(table)


def _time(moment: Moment) -> str:
    return f"{moment.time_seconds:.1f} s"
