"""Drawing intervals honestly: log axes with a place for zero, arrows where an interval goes on, panels laid out in inches.

Nothing here knows what is drawn. Figures are made without pyplot, so that no state outlives them.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import matplotlib
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.ticker import MaxNLocator, NullLocator

FONT = "DejaVu Sans"
SIZE = 8.0  # points
LINE = 0.16  # inches from one line of text to the next
GREY = "#6b6b6b"
PALE = "#d9d9d9"
STYLE: Any = {
    "font.family": FONT,
    "font.size": SIZE,
    "axes.titlesize": SIZE + 1,
    "axes.labelsize": SIZE,
    "xtick.labelsize": SIZE,
    "ytick.labelsize": SIZE,
    "legend.fontsize": SIZE,
    "axes.linewidth": 0.8,
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "figures",
    "path.simplify": True,
}


Figures = tuple[np.ndarray, np.ndarray, np.ndarray]  # values, and the lower and upper ends of their intervals


@contextmanager
def style() -> Iterator[None]:
    """The look of every figure, for a while."""
    with matplotlib.rc_context(), sns.axes_style("ticks"):
        matplotlib.rcParams.update(STYLE)
        yield


@dataclass(frozen=True)
class Box:
    """A panel and the room around it, in inches."""

    width: float
    height: float
    left: float = 0.6
    right: float = 0.2
    top: float = 0.3
    bottom: float = 0.55


def sheet(
    boxes: Sequence[Box], columns: int, title: str, notes: Sequence[str], key: Sequence[Any] = ()
) -> tuple[Figure, list[Axes]]:
    """A figure with its panels in rows of so many; under the title the key, at the foot the notes."""
    rows = [boxes[start : start + columns] for start in range(0, len(boxes), columns)]
    widths = [
        max(row[c].left + row[c].width + row[c].right for row in rows if c < len(row)) for c in range(len(rows[0]))
    ]
    heights = [max(box.top + box.height + box.bottom for box in row) for row in rows]
    width = max(sum(widths), 6.5, wide(title, SIZE + 2) + 0.3)
    lines = [line for note in notes for line in textwrap.wrap(note, int((width - 0.3) / 0.064))]
    across = max(1, int((width - 0.3) / (0.5 + max((wide(h.get_label()) for h in key), default=0.0))))
    head, foot = 0.4 + (0.1 + LINE * math.ceil(len(key) / across) if key else 0.0), 0.15 + LINE * len(lines)
    height = head + sum(heights) + foot
    figure = Figure(figsize=(width, height))
    figure.text(0.15 / width, 1 - 0.12 / height, drawable(title), size=SIZE + 2, weight="bold", va="top")
    if key:
        figure.legend(
            handles=list(key),
            loc="upper left",
            bbox_to_anchor=(0.08 / width, 1 - 0.33 / height),
            ncols=min(across, len(key)),
            labelspacing=0.3,
            frameon=False,
            borderpad=0,
            handletextpad=0.3,
            columnspacing=1.2,
        )
    if lines:
        figure.text(
            0.15 / width, 0.06 / height, "\n".join(map(drawable, lines)), color=GREY, va="bottom", linespacing=1.2
        )
    axes, top = [], height - head
    for row, tall in zip(rows, heights, strict=True):
        x = 0.0
        for box, w in zip(row, widths, strict=False):
            left, low = (x + box.left) / width, (top - box.top - box.height) / height
            axes.append(figure.add_axes((left, low, box.width / width, box.height / height)))
            x += w
        top -= tall
    return figure, axes


def wide(text: str, size: float = SIZE) -> float:
    """Inches that a text takes on one line."""
    return sum(map(_advance, drawable(text))) * size / 72


@cache
def _advance(character: str) -> float:
    """Width of a character in ems."""
    font = get_font(findfont(FONT))
    font.set_size(100, 72)
    return float(font.load_char(ord(character)).linearHoriAdvance) / 65536 / 100


@cache
def _glyphs() -> frozenset[int]:
    return frozenset(get_font(findfont(FONT)).get_charmap())


def drawable(text: str) -> str:
    """The text with a `?` for what the font cannot show."""
    return "".join(c if c == "\n" or ord(c) in _glyphs() else "?" for c in text)


@dataclass(frozen=True)
class Scale:
    """A log axis from `lowest` to `highest`, with a place `zero`, apart and left of `first`, for what is no more than `floor`.

    zero is None where nothing is: then `first` is `lowest`.
    """

    lowest: float
    first: float
    highest: float
    zero: float | None = None
    floor: float = 0.0

    def at(self, x: np.ndarray) -> np.ndarray:
        """Where values are drawn; what lies beyond the axis is at its edge."""
        x = np.asarray(x, dtype=float)
        inside = np.clip(x, self.first, self.highest)
        return np.where(x > self.floor, inside, self.lowest if self.zero is None else self.zero)

    def fraction(self, x: np.ndarray) -> np.ndarray:
        """The same as a fraction of the axis."""
        length = math.log(self.highest / self.lowest)
        return np.log(self.at(x) / self.lowest) / length

    def ticks(self) -> tuple[list[float], list[str]]:
        """Decades, or 1, 2, 5 and so on over a short axis; and the zero."""
        low, high = math.log10(self.first), math.log10(self.highest)
        decades = range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1)
        if len(decades) >= 3:
            places = [10.0**d for d in decades][:: math.ceil(len(decades) / 6)]
        elif high - low > 0.6:
            among = [m * 10.0**d for d in range(math.floor(low), math.ceil(high) + 1) for m in (1, 2, 5)]
            places = [x for x in among if self.first <= x <= self.highest]
        else:
            among = [float(x) for x in MaxNLocator(4).tick_values(self.first, self.highest)]
            places = [x for x in among if self.first <= x <= self.highest]
        texts = ticks(places)
        if self.zero is None:
            return places, texts
        return [self.zero, *places], [f"≤{_tick(self.floor, 1)}" if self.floor else "0", *texts]

    def apply(self, axes: Axes, along: str) -> None:
        """Make this the x or the y axis."""
        places, texts = self.ticks()
        axis = axes.xaxis if along == "x" else axes.yaxis
        axes.set(**{f"{along}scale": "log", f"{along}lim": (self.lowest, self.highest)})
        axis.set_ticks(places, texts)
        axis.set_minor_locator(NullLocator())
        if self.zero is not None:
            (axes.axvline if along == "x" else axes.axhline)(self.first, color=PALE, lw=0.8, ls=(0, (2, 2)), zorder=0)


def ticks(places: Sequence[float]) -> list[str]:
    """Round numbers as short as they can be told apart: 0.01, 500, 1e-5."""
    for digits in range(1, 17):
        texts = [_tick(x, digits) for x in places]
        if len(set(texts)) == len(texts) and all(
            math.isclose(float(t), x, rel_tol=1e-9) for t, x in zip(texts, places, strict=True)
        ):
            break
    return texts


def _tick(x: float, digits: int) -> str:
    if 1e-3 <= x < 1e5:
        return f"{x:.{max(digits - 1 - math.floor(math.log10(x)), 0)}f}"
    mantissa, exponent = f"{x:.{digits - 1}e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def scale_of(value: np.ndarray, low: np.ndarray, high: np.ndarray, floor: float = 0.0) -> Scale:
    """An axis for these intervals: all values and upper ends that are finite, and lower ends unless far below.

    floor: what is positive and no more than this is drawn where zero is.
    """
    known = np.isfinite(value)
    value, low, high = (np.asarray(x, dtype=float)[known] for x in (value, low, high))
    near = np.where(value > floor, value / 100, np.where(np.isfinite(high), high / 100, math.inf))
    parts = [value, high[np.isfinite(high)], low[low >= near]]
    seen = np.concatenate([part[part > floor] for part in parts])
    least, most = (float(seen.min()), float(seen.max())) if len(seen) else (0.1, 10.0)
    least, most = (min(max(x, 1e-150), 1e150) for x in (least, most))
    room = max(0.06 * math.log(most / least), math.log(1.12))
    least, most = least * math.exp(-room), most * math.exp(room * (2 if np.isinf(high).any() else 1))
    if not (low <= floor).any():
        return Scale(least, least, most)
    length = math.log(most / least)
    shown = floor if ((value > 0) & (value <= floor)).any() else 0.0
    least = max(least, floor)
    return Scale(least * math.exp(-0.13 * length), least, most, least * math.exp(-0.07 * length), shown)


def draw_spans(
    axes: Axes, scale: Scale, along: str, figure: Figures, across: np.ndarray, colors: Sequence[str]
) -> None:
    """Intervals along x or y at the places `across`; an arrow where one has no upper end, or goes on below the axis."""
    value, low, high = figure
    onward = scale.at(value) * (scale.highest / scale.lowest) ** 0.07
    start, stop = scale.at(low), np.where(np.isinf(high), np.minimum(onward, scale.highest), scale.at(high))
    draw = axes.hlines if along == "x" else axes.vlines
    draw(across, start, stop, colors=list(colors), lw=1.2, zorder=2)
    down = (low < scale.first) & (low > scale.floor if scale.zero is not None else True)
    for which, ends, marker in ((down, start, "<v"), (np.isinf(high), stop, ">^")):
        if which.any():
            x, y = (ends, across) if along == "x" else (across, ends)
            shown = [c for c, w in zip(colors, which, strict=True) if w]
            sign = marker[along == "y"]
            axes.scatter(x[which], y[which], marker=sign, s=14, color=shown, lw=0, zorder=3, clip_on=False)


def spread_out(wanted: np.ndarray, gap: float, length: float) -> np.ndarray:
    """Places in [0, length], in the order of `wanted` and near it, no two nearer than `gap`; least squares."""
    from scipy.optimize import isotonic_regression

    if len(wanted) == 0:
        return wanted
    order = np.argsort(wanted, kind="stable")
    steps = min(gap, length / max(len(wanted) - 1, 1)) * np.arange(len(wanted))
    free = isotonic_regression(wanted[order] - steps).x
    found = np.empty(len(wanted))
    found[order] = np.clip(free, 0, length - steps[-1]) + steps
    return found


def label_beside(axes: Axes, fractions: np.ndarray, texts: Sequence[str], colors: Sequence[str], box: Box) -> None:
    """Texts in a column right of the axes, each joined by a thin line to its place on the right edge (a fraction of the height)."""
    places = spread_out(np.asarray(fractions) * box.height, LINE * 0.86, box.height) / box.height
    near, far = 1 + 0.04 / box.width, 1 + 0.2 / box.width
    paths = [[(1, f), (near, f), (far - 0.02 / box.width, p), (far, p)] for f, p in zip(fractions, places, strict=True)]
    axes.add_collection(
        LineCollection(paths, transform=axes.transAxes, colors=GREY, lw=0.5, clip_on=False), autolim=False
    )
    for place, text, color in zip(places, texts, colors, strict=True):
        x = far + 0.04 / box.width
        axes.text(x, place, drawable(text), transform=axes.transAxes, va="center", size=SIZE - 1, color=color)


def name_rows(axes: Axes, heights: Sequence[float], texts: Sequence[str], box: Box) -> None:
    """Names left of the axes in place of its ticks, which take longer to draw."""
    axes.yaxis.set_visible(False)
    for height, text in zip(heights, texts, strict=True):
        axes.text(
            -0.06 / box.width, height, text, transform=axes.get_yaxis_transform(), ha="right", va="center_baseline"
        )
