"""The console table: a line a cell, grouped by problem and point. It reads the same without colour."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from bench.report import cells, numbers

if TYPE_CHECKING:
    import pandas as pd

LEVELS = 8  # of detail: 0 with both ends of every interval, the last for 80 columns
BRIEF = 3  # the level from which a bias is its interval alone, and the like
NAME = (26, 18)  # of an estimator: a longer one is broken over lines so that nothing else is left out; and from level 5
LONG_NAME = 48  # and beyond this its middle is left out
LONG_NOTE = 18
LEFT_OUT = {
    "SNR": 2,
    "of rows": 3,
    "claim": 4,
    "note": 5,
    "needs": 6,
    "f": 7,
}  # the level from which there is no such column
STYLES = {
    "unbiased": "green",
    "biased": "yellow",
    "undecided": "cyan",
    "truth-limited": "magenta",
    "no-truth": "blue",
}
LOUD = "bold red"


def results_table(rows: pd.DataFrame) -> ResultsTable:
    """The rows of results.parquet as something that rich can print, at any width from 80 columns."""
    return ResultsTable(rows if "place" in rows else cells.described(rows))


@dataclass(frozen=True, eq=False)
class ResultsTable:
    """Described cells, as lines."""

    rows: pd.DataFrame

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        layout = Layout(
            self.rows[self.rows["status"] == "done"], options.max_width, "+-" if options.ascii_only else "±"
        )
        for _, group in cells.places(self.rows):
            yield Text(_title(group), style="bold")
            yield from layout.lines(group[group["status"] == "done"])
            yield from _broken(group[group["status"].isin(["failed", "timeout"])])
            yield from _skipped(group[group["status"] == "skipped"])
            yield Text("")
        yield Text(cells.summary(self.rows) + ".")
        if len(layout.widths):
            yield Text(_legend(self.rows), style="dim")


def _title(group: pd.DataFrame) -> str:
    """`bernoulli_toy[dim=6] at init: Expectation, 6 parameters, truth: enumeration, 65,536 replicates`."""
    place = " at ".join(filter(None, [group["problem_full"].iloc[0], group["point"].iloc[0]]))
    done = group[group["status"] == "done"]
    if done.empty:
        return place
    first = done.iloc[0]
    tier = first["truth_tier"]
    least, most = done["replicates"].min(), done["replicates"].max()
    replicates = numbers.count(most) if least == most else f"{numbers.count(least)} to {numbers.count(most)}"
    truth = "no truth" if tier == "none" else f"truth: {tier}"
    return (
        f"{place}: {first['objective']}, {numbers.counted(first['params'], 'parameter')}, {truth}, "
        f"{replicates} replicates"
    )


class Layout:
    """The columns that fit a width, each as wide as its widest text over all groups, so that they stand under one another.

    level: how much is left out for want of room. From 1 an interval is a margin, from BRIEF numbers are as short as can be; what a
    column does not show, a line below the table does.
    """

    def __init__(self, rows: pd.DataFrame, width: int, sign: str) -> None:
        self.sign = sign
        records = rows.to_dict("records")
        self.draws_rows = bool(rows["rows_share"].notna().any())
        for self.level in range(LEVELS):
            late = self.level >= LEFT_OUT["note"]
            self.gap = 1 if late else 2
            self.widths: dict[str, int] = {}
            for row in records:
                for name, text in self.texts(row).items():
                    self.widths[name] = max(self.widths.get(name, len(name)), len(text))
            if not self.widths:
                return
            others = sum(w + self.gap for name, w in self.widths.items() if name not in ("estimator", "note"))
            room = width - others - self.gap
            if "note" in self.widths:
                room -= min(self.widths["note"], LONG_NOTE) + self.gap
            if room >= min(self.widths["estimator"], NAME[late]):
                break
        self.widths["estimator"] = min(self.widths["estimator"], max(room, 10))

    def texts(self, row: Mapping[Any, Any]) -> dict[str, str]:
        """What a line says of a cell that is done, by column."""
        brief = self.level >= BRIEF
        margin = partial(numbers.margin, sign=self.sign, most=math.inf if brief else 2.0)
        form = margin if self.level >= 1 else numbers.bounded
        asked = evaluations(row)
        found = {
            "estimator": "  " + cells.short(str(row["estimator_label"]), LONG_NAME),
            "claim": str(row["claimed"]),
            "verdict": cells.word(row) + (" !" if row["false_claim"] else ""),
            "bias/truth": numbers.at_most(*interval(row, "relative_bias"), "%", brief=brief),
            "variance": form(*interval(row, "total_variance")),
            "of rows": rows_share(row),
            "SNR": form(*interval(row, "snr")),
            "f": asked.replace(" + ", "+").replace(" grad", "g") if brief else asked,
            "time": numbers.duration(*interval(row, "ns_per_estimate"), form),
            "needs": str(row["needs"]),
            "note": str(row["note"]),
        }
        if not self.draws_rows:
            del found["of rows"]
        return {name: text for name, text in found.items() if self.level < LEFT_OUT.get(name, LEVELS)}

    def lines(self, group: pd.DataFrame) -> Iterator[Table | Text]:
        """The lines of a group, under their heads."""
        if group.empty:
            return
        table = Table(box=None, padding=(0, self.gap, 0, 0), pad_edge=False, header_style="dim")
        for name, width in self.widths.items():
            if name == "note":
                table.add_column(name, overflow="fold")
            else:
                fold = name == "estimator"
                table.add_column(name, width=width, no_wrap=not fold, overflow="fold" if fold else "crop")
        below = []
        for row in group.to_dict("records"):
            texts = self.texts(row)
            rest = [f"needs {row['needs']}"] if row["needs"] and "needs" not in texts else []
            rest += [str(row["note"])] if row["note"] and "note" not in texts else []
            below += [f"{row['estimator_label']}: {', '.join(rest)}"] if rest else []
            if len(texts["estimator"]) > self.widths["estimator"]:
                texts["estimator"] = texts["estimator"].replace("[", "\n    [", 1)
            table.add_row(*(Text(text, style=_style(name, row)) for name, text in texts.items()))
        yield table
        if below:
            yield Text("  " + "; ".join(below), style="dim")


def interval(row: Mapping[Any, Any], name: str) -> tuple[float, float, float]:
    """A figure of a cell with its ends."""
    value, low, high = (float(row[name + end]) for end in cells.ENDS)
    return value, low, high


def rows_share(row: Mapping[Any, Any]) -> str:
    """The interval of the part of the variance that is of the rows of data drawn: `48 to 54%`, `<= 4.2%`, `>= 40%`."""
    value, low, high = interval(row, "rows_share")
    if not math.isfinite(value):
        return numbers.NOTHING
    least, most = (numbers.number(end, 2) for end in (low, high))
    if low <= 0:
        return f"<= {most}%" if high < 100 else "unknown"
    return f"{least} to {most}%" if high < 100 else f">= {least}%"


def evaluations(row: Mapping[Any, Any]) -> str:
    """Evaluations of f, and of its gradient where there are any: `2`, `2 + 1 grad`."""
    gradients = float(row["gradient_evals"])
    more = f" + {numbers.count(gradients)} grad" if gradients > 0 else ""
    return numbers.count(float(row["f_evals"])) + more


def _style(name: str, row: Mapping[Any, Any]) -> str:
    if name not in ("verdict", "note"):
        return ""
    if row["false_claim"]:
        return LOUD
    return STYLES.get(cells.word(row), "") if name == "verdict" else "dim"


def _broken(group: pd.DataFrame) -> list[Text]:
    """`  FAILED rloo[samples=2]: ValueError: ...`, at any length."""
    return [
        Text(f"  {str(row['status']).upper()} {row['estimator_label']}: {row['note']}", style=LOUD)
        for row in group.to_dict("records")
    ]


def _skipped(group: pd.DataFrame) -> list[Text]:
    """One line a reason: `  skipped arm, disarm: is for bernoulli variables`."""
    by_reason: dict[str, list[str]] = {}
    for row in group.to_dict("records"):
        by_reason.setdefault(cells.reason_kind(row), []).append(str(row["estimator_label"]))
    return [Text(f"  skipped {', '.join(names)}: {reason}", style="dim") for reason, names in by_reason.items()]


def _legend(rows: pd.DataFrame) -> str:
    floor = rows["noise_floor"].max()
    noise = f" (noise floor {100 * math.expm1(floor):.2g}%)" if math.isfinite(floor) else ""
    drawn = " of rows: the part of it that is of the rows of data drawn." if rows["rows_share"].notna().any() else ""
    return (
        "Intervals: 95%. unbiased: no bias above 1% of |truth|. needs: about so many replicates for a decision. "
        f"variance: of one estimate, summed over coordinates.{drawn} f: evaluations for one estimate (g: of its gradient). "
        f"time: of one estimate, in this run{noise}; compare ratios, not runs."
    )
