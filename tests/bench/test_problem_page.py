"""The pages of the problems: from the record, with a picture whose tangents are the true gradient."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from matplotlib.figure import Figure

from bench.cli import cli, outcome_of
from bench.report.axes import style
from bench.report.problem_picture import draw_objective, images, line_of, picture
from problems import PROBLEMS
from problems.bernoulli_toy import bernoulli_toy
from problems.tiny_sbn import tiny_sbn
from problems.truth import enumerated_objective, true_gradient

PAGES = Path(__file__).parents[2] / "docs" / "problems"


@pytest.mark.parametrize("name", list(PROBLEMS))
def test_every_problem_has_its_page_and_its_picture(name):
    """As `python -m bench pages` makes them; what a docstring says now is what its page says."""
    page = (PAGES / f"{name}.md").read_text("utf-8")
    assert page.startswith(f"# {name}\n\n{PROBLEMS.summary(name)}\n")
    assert (PAGES / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    summary = PROBLEMS.summary(name).replace("|", r"\|")
    assert f"[{name}]({name}.md) | {summary} |" in (PAGES / "README.md").read_text("utf-8")


def test_a_page_is_what_show_says(tmp_path):
    out = tmp_path / "pages"
    found = CliRunner().invoke(
        cli, ["pages", "-p", "tiny_sbn[hidden=2,data=10]", "-p", "bernoulli_toy", "--out", str(out)]
    )
    assert found.exit_code == 0, found.output
    assert sorted(p.name for p in out.iterdir()) == [
        "bernoulli_toy.md",
        "bernoulli_toy.png",
        "tiny_sbn-data-10-hidden-2.md",
        "tiny_sbn-data-10-hidden-2.png",
    ]
    page = (out / "tiny_sbn-data-10-hidden-2.md").read_text("utf-8")
    assert "| family | bernoulli |\n| dim | 2 |" in page
    assert "| data | 10 |" in page
    assert "| init | enumeration, length " in page
    assert "`disarm`" in page


PLUGIN = """
import torch
from problems import Bernoulli, Problem

def bare(path="x"):
    return Problem(name="bare", family=Bernoulli, theta=torch.zeros(2).double(), f=lambda x: x.sum(-1), settings={"path": path},
                   source="|a| and b")

PROBLEMS = {"bare": bare}
"""


def test_a_problem_without_a_word_of_its_own_and_with_a_path_for_a_setting(tmp_path):
    """Its page lies in the folder whatever the path, and its table has two columns."""
    (tmp_path / "plugin.py").write_text(PLUGIN)
    out = tmp_path / "pages"
    wanted = ["pages", "--plugin", str(tmp_path / "plugin.py"), "-p", "bare[path=../a.npz]", "--out", str(out)]
    found = CliRunner().invoke(cli, wanted)
    assert found.exit_code == 0, found.output
    assert sorted(p.name for p in out.iterdir()) == ["bare-path-.._a.npz.md", "bare-path-.._a.npz.png"]
    assert r"| source | \|a\| and b |" in (out / "bare-path-.._a.npz.md").read_text("utf-8")


def test_what_is_no_problem_is_refused(tmp_path, capsys):
    assert outcome_of(["pages", "-p", "bernouli_toy", "--out", str(tmp_path / "pages")]) == 2
    assert "did you mean 'bernoulli_toy'" in capsys.readouterr().err
    assert not (tmp_path / "pages").exists()


def test_the_line_runs_from_the_first_point_to_the_last_or_along_the_gradient():
    toy = bernoulli_toy(dim=3)
    line = line_of(toy)
    assert line.names == ("init", "converged")
    assert torch.equal(line.at(1.0), toy.at("converged").theta)
    alone = bernoulli_toy(dim=3)
    object.__setattr__(alone, "points", {})
    line = line_of(alone)
    truth = true_gradient(alone).gradient
    assert torch.allclose(line.end - line.start, 2 * truth / truth.norm())


@pytest.mark.parametrize("problem", [bernoulli_toy(dim=3), tiny_sbn(hidden=2, data=2)], ids=lambda p: p.name)
def test_the_tangents_touch_the_curve(problem):
    """Their slope is the central difference of the objective, summed over all states, along the line."""
    ax = Figure().add_subplot()
    with style():
        draw_objective(ax, problem)
    line, names, h = line_of(problem), problem.point_names(), 1e-4
    for tangent, place in zip(ax.lines[1:], range(len({names[0], names[-1]})), strict=True):
        t, level = tangent.get_data()
        assert t.mean() == pytest.approx(place)
        ahead, back = (summed(problem, line.at(place + step)) for step in (h, -h))
        assert (level[1] - level[0]) / (t[1] - t[0]) == pytest.approx((ahead - back) / (2 * h), rel=1e-6)
        assert np.interp(place, *ax.lines[0].get_data()) == pytest.approx(level.mean(), rel=1e-9)
        assert level.mean() == pytest.approx(summed(problem, line.at(place)), rel=0.02)


def summed(problem, place):
    """The objective by enumeration, at a place of the line."""
    cut = problem.theta.numel()
    model = None if problem.model is None else place[cut:]
    return float(enumerated_objective(problem, place[:cut].reshape(problem.theta.shape), model, problem.data).sum())


def test_images_are_shown_where_the_data_are_some():
    assert images(tiny_sbn(hidden=2, data=3)).shape == (3, 4, 4)
    assert images(bernoulli_toy(dim=3)) is None
    with style():
        assert len(picture(tiny_sbn(hidden=2, data=2)).axes) == 3
