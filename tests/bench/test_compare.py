"""Two runs compared: what differs is called by its name, what does not is never called, and the exit code gates."""

from __future__ import annotations

import io
import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from bench import compare as module
from bench.compare import Comparison, compare, comparison_table
from bench.errors import Refusal
from bench.moments import Sums, block_sums

Make = Callable[..., Any]
Row = dict[str, Any]


def scaled(row: Row, name: str, factor: float) -> Row:
    """The row with a figure and its interval multiplied."""
    return row | {f"{name}{end}": row[f"{name}{end}"] * factor for end in ("", "_low", "_high")}


def spread(row: Row, name: str, half: float) -> Row:
    """The row with an interval of this half-width on the log scale."""
    return row | {f"{name}_low": row[name] * math.exp(-half), f"{name}_high": row[name] * math.exp(half)}


@pytest.fixture
def against(run_folder: Make) -> Callable[..., Comparison]:
    """Compares rows before with rows after."""

    runs = itertools.count()

    def made(before: list[Row], after: list[Row], **manifest: Any) -> Comparison:
        k = next(runs)
        return compare(run_folder(before, f"a{k}"), run_folder(after, f"b{k}", **manifest))

    return made


def words(found: Comparison) -> list[tuple[str, str]]:
    return list(zip(found.rows["time"], found.rows["variance"], strict=True))


def test_a_run_is_the_same_as_itself(against: Make, cells: Make, special: list[Row]) -> None:
    rows = special + cells(2, 2, 10)
    found = against(rows, rows)
    assert found.exit_code == 0
    done = found.rows[found.rows["status_a"] == "done"]
    assert set(done["variance"]) == {"same"}
    assert set(done["time"]) == {"same", ""}  # one was not timed
    assert (found.rows["status_a"] != "skipped").all()


@pytest.mark.parametrize(("factor", "word", "code"), [(2.0, "slower", 3), (0.5, "faster", 0), (1.04, "same", 0)])
def test_time(against: Make, cell: Make, factor: float, word: str, code: int) -> None:
    before = spread(cell(), "yardstick_ratio", 0.005)
    found = against([before], [scaled(before, "yardstick_ratio", factor)])
    assert words(found) == [(word, "same")]
    assert found.exit_code == code
    row = found.rows.iloc[0]
    assert row["time_basis"] == "yardstick"
    assert row["time_ratio"] == pytest.approx(factor)
    assert row["time_ratio_high"] == pytest.approx(factor * math.exp(0.005 * math.sqrt(2)))
    assert row["work_ratio"] == pytest.approx(factor)


def test_a_slowdown_within_the_noise_floor_is_not_called(against: Make, cell: Make) -> None:
    before = spread(cell(noise_floor=0.01), "yardstick_ratio", 0.01)
    quiet = against([before], [scaled(before, "yardstick_ratio", 1.3)])
    loud = before | {"noise_floor": 0.3}
    noisy = against([loud], [scaled(loud, "yardstick_ratio", 1.3)])
    assert (words(quiet)[0][0], words(noisy)[0][0]) == ("slower", "undecided")


def test_a_wide_interval_is_undecided_and_never_the_same(against: Make, cell: Make) -> None:
    loud = spread(cell(noise_floor=0.5), "yardstick_ratio", 0.2)
    assert words(against([loud], [scaled(loud, "yardstick_ratio", 1.01)]))[0][0] == "undecided"


def test_seconds_where_there_is_no_yardstick_and_nothing_between_machines(against: Make, cell: Make) -> None:
    bare = cell() | dict.fromkeys(["yardstick_ratio", "yardstick_ratio_low", "yardstick_ratio_high"], math.nan)
    slower = scaled(bare, "ns_per_estimate", 3.0)
    by_seconds = against([bare], [slower]).rows.iloc[0]
    assert (by_seconds["time"], by_seconds["time_basis"]) == ("slower", "seconds")
    elsewhere = against([bare], [slower], machine={"processor": "another"})
    assert words(elsewhere) == [("", "same")]
    assert elsewhere.rows["note"][0] == "timed on different machines"
    assert words(against([bare], [slower | {"threads": 2}])) == [("", "same")]


@pytest.mark.parametrize(("factor", "word", "code"), [(1.5, "worse", 3), (0.5, "better", 0), (1.01, "same", 0)])
def test_variance_of_other_noise(against: Make, cell: Make, factor: float, word: str, code: int) -> None:
    before = spread(cell(seed=0), "total_variance", 0.02)
    found = against([before], [scaled(before | {"seed": 1}, "total_variance", factor)])
    assert words(found) == [("same", word)]
    assert found.exit_code == code
    assert found.rows["variance_basis"][0] == "unpaired"
    assert found.rows["variance_ratio_low"][0] == pytest.approx(factor * math.exp(-0.02 * math.sqrt(2)))


def test_holm_over_the_cells(against: Make, cell: Make) -> None:
    """An increase of 3.3 standard errors is called where it is alone, and not among a hundred."""
    half = 2.0 * 0.01 / math.sqrt(2)  # two standard errors of 1% once both intervals are added
    rows = [spread(cell(estimator=f"e{k}", seed=0), "total_variance", half) for k in range(100)]
    alone = against(rows[:1], [scaled(rows[0] | {"seed": 1}, "total_variance", math.exp(0.033))])
    among = against(rows, [scaled(rows[0] | {"seed": 1}, "total_variance", math.exp(0.033)), *rows[1:]])
    assert alone.rows["variance"][0] == "worse"
    assert among.rows["variance"][0] == "undecided"
    assert alone.rows["variance_p"][0] == among.rows["variance_p"][0] == pytest.approx(0.0017, rel=0.1)
    assert (alone.exit_code, among.exit_code) == (3, 0)


def test_what_is_untrusted(against: Make, cell: Make) -> None:
    """Without an upper end nothing can be said, but that the lower end lies above the other's interval."""
    trusted = spread(cell(seed=0), "total_variance", 0.02)
    heavy = scaled(trusted | {"seed": 1, "trusted": False}, "total_variance", 10) | {"total_variance_high": math.inf}
    assert words(against([trusted], [heavy]))[0][1] == "worse"
    assert words(against([heavy], [trusted]))[0][1] == "better"
    lighter = scaled(heavy, "total_variance", 0.01) | {"total_variance_high": math.inf}
    assert words(against([trusted], [lighter]))[0][1] == "undecided"
    assert words(against([heavy], [heavy | {"seed": 2}]))[0][1] == "undecided"


def test_zero_variance(against: Make, cell: Make) -> None:
    some = cell()
    zero = some | {"total_variance": 0.0, "total_variance_low": 0.0, "total_variance_high": 0.0}
    unknown = zero | {"total_variance_high": math.inf}
    pairs = [(zero, zero), (zero, some), (some, zero), (unknown, some), (some, unknown)]
    found = [against([a], [b]) for a, b in pairs]
    assert [words(one)[0][1] for one in found] == ["same", "worse", "better", "undecided", "undecided"]
    for one in found:
        json.dumps(one.as_dict(), allow_nan=False)
        printed(one, 100)


def test_cells_that_are_not_in_both(against: Make, cell: Make) -> None:
    done, other = cell(verdict="unbiased"), cell(estimator="disarm")
    failed = cell(skip=True) | {"status": "failed", "reason": "ValueError", "backend": "auto", "dtype": None}
    gone = against([done, other], [done])
    assert gone.rows["note"].tolist() == ["", "only in A"]
    assert against([done], [done, other]).rows["note"].tolist() == ["", "only in B"]
    broke = against([done], [failed])
    assert broke.rows["note"].tolist() == ["failed in B"]
    assert against([failed], [done]).rows["note"].tolist() == ["failed in A"]
    assert against([done], [done | {"verdict": "biased"}]).rows["note"].tolist() == ["unbiased in A, biased in B"]
    assert [one.exit_code for one in (gone, broke)] == [0, 0]


@pytest.mark.parametrize("column", module.KEY)
def test_cells_match_by_every_column_of_their_key(against: Make, cell: Make, column: str) -> None:
    done = cell(verdict="unbiased")
    other = done | {column: "samples=7" if column.endswith("settings") else "another"}
    assert against([done], [other]).rows["note"].tolist() == ["only in A", "only in B"]


def test_empty_runs(against: Make) -> None:
    found = against([], [])
    assert found.rows.empty
    assert found.exit_code == 0
    assert "0 cells" in printed(found, 80)


def test_false_alarms() -> None:
    """200 pairs of runs of 50 cells that differ by noise alone: at most 1% are called, and 7 or more have a chance below 0.5%."""
    rng = np.random.default_rng(5)
    alarms = 0
    for _ in range(200):
        rows = []
        for _ in range(50):
            variance, time = rng.normal(size=2) * [0.02, 0.01]
            chi, wide = rng.chisquare(63) / 63, rng.chisquare(14) / 14  # the widths are estimates, too
            half = module_half(0.02, 63, chi), module_half(0.01, 14, wide)
            rows.append(
                {
                    "variances": module._tested(variance, variance - half[0], variance + half[0], 63, 0.0, "unpaired"),
                    "times": module._tested(time, time - half[1], time + half[1], 14, 0.0, "yardstick"),
                }
            )
        called = module._call(rows)
        alarms += any(row["time"] in ("slower", "faster") or row["variance"] in ("worse", "better") for row in called)
    assert alarms <= 6


def module_half(sd: float, degrees: int, chi: float) -> float:
    """Half-width of a 95% interval whose standard error is itself estimated."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.975)) * sd * math.sqrt(chi)


def sums_of(g: np.ndarray) -> Sums:
    return block_sums(g, np.zeros(g.shape[1]), np.zeros(g.shape[1]), 1.0, 0)


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((4096, 3))


def stored(folder: Path, key: str, g: np.ndarray) -> None:
    """A store beside the run with the outcome of one cell."""
    from bench.outcome import Outcome, outcome_to_bytes
    from bench.store import FILE, Store

    nothing = np.full(g.shape[1], math.nan)
    outcome = Outcome(
        sums=sums_of(g),
        truth=nothing,
        truth_se=nothing,
        **dict.fromkeys(["truth_tier", "family", "objective", "claimed", "backend", "device", "dtype"], ""),
        **dict.fromkeys(["dim", "samples", "peak_bytes", "threads"], 1),
        **dict.fromkeys(
            [
                "f_evals",
                "gradient_evals",
                "hessian_evals",
                "learn_f_evals",
                "learn_gradient_evals",
                "learn_seconds",
                "cold_s",
            ],
            0.0,
        ),
        state={},
    )
    with Store(folder / FILE, write=True) as store:
        store.add_cell(key, "", {}, {}, "done", "", outcome_to_bytes(outcome), 1.0, 1.0, "")


def measured(row: Row, g: np.ndarray, key: str) -> Row:
    from bench.statistics import total_variance

    v = total_variance(sums_of(g))
    return row | {"total_variance": v.value, "total_variance_low": v.low, "total_variance_high": v.high, "key": key}


def test_the_same_noise_is_compared_in_pairs(tmp_path: Path, cell: Make, noise: np.ndarray) -> None:
    """One percent more variance shows through the groups, and is within the intervals of the two runs."""
    runs = {}
    for name, g in (("a", noise), ("b", noise * math.sqrt(1.01))):
        folder = tmp_path / name
        folder.mkdir()
        pd.DataFrame([measured(cell(), g, name)]).to_parquet(folder / "results.parquet")
        runs[name] = folder
    unpaired = compare(runs["a"], runs["b"])
    assert words(unpaired) == [("same", "same")]
    assert unpaired.rows["variance_basis"][0] == "unpaired"
    stored(runs["a"], "a", noise)
    stored(runs["b"], "b", noise * math.sqrt(1.01))
    paired = compare(runs["a"], runs["b"])
    assert words(paired) == [("same", "worse")]
    assert paired.rows["variance_basis"][0] == "paired"
    assert paired.rows["variance_ratio"][0] == pytest.approx(1.01)
    assert paired.exit_code == 3
    frame = pd.read_parquet(runs["b"] / "results.parquet").assign(seed=1)
    frame.to_parquet(runs["b"] / "results.parquet")
    assert compare(runs["a"], runs["b"]).rows["variance_basis"][0] == "unpaired"


def test_rounding_is_not_more_variance(tmp_path: Path, cell: Make, noise: np.ndarray) -> None:
    for name, g in (("a", noise), ("b", noise * (1 + 1e-9))):
        (tmp_path / name).mkdir()
        pd.DataFrame([measured(cell(), g, name)]).to_parquet(tmp_path / name / "results.parquet")
        stored(tmp_path / name, name, g)
    assert words(compare(tmp_path / "a", tmp_path / "b")) == [("same", "same")]


def printed(found: Comparison, width: int) -> str:
    file = io.StringIO()
    Console(file=file, width=width).print(comparison_table(found))
    return file.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_table(against: Make, cells: Make, special: list[Row], width: int) -> None:
    rows = special + cells(1, 1, 6)
    text = printed(against(rows, [scaled(row, "yardstick_ratio", 2.0) for row in rows]), width)
    assert max(map(len, text.splitlines())) <= width
    assert "slower" in text
    assert "\x1b" not in text
    assert "2.00 [" in text


def test_json(against: Make, cells: Make, special: list[Row]) -> None:
    rows = special + cells(1, 1, 6)
    found = json.loads(json.dumps(against(rows, rows).as_dict(), allow_nan=False))
    assert set(found) == {"a", "b", "level", "exit_code", "rows"}
    assert set(found["rows"][0]) == set(module.COLUMNS)


def test_errors_are_sentences(tmp_path: Path, run_folder: Make, cell: Make) -> None:
    folder = run_folder([cell()])
    with pytest.raises(Refusal, match="it has no results"):
        compare(folder, tmp_path)
    (folder / "store.sqlite").write_bytes(b"not a store")
    assert compare(folder, folder).exit_code == 0  # the sums are a help, not a need
