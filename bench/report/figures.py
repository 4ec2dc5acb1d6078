"""Figures of a run, PNG and SVG, from its stored results alone: one file for each question and problem, a panel for each point.

Colour and marker say the verdict; an open marker, an interval that cannot be trusted; an arrow, an interval that goes on.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.report import cells
from bench.report.axes import (
    GREY,
    LINE,
    PALE,
    SIZE,
    Box,
    Scale,
    draw_spans,
    drawable,
    label_beside,
    name_rows,
    scale_of,
    sheet,
    style,
    wide,
)
from bench.report.cells import ENDS, KEY, Run

KINDS = ("verdicts", "bias-variance", "variance", "samples", "time-error", "coordinates")
LOOKS = {  # colour and marker: told apart by the colour-blind, and in grey
    "unbiased": ("#0173b2", "o", "U"),
    "biased": ("#d55e00", "X", "B"),
    "undecided": ("#7f7f7f", "D", "?"),
    "truth-limited": ("#cc78bc", "^", "L"),
    "no-truth": ("#029e73", "s", "N"),
    "failed": ("#1a1a1a", "x", "F"),
    "timeout": ("#1a1a1a", "x", "T"),
    "skipped": ("#f2f2f2", " ", ""),
}
NAME = 44  # characters of a name in a figure; the middle of a longer one is left out
BINS = 64  # columns of a heat map
SEEN = 6.0  # |z| at which its colour ends
DPI = 150
SMALL = 1e-3  # percent of |truth|: a bias of no more is drawn where zero is


def write_figures(folder: Path) -> list[Path]:
    """Draw the figures of a run folder into its `figures/`, where they replace those of an earlier drawing. Raises Refusal."""
    run = cells.read(folder)
    out = Path(folder) / "figures"
    out.mkdir(exist_ok=True)
    for old in out.iterdir():
        if old.suffix in (".png", ".svg") and old.name.startswith(KINDS):
            old.unlink()
    found = []
    with style():
        for name, figure in figures(run):
            for suffix in ("png", "svg"):
                path = out / f"{name}.{suffix}"
                figure.savefig(path, dpi=DPI, metadata={"Date": None} if suffix == "svg" else None)
                found.append(path)
    return found


def figures(run: Run) -> Iterator[tuple[str, Figure]]:
    """Name and drawing of each figure of a run that has anything to show."""
    rows = run.cells
    if len(rows):
        yield "verdicts", verdicts(rows)
    done = rows[rows["status"] == "done"].copy()
    done["short"] = done["estimator_label"].map(short)
    drawings = {"bias-variance": bias_variance, "variance": variance, "samples": samples, "time-error": time_error}
    for (problem, name), (_, group) in zip(names(rows).items(), done.groupby("problem_label", sort=False), strict=True):
        for kind, draw in drawings.items():
            if (figure := draw(short(problem), group)) is not None:
                yield f"{kind}-{name}", figure
        if (figure := coordinates(short(problem), group, run.coordinates)) is not None:
            yield f"coordinates-{name}", figure


def names(rows: pd.DataFrame) -> dict[str, str]:
    """The problems that have figures, in order, with the part of the files' names that stands for each."""
    found: dict[str, str] = {}
    for problem in dict.fromkeys(rows.loc[rows["status"] == "done", "problem_label"]):
        plain = re.sub(r"[^a-z0-9_]+", "-", problem.lower()).strip("-")[:60] or "problem"
        name, count = plain, 1
        while name in found.values():
            count += 1
            name = f"{plain}-{count}"
        found[problem] = name
    return found


def short(text: str) -> str:
    """A name that a figure has room for, in characters that its font has."""
    return drawable(cells.short(text, NAME))


def bias_variance(problem: str, rows: pd.DataFrame) -> Figure | None:
    """|bias| / |truth| against total variance, each with its interval; names at the height of their points."""
    groups = by_point(rows[rows["relative_bias"].notna()])
    if not groups:
        return None
    room = max(wide(text, SIZE - 1) for text in rows["short"])
    boxes = [Box(3.6, max(2.4, 0.15 * len(g)), left=0.75, right=room + 0.45, top=0.35, bottom=0.5) for _, g in groups]
    notes = [
        "Intervals: 95%. Dashed: 1% of |truth|; `unbiased` needs an interval that ends left of it. Left of the dotted line: zero, "
        "which a log axis has not. Open markers and arrows: heavy tail or too few replicates, no upper end."
    ]
    if missing := sorted(set(rows.loc[rows["relative_bias"].isna(), "short"])):
        notes.append(f"No truth to compare with, not shown: {', '.join(missing)}.")
    if (rows["relative_to"] == "sd").any():
        notes.append("Where the truth is zero, the bias is in percent of one replicate's standard deviation.")
    figure, axes = sheet(boxes, 2, f"{problem}: bias against variance", notes, verdict_key(rows))
    for ax, box, (point, group) in zip(axes, boxes, groups, strict=True):
        x, y = fitted(group, "relative_bias", include=1.0, floor=SMALL), fitted(group, "total_variance")
        ax.axvline(1.0, color=GREY, lw=0.8, ls=(0, (4, 3)), zorder=0)
        heights = y.fraction(group["total_variance"].to_numpy())
        ax.hlines(
            y.at(group["total_variance"].to_numpy()),
            x.at(group["relative_bias"]),
            x.highest,
            color=PALE,
            lw=0.4,
            zorder=0,
        )
        cross(ax, group, ("relative_bias", x), ("total_variance", y))
        label_beside(ax, heights, group["short"].tolist(), colors_of(group), box)
        finish(ax, point, box, "|bias| / |truth|  [%]", "total variance  [gradient²]")
    return figure


def variance(problem: str, rows: pd.DataFrame) -> Figure | None:
    """Total variance by estimator, the smallest on top."""
    groups = by_point(rows[rows["total_variance"].notna()])
    if not groups:
        return None
    room = max(map(wide, rows["short"]))
    boxes = [list_box(len(g), room) for _, g in groups]
    notes = ["Intervals: 95%. Open markers and arrows: heavy tail or too few replicates, no upper end."]
    figure, axes = sheet(boxes, 2, f"{problem}: variance by estimator", notes, verdict_key(rows))
    for ax, box, (point, group) in zip(axes, boxes, groups, strict=True):
        ordered_list(ax, box, group, "total_variance")
        finish(ax, point, box, "total variance  [gradient²]", None)
    return figure


def time_error(problem: str, rows: pd.DataFrame) -> Figure | None:
    """Seconds against variance with the front of what is best at both, and beside it their product, by estimator."""
    groups = by_point(rows[rows["work_variance"].notna()])
    if not groups:
        return None
    room = max(map(wide, rows["short"])) + wide("00  ")
    boxes = []
    for _, group in groups:
        tall = list_box(len(group), room)
        boxes += [Box(3.2, max(tall.height, 2.2), left=0.75, right=0.1, top=0.35, bottom=0.5)]
        boxes += [Box(tall.width, max(tall.height, 2.2), tall.left, tall.right, 0.35, 0.5)]
    floor = rows["noise_floor"].max()
    noise = f" Noise floor of the clock: {100 * math.expm1(floor):.2g}%." if math.isfinite(floor) else ""
    notes = [
        "Left: numbers as in the list on the right; line: the front of estimators that no other beats in both, those found biased "
        "or without an upper end left out; dotted: equal time x variance. Right: time x variance, log half-widths of both "
        "intervals in quadrature. Open markers and arrows: heavy tail or too few replicates, no upper end. "
        f"Intervals: 95%. Times are this run's: compare them with each other, not with another run's.{noise}"
    ]
    if untimed := sorted(set(rows.loc[rows["work_variance"].isna(), "short"])):
        notes.append(f"Not timed, not shown: {', '.join(untimed)}.")
    figure, axes = sheet(boxes, 2, f"{problem}: time against error", notes, verdict_key(rows))
    for k, (point, group) in enumerate(groups):
        ordered = group.sort_values("work_variance", kind="stable").assign(rank=range(1, len(group) + 1))
        plane(axes[2 * k], boxes[2 * k], ordered)
        finish(axes[2 * k], point, boxes[2 * k], "time of one estimate  [s]", "total variance  [gradient²]")
        ordered_list(axes[2 * k + 1], boxes[2 * k + 1], ordered, "work_variance", "rank")
        finish(axes[2 * k + 1], "", boxes[2 * k + 1], "time x total variance  [s gradient²]", None)
    return figure


def plane(ax: Axes, box: Box, rows: pd.DataFrame) -> None:
    """Time against variance, lines of equal work, the front, and ranks where there is room for them."""
    rows = rows.assign(**{f"seconds{end}": 1e-9 * rows[f"ns_per_estimate{end}"] for end in ENDS})
    x, y = fitted(rows, "seconds"), fitted(rows, "total_variance")
    times, variances = rows["seconds"].to_numpy(), rows["total_variance"].to_numpy()
    with np.errstate(divide="ignore"):
        least, most = np.log10(x.lowest * y.lowest), np.log10(x.highest * y.highest)
    for power in range(math.ceil(least), math.floor(most) + 1, max(1, round((most - least) / 8))):
        ends = np.array([x.lowest, x.highest])
        ax.plot(ends, 10.0**power / ends, color=PALE, lw=0.8, ls=":", zorder=0)
    out = (rows["verdict"] == "biased") | ~rows["trusted"]
    best = front(times, np.where(out, np.inf, variances))
    corners_x, corners_y = x.at(times[best]), y.at(variances[best])
    if len(best):
        ax.step(
            np.r_[corners_x, x.highest], np.r_[corners_y, corners_y[-1]], where="post", color=GREY, lw=1.0, zorder=1
        )
    cross(ax, rows, ("seconds", x), ("total_variance", y))
    first = np.isin(np.arange(len(rows)), best)
    places = np.column_stack([x.fraction(times) * box.width, y.fraction(variances) * box.height])
    for j, (u, v) in number_places(places, first, box).items():
        bold = "bold" if first[j] else "normal"
        ax.text(u / box.width, v / box.height, str(rows["rank"].iloc[j]), transform=ax.transAxes, size=SIZE - 1.5, ha="center",
                va="center_baseline", color="black" if first[j] else GREY, weight=bold, zorder=5)  # fmt: skip


def front(times: np.ndarray, variances: np.ndarray) -> np.ndarray:
    """Places of the points that no other beats in both, by time."""
    order = np.lexsort([variances, times])
    best, kept = math.inf, []
    for j in order:
        if variances[j] < best:
            best = variances[j]
            kept.append(j)
    return np.array(kept, dtype=int)


def number_places(points: np.ndarray, first: np.ndarray, box: Box) -> dict[int, tuple[float, float]]:
    """Where a number fits beside each point (inches), without covering a point or another number; those `first` always get one."""
    around = [(0.11, 0.08), (0.11, -0.08), (-0.11, 0.08), (-0.11, -0.08), (0, 0.13), (0, -0.13), (0.15, 0), (-0.15, 0)]
    around += [(1.7 * dx, 1.7 * dy) for dx, dy in around]
    taken = [(x, y, 0.05, 0.05) for x, y in points]
    found: dict[int, tuple[float, float]] = {}
    for j in sorted(range(len(points)), key=lambda j: not first[j]):
        half = 0.04 + 0.035 * (len(str(j + 1)) - 1)
        for dx, dy in around:
            x, y = points[j][0] + dx, points[j][1] + dy
            inside = half < x < box.width - half and 0.06 < y < box.height - 0.06
            if inside and all(abs(x - u) >= half + w or abs(y - v) >= 0.055 + h for u, v, w, h in taken):
                break
        else:
            if not first[j]:
                continue
            x, y = points[j][0] + 0.11, points[j][1] + 0.08
        found[j] = (x, y)
        taken.append((x, y, half, 0.055))
    return found


def samples(problem: str, rows: pd.DataFrame) -> Figure | None:
    """Variance and signal-to-noise ratio against samples K, a line for each estimator that was measured at several."""
    rows = rows.assign(line=[_line(row) for row in rows.to_dict("records")])
    several = rows.groupby(["point", "line"])["samples"].transform("nunique") > 1
    rows = rows[several & (rows["samples"] > 0)]
    groups = by_point(rows)
    if not groups:
        return None
    lines = {name: k for k, name in enumerate(dict.fromkeys(rows["line"]))}
    colors, markers = sns.color_palette("colorblind", 10).as_hex(), "osD^vP*X<>"
    key = [
        Line2D([], [], color=colors[k % 10], marker=markers[(k + k // 10) % 10], ls=_dash(k), ms=4.5, lw=1.2, label=short(name))
        for name, k in lines.items()
    ]  # fmt: skip
    boxes = [Box(2.7, 2.1, left=0.75, right=0.2, top=0.35, bottom=0.5) for _ in range(2 * len(groups))]
    notes = [
        "Points are shifted sideways a little to show their 95% intervals; open markers and arrows: heavy tail or too few "
        "replicates, no upper end. Dotted: 1/K, what independent samples would give, and K."
    ]
    columns = 4 if len(groups) > 1 else 2
    figure, axes = sheet(boxes, columns, f"{problem}: against samples K", notes, key)
    for k, (point, group) in enumerate(groups):
        for ax, box, name, label, slope in (
            (axes[2 * k], boxes[2 * k], "total_variance", "total variance  [gradient²]", -1),
            (axes[2 * k + 1], boxes[2 * k + 1], "snr", "SNR = |truth|² / variance  [1]", 1),
        ):
            against_samples(ax, group, name, lines, key, slope)
            finish(ax, point if slope < 0 else "", box, "samples K", label)
    return figure


def _line(row: dict) -> str:
    """The estimator with its settings but for the number of samples."""
    given = {name: value for name, value in cells.parsed(row["estimator_settings"]).items() if name != "samples"}
    tag = str(row["estimator_label"]).partition("] ")[2]
    return " ".join(filter(None, [cells.full(row["estimator"], given), tag]))


def _dash(k: int) -> str:
    return ["-", "--", ":", "-."][k // 10 % 4]


def against_samples(
    ax: Axes, rows: pd.DataFrame, name: str, lines: dict[str, int], key: Sequence[Line2D], slope: int
) -> None:
    """One panel: a figure of merit against K, with a guide through the middle for K^slope."""
    x = scale_of(*(rows["samples"].to_numpy() * factor for factor in (1.0, 0.9, 1.12)))
    y = fitted(rows, name)
    guide = np.array([x.lowest, x.highest])
    middle = float(np.exp(np.log(rows["samples"]).mean()))
    ax.plot(guide, math.sqrt(y.first * y.highest) * (guide / middle) ** slope, color=PALE, lw=0.9, ls=":", zorder=0)
    present = list(dict.fromkeys(rows["line"]))
    for place, line in enumerate(present):
        group = rows[rows["line"] == line].sort_values("samples", kind="stable")
        aside = group["samples"].to_numpy() * 1.025 ** (place - (len(present) - 1) / 2)
        handle = key[lines[line]]
        color = str(handle.get_color())
        shown = with_ends(group, name)
        value = shown[0]
        draw_spans(ax, y, "y", shown, aside, [color] * len(group))
        ax.plot(aside, y.at(value), color=color, lw=1.1, ls=handle.get_linestyle(), zorder=2)
        fills = [color if trusted else "white" for trusted in group["trusted"]]
        ax.scatter(aside, y.at(value), marker=handle.get_marker(), s=20, c=fills, edgecolors=[color], lw=1.0, zorder=4)
    x.apply(ax, "x")
    y.apply(ax, "y")
    counts = sorted(rows["samples"].unique())
    ax.set_xticks(counts, [f"{count:g}" for count in counts])


def coordinates(problem: str, rows: pd.DataFrame, stored: pd.DataFrame) -> Figure | None:
    """z of each coordinate's bias, estimators x coordinates; neighbours share a column where there are many."""
    kept = stored[stored["z"].notna() & stored["problem"].isin(rows["problem"])]
    joined = kept.merge(rows[[*KEY, "short"]].drop_duplicates(KEY), on=KEY)
    groups = [(point, group) for point, group in by_point(joined) if group["coordinate"].nunique() > 1]
    if not groups:
        return None
    room = max(map(wide, rows["short"]))
    tables = [(point, table_of(group)) for point, group in groups]
    boxes = [Box(4.2, LINE * len(t) + 0.05, left=room + 0.2, right=0.5, top=0.35, bottom=0.45) for _, (t, _) in tables]
    notes = [
        f"z: (mean - truth) / standard error, coordinate by coordinate; colour ends at {SEEN:g}. Marked: beyond what chance gives "
        "once in a hundred panels like this. A small bias in every coordinate shows in the direction of the truth, not here."
    ]
    figure, axes = sheet(boxes, 2, f"{problem}: bias by coordinate", notes)
    for ax, box, (point, (table, each)) in zip(axes, boxes, tables, strict=True):
        norm, colors = Normalize(-SEEN, SEEN), sns.color_palette("vlag", as_cmap=True)
        ax.set_facecolor(PALE)
        ax.pcolormesh(np.ma.masked_invalid(table.to_numpy()), cmap=colors, norm=norm, rasterized=True)
        name_rows(ax, [i + 0.5 for i in range(len(table))], list(table.index), box)
        ax.set_xticks([])
        ax.invert_yaxis()
        beyond = beyond_chance(table.size * each)
        y, x = np.nonzero(np.abs(table.to_numpy()) > beyond)
        ax.scatter(x + 0.5, y + 0.5, s=4, color="black", lw=0)
        many = f"coordinate, largest |z| of {each} neighbours" if each > 1 else "coordinate"
        finish(ax, point, box, f"{many}; marked: |z| > {beyond:.1f}", "")
        bar = figure.colorbar(ScalarMappable(norm, colors), cax=ax.inset_axes((1.015, 0, 0.015, 1)))
        bar.set_ticks([-SEEN, -SEEN / 2, 0, SEEN / 2, SEEN])
        bar.ax.set_title("z", size=SIZE, pad=4)
        bar.outline.set_visible(False)
        bar.ax.tick_params(length=2, pad=1, labelsize=SIZE - 1)
    return figure


def table_of(rows: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """z, estimators x coordinates, and how many neighbours share a column: the largest of them in size stands for all."""
    order = list(dict.fromkeys(rows["short"]))
    table = (
        rows.pivot_table(index="short", columns="coordinate", values="z", aggfunc="first", sort=False)
        .loc[order]
        .sort_index(axis=1)
    )
    table.index.name = table.columns.name = None
    each = math.ceil(table.shape[1] / BINS)
    if each == 1:
        return table, 1
    values = table.to_numpy()
    starts = range(0, values.shape[1], each)
    largest = [
        part[np.arange(len(part)), np.nanargmax(np.abs(part), 1)]
        for s in starts
        if (part := values[:, s : s + each]).size
    ]
    return pd.DataFrame(np.column_stack(largest), index=table.index), each


def beyond_chance(tests: int) -> float:
    """|z| that one of so many tests exceeds by chance with a probability of 1%."""
    from statistics import NormalDist

    return NormalDist().inv_cdf(1 - 0.005 / max(tests, 1))


def verdicts(rows: pd.DataFrame) -> Figure:
    """Estimators x problems at their points: the verdict, or a letter for why there is none."""
    estimators, places = list(dict.fromkeys(rows["estimator_label"])), list(dict.fromkeys(rows["place"]))
    letters = reasons(rows)
    words = list(LOOKS)
    colors = np.full((len(estimators), len(places)), np.nan)
    texts = np.full(colors.shape, "", dtype=object)
    for row in rows.to_dict("records"):
        here = estimators.index(row["estimator_label"]), places.index(row["place"])
        word = cells.word(row)
        colors[here] = words.index(word)
        texts[here] = (
            letters[cells.reason_kind(row)]
            if word == "skipped"
            else LOOKS[word][2] + ("!" if row["false_claim"] else "")
        )
    beside = [short(text) for text in estimators]
    above = [short(text) for text in places]
    side = 0.27
    box = Box(
        side * len(places),
        side * 0.75 * len(estimators),
        max(map(wide, beside)) + 0.25,
        0.3,
        max(map(wide, above)) + 0.2,
        0.15,
    )
    notes = [f"{letter}: {reason}" for reason, letter in letters.items()]
    notes += ["!: biased, though it claims to be unbiased."] if rows["false_claim"].any() else []
    present = [word for word in words if word in set(map(cells.word, rows.to_dict("records")))]
    figure, (ax,) = sheet([box], 1, "Verdicts", notes, [square(word) for word in present])
    palette = ListedColormap([LOOKS[word][0] for word in words])
    ax.pcolormesh(
        np.ma.masked_invalid(colors), cmap=palette, vmin=-0.5, vmax=len(words) - 0.5, edgecolors="white", lw=1
    )
    for (i, j), text in np.ndenumerate(texts):
        pale = colors[i, j] == words.index("skipped")
        ax.text(j + 0.5, i + 0.5, text, ha="center", va="center_baseline", size=SIZE - 1, color=GREY if pale else "white",
                weight="normal" if pale else "bold")  # fmt: skip
    ax.set_xticks(np.arange(len(places)) + 0.5, above, rotation=90)
    name_rows(ax, [i + 0.5 for i in range(len(beside))], beside, box)
    ax.xaxis.tick_top()
    ax.invert_yaxis()
    ax.tick_params(length=0)
    sns.despine(ax=ax, left=True, bottom=True)
    return figure


def reasons(rows: pd.DataFrame) -> dict[str, str]:
    """A letter for each kind of reason why cells were skipped: a, b, ..., z, aa, ab, ..."""
    kinds = dict.fromkeys(cells.reason_kind(row) for row in rows[rows["status"] == "skipped"].to_dict("records"))
    return {kind: (chr(96 + k // 26) if k >= 26 else "") + chr(97 + k % 26) for k, kind in enumerate(kinds)}


def square(word: str) -> Line2D:
    """A verdict in the key of the matrix."""
    color, _, letter = LOOKS[word]
    text = {"skipped": "skipped: a letter says why"}.get(word, f"{letter} {word}")
    return Line2D([], [], ls="", marker="s", ms=7, color=color, markeredgecolor=PALE, label=text)


def verdict_key(rows: pd.DataFrame) -> list[Line2D]:
    """The verdicts that occur, as colour and marker."""
    return [
        Line2D([], [], ls="", marker=LOOKS[word][1], ms=5, color=LOOKS[word][0], label=word)
        for word in LOOKS
        if (rows["verdict"] == word).any()
    ]


def by_point(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The cells of each point of a problem."""
    return [(short(str(point)), group) for point, group in rows.groupby("point", sort=False)]


def with_ends(rows: pd.DataFrame, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A figure of each cell with the ends of its interval."""
    value, low, high = (rows[name + end].to_numpy() for end in ENDS)
    return value, low, high


def fitted(rows: pd.DataFrame, name: str, include: float = math.nan, floor: float = 0.0) -> Scale:
    """An axis for a figure and its intervals, and for one value more."""
    value, low, high = (np.append(part, include) for part in with_ends(rows, name))
    return scale_of(value, low, high, floor)


def colors_of(rows: pd.DataFrame) -> list[str]:
    return [LOOKS[word][0] for word in rows["verdict"]]


def cross(ax: Axes, rows: pd.DataFrame, x: tuple[str, Scale], y: tuple[str, Scale]) -> None:
    """Points with an interval along each axis, and both axes."""
    places = {}
    for along, (name, scale) in (("x", x), ("y", y)):
        places[along] = scale.at(rows[name].to_numpy())
        scale.apply(ax, along)
    for along, (name, scale) in (("x", x), ("y", y)):
        draw_spans(ax, scale, along, with_ends(rows, name), places["y" if along == "x" else "x"], colors_of(rows))
    points(ax, rows, places["x"], places["y"])


def points(ax: Axes, rows: pd.DataFrame, x: np.ndarray, y: np.ndarray) -> None:
    """A marker a cell: its verdict; open where it is not trusted."""
    for word, (color, marker, _) in LOOKS.items():
        here = (rows["verdict"] == word).to_numpy()
        if here.any():
            fills = [color if trusted else "white" for trusted in rows["trusted"][here]]
            ax.scatter(
                x[here], y[here], marker=marker, s=22, c=fills, edgecolors=[color], lw=1.0, zorder=4, clip_on=False
            )


def list_box(count: int, room: float) -> Box:
    """Room for a list of so many estimators with names so many inches long."""
    return Box(3.2, LINE * count + 0.2, left=room + 0.25, right=0.25, top=0.35, bottom=0.5)


def ordered_list(ax: Axes, box: Box, rows: pd.DataFrame, name: str, numbered: str = "") -> None:
    """Dots and intervals, one below the other, the smallest on top."""
    rows = rows.sort_values(name, kind="stable")
    scale, heights = fitted(rows, name), np.arange(len(rows), dtype=float)
    shown = with_ends(rows, name)
    scale.apply(ax, "x")
    ax.hlines(heights, scale.lowest, scale.highest, color="#ececec", lw=0.6, zorder=0)
    draw_spans(ax, scale, "x", shown, heights, colors_of(rows))
    points(ax, rows, scale.at(shown[0]), heights)
    texts = rows["short"].tolist()
    if numbered:
        texts = [f"{rank}  {text}" for rank, text in zip(rows[numbered], texts, strict=True)]
    ax.set_ylim(len(rows) - 0.4, -0.6)
    name_rows(ax, list(heights), texts, box)


def finish(ax: Axes, title: str, box: Box, x: str, y: str | None) -> None:
    """Titles, with their units, and no more frame than is needed."""
    most = int((box.width + 0.5) / 0.075)
    ax.set_title(drawable(cells.short(title, most)), loc="left")
    ax.set_xlabel(x)
    if y is not None:
        ax.set_ylabel(y)
    sns.despine(ax=ax, left=y is None or y == "")
