"""Figures and report.html from stored results: whatever a run holds they are drawn, say what they show, and let nothing out."""

from __future__ import annotations

import itertools
import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bench.errors import Refusal
from bench.report import axes, figures
from bench.report import cells as stored
from bench.report.figures import write_figures
from bench.report.page import write_report

Make = Callable[..., Any]
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory, special_run: Make) -> tuple[Path, Path]:
    """The folder of a run with everything in it, and its report."""
    folder = special_run(tmp_path_factory.mktemp("report"))
    return folder, write_report(folder)


def test_names_of_the_files(drawn: tuple[Path, Path]) -> None:
    folder, _ = drawn
    names = sorted(path.name for path in (folder / "figures").iterdir())
    kinds = ["bias-variance", "coordinates", "samples", "time-error", "variance"]
    assert [name for name in names if "problem_0" in name] == [
        f"{kind}-problem_0.{suffix}" for kind in kinds for suffix in ("png", "svg")
    ]
    assert {"verdicts.png", "verdicts.svg"} <= set(names)
    assert all(re.fullmatch(r"[a-z0-9_-]+\.(png|svg)", name) for name in names)


def test_figures_are_pictures(drawn: tuple[Path, Path]) -> None:
    folder, _ = drawn
    for path in (folder / "figures").iterdir():
        if path.suffix == ".png":
            assert path.read_bytes().startswith(PNG)
        else:
            assert ElementTree.parse(path).getroot().tag.endswith("svg")


def test_the_same_results_give_the_same_bytes_and_no_leftovers(run_folder: Make, cells: Make) -> None:
    folder = run_folder(cells(1, 1, 5))
    first = {path.name: path.read_bytes() for path in write_figures(folder)}
    (folder / "figures" / "variance-gone.png").write_bytes(PNG)
    (folder / "figures" / "notes.txt").write_text("kept")
    assert {path.name: path.read_bytes() for path in write_figures(folder)} == first
    assert {path.name for path in (folder / "figures").iterdir()} == {*first, "notes.txt"}


def test_nothing_overlaps_and_nothing_is_cut_off(run_folder: Make, cells: Make) -> None:
    """Every text lies inside its figure, and no two texts cover one another, with 30 estimators."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    run = stored.read(run_folder(cells(1, 2, 30, skipped=0.1)))
    with axes.style():
        for name, figure in figures.figures(run):
            FigureCanvasAgg(figure).draw()
            found = [text for text in texts_of(figure) if text.get_text().strip() and text.get_visible()]
            boxes = [text.get_window_extent() for text in found]
            width, height = figure.bbox.size
            for text, box in zip(found, boxes, strict=True):
                inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
                assert inside, f"{name}: {text.get_text()!r} is cut off"
            for (a, one), (b, other) in itertools.combinations(zip(found, boxes, strict=True), 2):
                room = min(one.x1, other.x1) - max(one.x0, other.x0), min(one.y1, other.y1) - max(one.y0, other.y0)
                assert min(room) < 1.5, f"{name}: {a.get_text()!r} covers {b.get_text()!r}"


def texts_of(figure: Any) -> list[Any]:
    """Texts that are drawn: axes and legends with their ticks, but for those outside the limits."""
    from matplotlib.text import Text

    found = [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    for ax in figure.axes:
        found += [
            *ax.texts,
            ax.title,
            ax._left_title,
            ax.xaxis.label,
            ax.yaxis.label if ax.yaxis.get_visible() else ax.title,
        ]
        for axis in (ax.xaxis, ax.yaxis):
            if axis.get_visible():
                found += [label for label in axis.get_ticklabels() if label.get_text()]
    return [text for text in dict.fromkeys(found) if isinstance(text, Text)]


def test_every_point_has_its_intervals(run_folder: Make, cells: Make) -> None:
    """As many interval lines as points, in each direction."""
    run = stored.read(run_folder(cells(1, 1, 8, skipped=0)))
    done = run.cells.assign(short=run.cells["estimator_label"])
    with axes.style():
        for draw, directions in ((figures.bias_variance, 2), (figures.variance, 1), (figures.time_error, 3)):
            figure = draw("toy", done)
            lines = sum(len(c.get_segments()) for ax in figure.axes for c in ax.collections if is_interval(c))
            assert lines == directions * len(done), draw.__name__


def is_interval(collection: Any) -> bool:
    from matplotlib.collections import LineCollection

    return isinstance(collection, LineCollection) and collection.get_linewidths()[0] == 1.2


def test_empty_run(run_folder: Make) -> None:
    folder = run_folder([])
    assert write_figures(folder) == []
    text = write_report(folder).read_text()
    assert "no cells" in text
    assert "The run has no cells." in text


def test_one_cell(run_folder: Make, cell: Make) -> None:
    folder = run_folder([cell(verdict="unbiased")])
    kinds = {path.stem.removesuffix("-bernoulli_toy-dim-6") for path in write_figures(folder)}
    assert kinds == {"verdicts", "bias-variance", "variance", "time-error", "coordinates"}


def test_only_skipped_and_failed(run_folder: Make, cell: Make) -> None:
    folder = run_folder([cell(skip=True), cell(skip=True, status="failed", point="", reason="ValueError: no file")])
    assert [path.name for path in write_figures(folder)] == ["verdicts.png", "verdicts.svg"]
    assert "ValueError: no file" in write_report(folder).read_text()


def test_large_run_is_read_and_laid_out(run_folder: Make, cells: Make) -> None:
    """300 cells: the tables only, which need no drawing."""
    from bench.report.page import content

    run = stored.read(run_folder(cells(5, 4, 15)))
    shown = content(run, {})
    assert sum(len(table["rows"]) for problem in shown["problems"] for table in problem["tables"]) == (
        (run.cells["status"] == "done").sum()
    )
    assert len(shown["matrix"]["places"]) == 20
    assert len(shown["matrix"]["lines"]) == 15


class Page(HTMLParser):
    """What the browser would see: tags, links, ids, and the text of the tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.ids: set[str] = set()
        self.cells: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.tags.append((tag, given))
        self.open.append(tag)
        if "id" in given:
            self.ids.add(given["id"])
        if tag == "td":
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "td" in self.open:
            self.cells[-1] += data


def test_report_stands_alone(drawn: tuple[Path, Path]) -> None:
    text = drawn[1].read_text()
    page = Page(text)
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not any(tag in ("link", "iframe", "object", "embed", "base") for tag, _ in page.tags)
    for tag, given in page.tags:
        for name in ("src", "href", "action", "data", "srcset"):
            if name in given and tag != "script":
                assert given[name].startswith(("#", "data:image/png;base64,")), given[name][:80]
                assert not given[name].startswith("#") or given[name][1:] in page.ids, given[name]
        assert not any(name.startswith("on") for name in given)
    assert "url(" not in text
    assert len([tag for tag, _ in page.tags if tag == "img"]) == len(list((drawn[0] / "figures").glob("*-*.png")))


def test_report_escapes_what_plug_ins_are_called(drawn: tuple[Path, Path]) -> None:
    text = drawn[1].read_text()
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in text
    assert "a <processor>" not in text
    assert "\x1b" not in text


def test_report_says_what_matters(drawn: tuple[Path, Path]) -> None:
    text = drawn[1].read_text()
    assert "A claim is false" in text
    assert "wrong[samples=2] on bernoulli_toy[dim=6] at init" in text
    assert "no answer within 60 s" in text
    assert "bench run" in text
    assert "No bias above 1% of |truth|" in text
    assert "differs by up to 1.2%" in text


def test_every_number_in_the_tables_has_its_interval(drawn: tuple[Path, Path]) -> None:
    """Columns of figures: an interval, an end, an exact number, or nothing."""
    rows = re.findall(r"<tr>(<td class=\"name\".*?)</tr>", drawn[1].read_text(), re.DOTALL)
    assert len(rows) > 10
    interval = re.compile(r".+ \[.+, .+\]( ?\S+)?|(&lt;=|&gt;=) .+|unbounded|0(%| s)?|inf|-")
    for row in rows:
        texts = re.findall(r"<td.*?>(.*?)</td>", row, re.DOTALL)
        for column in (3, 5, 6, 7, 8, 11, 12, 13):
            assert interval.fullmatch(texts[column]), texts


def test_errors_are_sentences(tmp_path: Path, run_folder: Make, cell: Make) -> None:
    with pytest.raises(Refusal, match="is not a run folder: it has no results"):
        write_figures(tmp_path)
    folder = run_folder([cell()])
    (folder / "manifest.json").write_text("{")
    with pytest.raises(Refusal, match="cannot be read"):
        write_report(folder)
    (folder / "results.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(Refusal, match="cannot be read"):
        write_report(folder)
    pd.DataFrame({"problem": ["a"]}).to_parquet(folder / "results.parquet")
    (folder / "manifest.json").unlink()
    with pytest.raises(Refusal, match="no column 'problem_settings'"):
        write_report(folder)


def test_work_variance_adds_log_half_widths_in_quadrature(cell: Make) -> None:
    row = cell(total_variance=4.0, total_variance_low=4 / 1.3, total_variance_high=4 * 1.3)
    row |= {"ns_per_estimate": 1e9, "ns_per_estimate_low": 1e9 / 1.4, "ns_per_estimate_high": 1e9 * 1.4}
    found = stored.described(pd.DataFrame([row])).iloc[0]
    factor = math.exp(math.hypot(math.log(1.3), math.log(1.4)))
    assert found["work_variance"] == pytest.approx(4.0)
    assert found["work_variance_low"] == pytest.approx(4.0 / factor)
    assert found["work_variance_high"] == pytest.approx(4.0 * factor)


def test_work_variance_at_its_edges(special: list[dict[str, Any]]) -> None:
    rows = stored.described(pd.DataFrame(special)).set_index("estimator")
    assert rows.loc["exact", ["work_variance", "work_variance_low", "work_variance_high"]].tolist() == [0, 0, 0]
    assert rows.loc["heavy", "work_variance_high"] == math.inf
    assert 0 < rows.loc["heavy", "work_variance_low"] < rows.loc["heavy", "work_variance"]
    assert rows.loc["untimed", ["work_variance", "work_variance_low", "work_variance_high"]].isna().all()


def test_log_axis_has_a_place_for_zero_and_shows_where_an_interval_goes_on() -> None:
    scale = axes.scale_of(np.array([0.0, 1.0, 3.0]), np.array([0.0, 0.5, 2.0]), np.array([0.2, 2.0, math.inf]))
    assert scale.zero is not None
    assert scale.lowest < scale.zero < scale.first <= 0.2
    assert scale.at(np.array([0.0, 1.0, math.inf])).tolist() == [scale.zero, 1.0, scale.highest]
    places, texts = scale.ticks()
    assert (places[0], texts[0]) == (scale.zero, "0")
    positive = axes.scale_of(np.array([1.0]), np.array([0.9]), np.array([1.1]))
    assert positive.zero is None
    assert positive.lowest < 0.9 < 1.1 < positive.highest


def test_rounding_does_not_stretch_an_axis() -> None:
    value, high = np.array([1e-13, 2.0]), np.array([math.inf, 3.0])
    scale = axes.scale_of(value, np.array([0.0, 1.0]), high, floor=1e-3)
    assert scale.first > 0.5
    assert scale.at(value).tolist() == [scale.zero, 2.0]
    assert scale.ticks()[1][0] == "≤0.001"
    exact = axes.scale_of(np.array([0.0, 2.0]), np.array([0.0, 1.0]), high, floor=1e-3)
    assert exact.ticks()[1][0] == "0"


@pytest.mark.parametrize(
    "values", [[0.0], [1e-300, 1e300], [5.0], [1.0, 1.0001], [3e-7, 4e-7], [math.nan], [1e4, 1e5], [0.0, math.inf]]
)
def test_axes_exist_for_any_values(values: list[float]) -> None:
    found = np.array(values)
    places, texts = axes.scale_of(found, found, found).ticks()
    assert 1 <= len(places) == len(texts) <= 8
    assert len(set(texts)) == len(texts)


def test_labels_are_spread_without_disorder() -> None:
    wanted = np.array([0.1, 0.1, 0.12, 2.9, 1.5])
    found = axes.spread_out(wanted, 0.2, 3.0)
    ordered = found[np.argsort(wanted, kind="stable")]
    assert (np.diff(ordered) >= 0.2 - 1e-12).all()
    assert ordered[0] >= 0
    assert ordered[-1] <= 3
    assert found[4] == pytest.approx(1.5)  # nothing is near it: it stays
    crowded = axes.spread_out(np.zeros(50), 0.2, 3.0)
    assert np.allclose(np.diff(crowded), 3.0 / 49)


def test_front_is_what_no_other_beats_in_both() -> None:
    times, variances = np.array([1.0, 2.0, 3.0, 4.0, 2.0]), np.array([5.0, 3.0, 4.0, 1.0, 6.0])
    assert figures.front(times, variances).tolist() == [0, 1, 3]
    assert figures.front(times, np.array([math.inf, 3.0, 4.0, 1.0, 6.0])).tolist() == [1, 3]


def test_heat_map_shows_the_largest_of_neighbours() -> None:
    z = np.zeros(200)
    z[17], z[18] = -9.0, 3.0
    rows = pd.DataFrame({"short": "a", "coordinate": range(200), "z": z})
    table, each = figures.table_of(rows)
    assert each == 4
    assert table.shape == (1, 50)
    assert table.to_numpy()[0, 4] == -9.0


def test_marks_of_the_heat_map_are_rare_by_chance() -> None:
    assert figures.beyond_chance(1) == pytest.approx(2.576, abs=1e-3)
    assert figures.beyond_chance(1000) == pytest.approx(4.417, abs=1e-3)  # 1% / 1000 on two sides


def test_text_the_font_has_not_and_dollars() -> None:
    assert axes.drawable("漢 $x$") == "? $x$"
    assert axes.wide("mm") == pytest.approx(2 * axes.wide("m"))
