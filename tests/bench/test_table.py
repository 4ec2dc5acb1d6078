"""Numbers as text, and the console table: nothing without its interval, nothing lost or misread at any width."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from bench.report import cells as stored
from bench.report import numbers
from bench.report.table import results_table

INF, NAN = math.inf, math.nan


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (0.0, "0"),
        (1.0, "1.00"),
        (0.01234, "0.0123"),
        (12.345, "12.3"),
        (999.6, "1000"),
        (1234.0, "1234"),
        (1.2345e-5, "1.23e-5"),
        (9.999e-4, "0.00100"),
        (123456.0, "1.23e5"),
        (-0.5, "-0.500"),
        (NAN, "-"),
    ],
)
def test_three_significant_digits(x: float, text: str) -> None:
    assert numbers.number(x) == text


@pytest.mark.parametrize(
    ("figure", "text"),
    [
        ((1.234, 1.1, 1.4), "1.23 [1.10, 1.40]"),
        ((1.234e-5, 0.98e-5, 1.5e-5), "1.23e-5 [0.98e-5, 1.50e-5]"),
        ((1.234, 1.1, INF), ">= 1.10"),
        ((1.234, 0.0, INF), "unbounded"),
        ((1.234, NAN, INF), "unbounded"),
        ((NAN, NAN, NAN), "-"),
        ((0.0, 0.0, 0.0), "0"),
        ((0.0, 0.0, 0.0234), "0 [0, 0.0234]"),
        ((0.25, 0.0, 0.254), "<= 0.254"),
        ((5.0, 1e-6, 10.0), "5.00 [1e-6, 10.00]"),
        ((-0.1, -0.3, 0.1), "-0.100 [-0.300, 0.100]"),
        ((INF, INF, INF), "inf"),
    ],
)
def test_interval_has_the_digits_of_its_value(figure: tuple[float, float, float], text: str) -> None:
    assert numbers.bounded(*figure) == text


def test_margin_is_the_larger_side_rounded_up() -> None:
    assert numbers.margin(1.0, 0.99, 1.005) == "1.00 ±1.1%"
    assert numbers.margin(1.0, 0.8, 1.1) == "1.00 ±25%"
    assert numbers.margin(1.0, 0.4, 1.1) == "1.00 [0.40, 1.10]"
    assert numbers.margin(1.0, 0.9, INF) == ">= 0.900"
    assert numbers.margin(0.0, 0.0, 0.0) == "0"


def test_margin_never_understates() -> None:
    for k in range(1, 400):
        high = 1 + 0.0023 * k
        stated = float(numbers.margin(1.0, 1 / high, high).removeprefix("1.00 ±").removesuffix("%"))
        assert stated >= 100 * (high - 1) - 1e-6


def test_what_can_be_said_of_a_bias() -> None:
    assert numbers.at_most(0.0, 0.0, 0.45, "%") == "<= 0.450%"
    assert numbers.at_most(0.3, 0.1, 0.5, "%") == "0.300 [0.100, 0.500]%"
    assert numbers.at_most(0.3, 0.1, 0.5, "%", brief=True) == "[0.100, 0.500]%"
    assert numbers.at_most(0.3, 0.0, INF, "%") == "unbounded"
    assert numbers.at_most(0.0, 0.0, 0.0, "%") == "0%"
    assert numbers.at_most(NAN, NAN, NAN, "%") == "-"


@pytest.mark.parametrize(
    ("ns", "text"),
    [(0.5, "0.500 ns"), (12.3, "12.3 ns"), (1234.0, "1.23 us"), (4.5e7, "45.0 ms"), (2e9, "2.00 s"), (NAN, "-")],
)
def test_units_of_time(ns: float, text: str) -> None:
    assert numbers.duration(ns, ns, ns) == text


def test_counts() -> None:
    assert [numbers.count(x) for x in (4096, 1.3e7, 3.607, NAN)] == ["4,096", "1.3e7", "3.61", "-"]
    assert [numbers.counted(x, "cell") for x in (0, 1, 2)] == ["0 cells", "1 cell", "2 cells"]


def test_settings_are_read_in_every_form() -> None:
    for settings in (
        "samples=2,form=sum",
        "samples=2, form=sum",
        '{"samples": 2, "form": "sum"}',
        "[samples=2,form=sum]",
    ):
        assert stored.full("rloo", settings) == "rloo[samples=2,form=sum]"
    assert stored.full("walk", "steps=(1, 2),rate=0.5") == "walk[steps=(1, 2),rate=0.5]"
    assert stored.full("disarm", "") == stored.full("disarm", None) == "disarm"


def test_long_settings_keep_what_tells_cells_apart() -> None:
    long = "clip=0.123456789,samples={},schedule=constant"
    found = stored.labels(pd.Series(["a", "a", "b"]), pd.Series([long.format(2), long.format(4), long.format(2)]))
    assert found == ["a[samples=2]", "a[samples=4]", "b"]


def printed(rows: list[dict[str, Any]] | pd.DataFrame, width: int, encoding: str = "utf-8") -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    Console(file=file, width=width).print(results_table(pd.DataFrame(rows)))
    file.flush()
    file.seek(0)
    return file.read()


@pytest.mark.parametrize("width", [80, 100, 120, 150, 200])
def test_reads_at_every_width(width: int, special: list[dict[str, Any]], cells: Callable[..., Any]) -> None:
    text = printed(special + cells(2, 2, 14), width)
    assert max(map(len, text.splitlines())) <= width
    assert "\x1b" not in text
    assert "bernoulli_toy[dim=6] at init: Expectation, 6 parameters, truth: enumeration" in " ".join(text.split())
    assert "disarm[samples=2]" in text
    assert "biased !" in text
    assert "claims unbiased" in " ".join(text.split())
    assert "heavy tail" in text
    assert ">= " in text
    assert "67 cells: " in text


def test_line_of_a_cell(cell: Callable[..., Any]) -> None:
    row = cell(estimator_settings="samples=2", verdict="undecided", claimed="unbiased", replicates_needed=1.3e7)
    row |= {"bias_norm": 0.0, "bias_norm_low": 0.0, "bias_norm_high": 0.0258, "gradient_norm": 1.0, "tolerance": 0.01}
    row |= {"total_variance": 4.0, "total_variance_low": 3.9, "total_variance_high": 4.1}
    row |= {"snr": 0.25, "snr_low": 0.244, "snr_high": 0.256, "f_evals": 2.0, "gradient_evals": 1.0}
    row |= {"ns_per_estimate": 1234.0, "ns_per_estimate_low": 1200.0, "ns_per_estimate_high": 1300.0}
    line = " ".join(printed([row], 180).splitlines()[2].split())
    assert line == (
        "rloo[samples=2] unbiased undecided <= 2.58% 4.00 [3.90, 4.10] 0.250 [0.244, 0.256] 2 + 1 grad "
        "1.23 [1.20, 1.30] us 1.3e7"
    )


@pytest.mark.parametrize(
    ("figure", "text"),
    [
        ((2.0, 1.9, 2.2), "46 to 56%"),
        ((2.0, 0.0, 0.1), "<= 2.6%"),
        ((3.9, 3.7, 4.4), ">= 90%"),
        ((2.0, 0.0, INF), "unknown"),
        ((0.02, 0.01, 0.03), "0.24 to 0.77%"),
    ],
)
def test_the_part_that_is_of_the_rows_drawn(cell: Callable[..., Any], figure: tuple[float, ...], text: str) -> None:
    """Each end over the total's other end; a column only where some cell draws rows."""
    row = cell(estimator_settings="samples=2") | {
        "total_variance": 4.0,
        "total_variance_low": 3.9,
        "total_variance_high": 4.1,
    }
    drawn = {f"subsampling_variance{end}": value for end, value in zip(stored.ENDS, figure, strict=True)}
    lines = printed([row | drawn], 180).splitlines()
    assert "of rows" in lines[1]
    assert text in " ".join(lines[2].split())
    assert "of rows" not in printed([row], 180)


def test_what_has_no_column_has_a_line(cell: Callable[..., Any]) -> None:
    """At 80 columns nothing is lost: the interval, what an undecided cell needs, and the note."""
    row = cell(estimator="a_rather_long_name_of_an_estimator", verdict="undecided", replicates_needed=1.3e7)
    text = " ".join(printed([row | {"trusted": False, "tail_index": 1.2}], 80).split())
    assert re.search(r"4\.00 ±\d\.\d%", text)
    assert "1.3e7" in text
    assert "a_rather_long_name_of_an_estimator[samples=2]: heavy tail" in text


@pytest.mark.parametrize("width", [80, 90, 100])
def test_no_number_is_cut(cell: Callable[..., Any], width: int) -> None:
    """Every figure is whole, whatever is left out for it."""
    row = cell(verdict="truth-limited", claimed="consistent", gradient_evals=3.0, f_evals=1000.0, params=6)
    row |= {
        "bias_norm": 0.1234,
        "bias_norm_low": 0.1112,
        "bias_norm_high": 0.1345,
        "gradient_norm": 100.0,
        "tolerance": 1.0,
    }
    row |= {"total_variance": 1.23e-5, "total_variance_low": 0.5e-5, "total_variance_high": 3e-5}
    row |= {"ns_per_estimate": 123.0, "ns_per_estimate_low": 60.0, "ns_per_estimate_high": 400.0}
    line = printed([row], width)
    for text in ("truth-limited", "[0.111, 0.135]%", "1.23e-5 ±150%", "123 ns ±230%"):
        assert text in line


def test_bias_where_the_truth_is_zero_is_relative_to_the_standard_deviation(cell: Callable[..., Any]) -> None:
    row = cell(
        gradient_norm=1e-18, total_variance=4.0, tolerance=0.02, bias_norm=0.0, bias_norm_low=0.0, verdict="unbiased"
    )
    described = stored.described(pd.DataFrame([row | {"bias_norm_high": 0.01}])).iloc[0]
    assert described["relative_bias_high"] == pytest.approx(0.5)  # 0.01 of sqrt(4), in percent
    assert described["note"] == "truth is 0: bias in % of sd"


def test_skipped_cells_are_one_line_a_reason(cell: Callable[..., Any]) -> None:
    rows = [
        cell(
            skip=True,
            estimator=name,
            estimator_settings="",
            reason=f"{name} is for normal variables; toy's are bernoulli",
        )
        for name in ("pathwise", "measure_valued")
    ]
    rows += [
        cell(
            skip=True,
            estimator="rebar",
            estimator_settings="",
            reason="rebar needs 2 derivatives of f; toy offers none",
        )
    ]
    text = printed(rows, 120)
    assert "skipped pathwise, measure_valued: is for normal variables\n" in re.sub(" +\n", "\n", text)
    assert "skipped rebar: needs 2 derivatives of f\n" in re.sub(" +\n", "\n", text)


def test_names_are_text_and_not_markup(special: list[dict[str, Any]]) -> None:
    text = " ".join(printed(special, 200).split())
    assert """FAILED <script>alert('x')</script> [bold]&" [31m[samples=2]: ValueError: <script>""" in text


def test_plain_ascii_where_the_terminal_has_no_more(cells: Callable[..., Any]) -> None:
    text = printed(cells(1, 1, 12), 100, encoding="ascii")
    assert "+-" in text


def test_empty_run(run_folder: Callable[..., Any]) -> None:
    rows = stored.read(run_folder([])).cells
    assert printed(rows, 80).split() == ["no", "cells."]


def test_nothing_measured(cell: Callable[..., Any]) -> None:
    text = printed(
        [cell(skip=True), cell(skip=True, point="", status="failed", reason="ValueError: no such file")], 100
    )
    assert "1 skipped, 1 failed" in text
    assert "FAILED rloo[samples=2]: ValueError: no such file" in text
