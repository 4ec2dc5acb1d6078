"""Two runs, cell by cell: is the second slower, and has it more variance, beyond what chance explains?

Every ratio is of B to A, with a 95% interval. Holm over all tests of a comparison keeps the chance that anything is called slower,
faster, worse or better by mistake below LEVEL. Variances measured on the same noise are compared in pairs where the stores still
hold the sums; times as ratios to the yardstick of the same rounds, and only within one machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.console import Group
from rich.table import Table
from rich.text import Text

from bench.report import cells, numbers
from bench.report.cells import KEY

if TYPE_CHECKING:
    from bench.moments import Sums

LEVEL = 0.01
ALPHA = 0.05
LEAST_TIME = math.log(1.05)  # ratios of times nearer to one are never called: layout in memory alone makes as much
LEAST_VARIANCE = 1e-4  # log ratios of variances nearer to zero are rounding
SAME = math.log(1.05)  # `same`: an interval within this, or within the noise floor of the clock,
LARGEST_SAME = math.log(1.10)  # but never beyond this
ROUNDS = 15  # of timing, of which the interval of a time is made
REGRESSION = 3

Lookup = Callable[[Mapping[str, Any]], "Sums | None"]


@dataclass(frozen=True)
class Ratio:
    """B to A on the log scale. p: of a ratio within `margin` of one. basis: what it rests on."""

    log: float
    low: float
    high: float
    p: float
    margin: float
    basis: str


@dataclass(frozen=True, eq=False)
class Comparison:
    """rows: a cell each, in the order of A and then what only B has.

    Columns: the key of a cell; place and estimator_label; time (faster, slower, same, undecided or nothing) and variance (better,
    worse, same, undecided or nothing), each with _ratio, _ratio_low, _ratio_high, _p and _basis; work_ratio with its ends, of
    time x variance; verdict_a, verdict_b, status_a, status_b, note.
    """

    a: str
    b: str
    rows: pd.DataFrame
    level: float
    exit_code: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON: what is not known is null, and an infinite end a text."""
        records = [{str(name): _plain(value) for name, value in row.items()} for row in self.rows.to_dict("records")]
        return {"a": self.a, "b": self.b, "level": self.level, "exit_code": self.exit_code, "rows": records}


def compare(a: Path, b: Path) -> Comparison:
    """Compare run folder B with A. The exit code is 3 where anything is slower or has more variance, else 0. Raises Refusal."""
    before, after = cells.read(Path(a)), cells.read(Path(b))
    with ExitStack() as stack:
        of_a, of_b = stack.enter_context(_Stored(before.folder)), stack.enter_context(_Stored(after.folder))
        same_machine = before.manifest.get("machine") == after.manifest.get("machine")
        rows = list(_compared(before.cells, after.cells, of_a.sums, of_b.sums, same_machine))
    called = _call(rows)
    table = pd.DataFrame(called, columns=COLUMNS)
    regressed = bool((table["time"] == "slower").any() or (table["variance"] == "worse").any())
    return Comparison(str(a), str(b), table, LEVEL, REGRESSION if regressed else 0)


ENDS = ("_ratio", "_ratio_low", "_ratio_high", "_p", "_basis")
COLUMNS = [
    *KEY,
    *("place", "estimator_label", "time", *(f"time{end}" for end in ENDS)),
    *("variance", *(f"variance{end}" for end in ENDS)),
    *("work_ratio", "work_ratio_low", "work_ratio_high"),
    *("verdict_a", "verdict_b", "status_a", "status_b", "note"),
]


class _Stored:
    """The sums of a run's cells, as far as a store beside the folder still has them."""

    def __init__(self, folder: Path) -> None:
        from bench.errors import Refusal
        from bench.store import FILE, Store

        self.stores = []
        for path in (folder / FILE, folder.resolve().parent / FILE):
            if path.is_file():
                try:
                    self.stores.append(Store(path))
                except Refusal:
                    continue

    def __enter__(self) -> _Stored:
        return self

    def __exit__(self, *_: object) -> None:
        for store in self.stores:
            store.close()

    def sums(self, row: Mapping[str, Any]) -> Sums | None:
        """Of one cell; None where no store has them."""
        from bench.outcome import outcome_from_bytes

        key = row.get("key")
        for store in self.stores:
            if isinstance(key, str) and key in store.find([key]):
                try:
                    return outcome_from_bytes(store.outcome(key)).sums
                except ValueError:
                    return None
        return None


def _compared(
    before: pd.DataFrame, after: pd.DataFrame, of_a: Lookup, of_b: Lookup, same_machine: bool
) -> Iterator[dict[str, Any]]:
    """The cells of both runs side by side, with their ratios not yet called; a pair that neither measured is left out."""
    for a, b in _pairs(before.to_dict("records"), after.to_dict("records")):
        shown: Mapping[str, Any] = a or b or {}
        if {row["status"] for row in (a, b) if row} <= {"skipped"}:
            continue
        row = {name: shown[name] for name in [*KEY, "place", "estimator_label"]}
        row |= {
            f"{what}_{side}": one[what] if one else ""
            for what in ("verdict", "status")
            for side, one in (("a", a), ("b", b))
        }
        notes = []
        if a is None or b is None:
            notes.append(f"only in {'A' if b is None else 'B'}")
        elif a["status"] == b["status"] == "done":
            row["variances"] = variance_ratio(a, b, of_a, of_b)
            row["times"], why = time_ratio(a, b, same_machine)
            notes += [why] if why else []
            if a["verdict"] != b["verdict"]:
                notes.append(f"{a['verdict']} in A, {b['verdict']} in B")
        else:
            notes += [f"{one['status']} in {side}" for side, one in (("A", a), ("B", b)) if one["status"] != "done"]
        yield row | {"note": "; ".join(notes)}


def _pairs(
    before: list[dict[str, Any]], after: list[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any] | None, dict[str, Any] | None]]:
    """The same cell of both runs. One that was not measured matches whatever backend, dtype and device the other run used."""
    rest = {tuple(row[name] for name in KEY): row for row in after}
    pairs: list[tuple[dict[str, Any] | None, dict[str, Any] | None]] = []
    for a in before:
        found = rest.pop(tuple(a[name] for name in KEY), None)
        if found is None:
            alike = [key for key, b in rest.items() if _same_cell(a, b) and not a["status"] == b["status"] == "done"]
            found = rest.pop(alike[0]) if alike else None
        pairs.append((a, found))
    return iter([*pairs, *((None, b) for b in rest.values())])


def _same_cell(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return all(a[name] == b[name] for name in KEY[:5])


def variance_ratio(a: Mapping[str, Any], b: Mapping[str, Any], of_a: Lookup, of_b: Lookup) -> Ratio:
    """Total variance of B to A: paired through the groups where both saw the same noise, else log half-widths in quadrature."""
    from bench.moments import GROUPS
    from bench.statistics import variance_ratio as paired

    degrees = GROUPS - 1
    of_both = [[float(row[f"total_variance{end}"]) for end in cells.ENDS] for row in (a, b)]
    if of_both[0] == of_both[1] and a["seed"] == b["seed"] and a["replicates"] == b["replicates"]:
        return Ratio(0.0, 0.0, 0.0, 1.0, LEAST_VARIANCE, "identical")
    if of_both[0][0] == 0 or of_both[1][0] == 0:
        return _with_zero(*of_both)
    if a["seed"] == b["seed"] and (sums_a := of_a(a)) is not None and (sums_b := of_b(b)) is not None:
        found = paired(sums_b, sums_a, ALPHA)
        if found.trusted:
            return _tested(
                math.log(found.value), math.log(found.low), math.log(found.high), degrees, LEAST_VARIANCE, "paired"
            )
    return _tested(*_quotient(*of_both), degrees, LEAST_VARIANCE, "unpaired")


def _with_zero(a: list[float], b: list[float]) -> Ratio:
    """Where a variance is zero no log has an interval: zero is exact, or nothing is known."""
    if a[0] == a[2] == b[0] == b[2]:
        return Ratio(0.0, 0.0, 0.0, 1.0, LEAST_VARIANCE, "identical")
    if a[0] == a[2] == 0 < b[1]:
        return Ratio(math.inf, math.inf, math.inf, 0.0, LEAST_VARIANCE, "unpaired")
    if b[0] == b[2] == 0 < a[1]:
        return Ratio(-math.inf, -math.inf, -math.inf, 0.0, LEAST_VARIANCE, "unpaired")
    return Ratio(0.0, -math.inf, math.inf, 1.0, LEAST_VARIANCE, "unpaired")


def time_ratio(a: Mapping[str, Any], b: Mapping[str, Any], same_machine: bool) -> tuple[Ratio | None, str]:
    """Time of B to A, by the yardstick where both have it, and why it cannot be compared where it cannot."""
    by_yardstick, by_seconds = (
        [[float(row[f"{name}{end}"]) for end in cells.ENDS] for row in (a, b)]
        for name in ("yardstick_ratio", "ns_per_estimate")
    )
    figures, basis = (by_seconds, "seconds") if _unknown(by_yardstick) else (by_yardstick, "yardstick")
    if _unknown(figures):
        return None, "not timed"
    if not same_machine or a["threads"] != b["threads"]:
        return None, "timed on different machines" if not same_machine else "timed with different numbers of threads"
    floors = [float(row["noise_floor"]) for row in (a, b)]
    margin = max(LEAST_TIME, math.hypot(*(floor if math.isfinite(floor) else 0.0 for floor in floors)))
    if figures[0] == figures[1]:
        return Ratio(0.0, 0.0, 0.0, 1.0, margin, "identical"), ""
    return _tested(*_quotient(figures[0], figures[1]), ROUNDS - 1, margin, basis), ""


def _unknown(figures: list[list[float]]) -> bool:
    return any(math.isnan(x) for figure in figures for x in figure)


def _quotient(a: list[float], b: list[float]) -> tuple[float, float, float]:
    """Log of b / a, each a value with its ends: the half-widths on the sides that meet, in quadrature."""
    (x, x_low, x_high), (y, y_low, y_high) = (
        [math.log(end) if end > 0 else -math.inf for end in figure] for figure in (a, b)
    )
    return y - x, y - x - math.hypot(y - y_low, x_high - x), y - x + math.hypot(y_high - y, x - x_low)


def _tested(log: float, low: float, high: float, degrees: int, margin: float, basis: str) -> Ratio:
    """With the p-value of |log ratio| <= margin, by Student's t on the half-width that faces zero."""
    from scipy.special import stdtr, stdtrit

    beyond = abs(log) - margin
    width = log - low if log > 0 else high - log
    if beyond <= 0 or math.isinf(width):
        p = 1.0
    else:
        p = 2 * float(stdtr(degrees, -beyond / width * stdtrit(degrees, 1 - ALPHA / 2))) if width > 0 else 0.0
    return Ratio(log, low, high, p, margin, basis)


WORDS = {"time": ("faster", "slower"), "variance": ("better", "worse")}


def _call(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A word for every ratio; Holm over all of them."""
    from bench.statistics import holm

    tests = [(row, name, row[f"{name}s"]) for row in rows for name in WORDS if row.get(f"{name}s") is not None]
    rejected = list(holm([ratio.p for _, _, ratio in tests], LEVEL).rejected) if tests else []
    for (row, name, ratio), reject in zip(tests, rejected, strict=True):
        less, more = WORDS[name]
        band = min(max(SAME, ratio.margin), LARGEST_SAME)
        near = -band <= ratio.low and ratio.high <= band
        row[name] = (more if ratio.log > 0 else less) if reject else "same" if near else "undecided"
        row |= {f"{name}_p": ratio.p, f"{name}_basis": ratio.basis}
        row |= {f"{name}{end}": _exp(x) for end, x in zip(ENDS, (ratio.log, ratio.low, ratio.high), strict=False)}
    for row in rows:
        times, variances = row.pop("times", None), row.pop("variances", None)
        row |= {name: row.get(name, "") for name in [*WORDS, *(f"{name}_basis" for name in WORDS)]}
        if times is not None and variances is not None and math.isfinite(variances.log):
            log = times.log + variances.log
            low, high = (
                math.hypot(times.log - t, variances.log - v) for t, v in zip(*_ends(times, variances), strict=True)
            )
            row |= {"work_ratio": _exp(log), "work_ratio_low": _exp(log - low), "work_ratio_high": _exp(log + high)}
    return rows


def _ends(times: Ratio, variances: Ratio) -> tuple[tuple[float, float], tuple[float, float]]:
    return (times.low, times.high), (variances.low, variances.high)


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else math.inf


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


STYLES = {"slower": "bold red", "worse": "bold red", "faster": "green", "better": "green", "undecided": "cyan"}


def summary(comparison: Comparison) -> str:
    """`24 cells: time 1 slower, 20 same, 3 undecided; variance 24 same`."""
    rows = comparison.rows
    parts = []
    for name, (less, more) in WORDS.items():
        counts = [
            f"{many} {word}" for word in (more, less, "same", "undecided") if (many := int((rows[name] == word).sum()))
        ]
        parts.append(f"{name} {', '.join(counts) or 'not compared'}")
    return f"{numbers.counted(len(rows), 'cell')}: {'; '.join(parts)}"


def comparison_table(comparison: Comparison) -> Group:
    """A line a cell, grouped by problem and point: what became of its time and of its variance."""
    parts: list[Text | Table] = []
    for place, group in comparison.rows.groupby("place", sort=False):
        parts.append(Text(str(place), style="bold"))
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
        for head in ("estimator", "time B / A", "", "variance B / A", "", "note"):
            table.add_column(head, overflow="fold", no_wrap=head not in ("estimator", "note"))
        for row in group.to_dict("records"):
            texts = [Text("  " + cells.short(str(row["estimator_label"]), 32))]
            for name in WORDS:
                ends = (float(row[f"{name}_ratio"]), float(row[f"{name}_ratio_low"]), float(row[f"{name}_ratio_high"]))
                texts += [Text(str(row[name]), style=STYLES.get(str(row[name]), "")), Text(numbers.bounded(*ends))]
            table.add_row(*texts, Text(str(row["note"]), style="dim"))
        parts += [table, Text("")]
    bases = set(comparison.rows["variance_basis"]) | set(comparison.rows["time_basis"])
    parts.append(Text(f"A is {comparison.a}, B is {comparison.b}. {summary(comparison)}."))
    legend = f"Ratios B / A, 95% intervals; words: Holm over all cells at {100 * comparison.level:g}%."
    if "unpaired" in bases:
        legend += (
            " Some variances saw different noise, or their sums are not at hand: their intervals are wider (unpaired)."
        )
    if "seconds" in bases:
        legend += " Some times have no yardstick: seconds of different runs, which drift, are compared."
    parts.append(Text(legend, style="dim"))
    return Group(*parts)
