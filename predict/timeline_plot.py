"""Draws the scores of videos over time as one PNG, with one panel for each video."""

import contextlib
import os
import unicodedata
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findSystemFonts, fontManager, get_font
from matplotlib.ticker import MultipleLocator

from haechi.cache.atomic import replaced
from haechi.cache.errors import HaechiError
from haechi.cache.kinds import VIDEO
from haechi.cache.text import bullet_list, counted, visible
from haechi.extract.sampling import WINDOWS
from haechi.predict.console import moment_text
from haechi.predict.heads import Heads
from haechi.predict.player_time import player_time
from haechi.predict.prediction import Prediction, ScoredWindow
from haechi.train.output.plots import BLUE, RED

MAX_PANELS = 20
SUFFIX = ".png"

NAME_COLUMNS = 80  # width of a title that fits the panel; East Asian letters count as two
MAX_COLUMNS = 1000  # intervals drawn in a panel of 1,200 pixels; if there are more windows, several share an interval
MAX_TICKS = 10
TICK_STEPS_SECONDS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)
MIN_SECONDS = 0.04  # a window is drawn at least as long as one frame

LAST_RESORT = "Last Resort"  # a font that comes with matplotlib and has only a box for every letter

CAPTION = "line: highest score of the windows at each time; pale: down to the lowest score; red: above the threshold"


class TimelinePlot:
    """Collects the panels of one picture, and draws it. Creating it checks that the picture can be written."""

    def __init__(self, path: Path, heads: Heads) -> None:
        """Raises `HaechiError` if `path` cannot be written or the run gives no scores over time."""
        if not path.name:
            raise HaechiError(f"--timeline: an empty name, expected the name of a PNG, such as --timeline film{SUFFIX}")
        folder = path.absolute().parent
        if path.suffix.lower() != SUFFIX:
            raise HaechiError(f"{path}: expected the name of a PNG; use --timeline {path.with_suffix(SUFFIX)}")
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            what = "cannot be written to" if folder.is_dir() else "no such folder; create it first"
            raise HaechiError(f"{path}: {folder}: {what}")
        if VIDEO not in heads.models:
            raise HaechiError("--timeline is for videos, but the run is for images; add a run for videos (--also RUN)")
        if heads.sampling != WINDOWS:
            raise HaechiError(
                f"--timeline: the run was trained on {heads.sampling!r} sampling, with one window for each video; "
                f"extract with --sampling {WINDOWS} and train on that cache"
            )
        self._path, self._untrained = path, heads.untrained
        self._panels: list[Prediction] = []
        self._left_out: list[str] = []

    def add(self, prediction: Prediction) -> None:
        """Add a panel for a judged video, up to `MAX_PANELS`; predictions without windows have none."""
        if not prediction.windows:
            return
        if len(self._panels) < MAX_PANELS:
            self._panels.append(prediction)
        else:
            self._left_out.append(prediction.id)

    def draw(self) -> list[str]:
        """Write the picture, whole or not at all, and return notices for the user. Raises `OSError` if that fails."""
        if not self._panels:
            return [f"{self._path}: not drawn, because no video was judged"]
        figure = Figure(figsize=(10, 1.1 + 2.3 * len(self._panels)), layout="constrained")
        fonts, lacking = _fonts(_short(panel.id) for panel in self._panels)
        for ax, panel in zip(figure.subplots(len(self._panels), squeeze=False)[:, 0], self._panels, strict=True):
            _draw_panel(ax, panel, fonts)
        if self._untrained:
            text = f"UNTRAINED backbones: {', '.join(self._untrained)}"
            figure.suptitle(text, color=RED, fontsize=11, fontweight="bold")
        more = f"\n{counted(len(self._left_out), 'more video')} not drawn" if self._left_out else ""
        figure.supxlabel(CAPTION + more, color="0.35", fontsize=9)
        self._save(figure)
        notices = []
        if self._left_out:
            names = bullet_list([visible(id) for id in self._left_out])
            notices.append(f"{self._path} shows the first {MAX_PANELS} videos; not drawn:\n{names}")
        if lacking:
            notices.append(
                f"{self._path}: no installed font has {' '.join(lacking[:10])}{' …' if len(lacking) > 10 else ''}; "
                "boxes are drawn instead: install a font with these letters, such as Noto Sans CJK"
            )
        return notices

    def _save(self, figure: Figure) -> None:
        FigureCanvasAgg(figure)
        with replaced(self._path) as partial, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph")  # `draw` returns one notice for all
            figure.savefig(partial, dpi=150, format="png")


def envelope(
    windows: Iterable[ScoredWindow], *, max_columns: int = MAX_COLUMNS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The lowest and highest score at each time, as several windows may overlap there.

    Returns edges (K + 1,) in seconds of K intervals, and the lowest and highest score (K,) in each, NaN where there is
    no window. All starts and ends of windows are edges, unless that gives more than `max_columns` intervals: then
    there are `max_columns` intervals of equal length.
    """
    table = np.array([(w.start_seconds, w.end_seconds, w.score) for w in windows])  # (S, 3)
    starts, ends = table[:, :2].round(3).T  # the cache's float32 would leave gaps and overlaps of microseconds
    ends = np.maximum(ends, starts + MIN_SECONDS)
    edges = np.unique(np.concatenate([starts, ends]))
    if len(edges) > max_columns + 1:
        edges = np.linspace(edges[0], edges[-1], max_columns + 1)
    first = np.searchsorted(ends, edges[:-1], side="right")  # (K,) the first window that ends after the left edge
    after = np.searchsorted(starts, edges[1:], side="left")  # (K,) the first that starts at the right edge or later
    scores = np.append(table[:, 2], np.nan)  # `reduceat` needs an element at index S too
    ranges = np.stack([first, np.maximum(after, first)], axis=1).ravel()
    lowest, highest = (reduce.reduceat(scores, ranges)[::2] for reduce in (np.minimum, np.maximum))
    is_gap = after <= first
    return edges, np.where(is_gap, np.nan, lowest), np.where(is_gap, np.nan, highest)


def _draw_panel(ax: Axes, panel: Prediction, fonts: list[str]) -> None:
    assert panel.threshold is not None
    assert panel.moment is not None
    edges, lowest, highest = envelope(panel.windows)
    below = [np.minimum(scores, panel.threshold) for scores in (lowest, highest)]
    ax.stairs(below[1], edges, baseline=below[0], fill=True, color=BLUE, alpha=0.25, linewidth=0)
    above = np.maximum(highest, panel.threshold)
    ax.stairs(above, edges, baseline=panel.threshold, fill=True, color=RED, alpha=0.45, linewidth=0)
    ax.stairs(highest, edges, baseline=None, color=BLUE, linewidth=1.2)
    ax.axhline(panel.threshold, color="0.35", linewidth=1, linestyle="--")
    beside = ax.get_yaxis_transform()
    ax.text(1.008, panel.threshold, f"threshold\n{panel.threshold:.3f}", transform=beside, va="center", fontsize=9)
    _mark(ax, panel.moment, RED if panel.moment.score >= panel.threshold else "0.35", (edges[0], edges[-1]))
    ax.set_title(
        f"{_short(panel.id)}\nscore {panel.score:.3f}: {panel.decision}",
        loc="left",
        fontsize=11,
        fontfamily=fonts,
        parse_math=False,
    )
    ax.set_ylim(0, 1.3)  # leaves room for the mark of a moment with score 1
    ax.set_yticks([0, 0.5, 1])
    ax.set_ylabel("score")
    ax.set_xlim(edges[0], edges[-1])
    _set_ticks(ax, edges[-1] - edges[0])
    ax.grid(visible=True, alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)


def _mark(ax: Axes, moment: ScoredWindow, colour: str, span: tuple[float, float]) -> None:
    """Mark the moment just above the curve: nothing is drawn there, because its score is the highest."""
    middle = (moment.start_seconds + moment.end_seconds) / 2
    place = (middle - span[0]) / (span[1] - span[0])
    side = "left" if place < 0.1 else "right" if place > 0.9 else "center"
    ax.plot(middle, moment.score + 0.05, "v", color=colour, markersize=6, clip_on=False)
    ax.annotate(
        moment_text(moment),
        (middle, moment.score + 0.05),
        xytext=(0, 5),
        textcoords="offset points",
        ha=side,
        va="bottom",
        fontsize=10,
        fontweight="bold",
        color=colour,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.8},
    )


def _set_ticks(ax: Axes, seconds: float) -> None:
    step = next((step for step in TICK_STEPS_SECONDS if seconds <= step * MAX_TICKS), seconds / MAX_TICKS)
    ax.xaxis.set_major_locator(MultipleLocator(step))
    ax.xaxis.set_major_formatter(
        lambda value, _: player_time(round(value, int(step < 1))) + (f"{abs(value):.1f}"[-2:] if step < 1 else "")
    )


def _short(id: str) -> str:
    """The id on one line, at most as wide as a panel. Cut in the middle, because the file's name is at the end."""
    text = visible(id)
    widths = np.array([2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text])
    if widths.sum() <= NAME_COLUMNS:
        return text
    head = int((np.cumsum(widths) <= NAME_COLUMNS // 3).sum())
    tail = int((np.cumsum(widths[::-1]) <= NAME_COLUMNS - NAME_COLUMNS // 3 - 1).sum())
    return f"{text[:head]}…{text[-tail:]}"


def _fonts(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Font families that together have the letters of the names, and the letters that no installed font has."""
    families = list(FontProperties().get_family())
    wanted = {ord(letter) for name in names for letter in name} - _letters(fontManager.findfont(FontProperties()))
    if wanted:
        _find_new_fonts()
    for entry in fontManager.ttflist:
        if not entry.name.startswith(LAST_RESORT) and (found := wanted & _letters(entry.fname)):
            families.append(entry.name)
            wanted -= found
        if not wanted:
            break
    return families, [chr(letter) for letter in sorted(wanted)]


def _find_new_fonts() -> None:
    """Add fonts installed since matplotlib made its list of fonts, which it does once, when first used."""
    known = {entry.fname for entry in fontManager.ttflist}
    for path in set(findSystemFonts()) - known:
        with contextlib.suppress(OSError, RuntimeError, NotImplementedError):  # bitmap fonts and damaged fonts
            fontManager.addfont(path)


def _letters(font: str) -> set[int]:
    """The letters of a font file; empty if the file was removed or damaged since matplotlib listed it."""
    try:
        return set(get_font(font).get_charmap())
    except (OSError, RuntimeError):
        return set()
