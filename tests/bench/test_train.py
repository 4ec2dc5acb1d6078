"""Training makes the points it says: the same ones each time, with half of the improvement at `mid`."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from bench import train
from bench.plugins import catalogue
from bench.selector import choose
from problems import points
from problems.base import Point, Problem
from problems.families.bernoulli import Bernoulli
from problems.families.normal import Normal
from problems.objectives import Elbo, InclusiveKL
from problems.points import read_points, stored_points
from problems.settings import place_text

INIT = Point(torch.zeros(2, 1, dtype=torch.float64))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(points, "FOLDER", tmp_path)
    return tmp_path


def fit(**other: object) -> Problem:
    """KL(q || N(3, 1)): the optimum is mu = 3, log sigma = 0."""
    return Problem(
        "fit", Normal, INIT.theta, lambda x: -0.5 * ((x - 3) ** 2).sum(-1), Elbo(), smooth=2, relaxed=True, **other
    )


def quiet(text: str) -> None:
    pass


def test_points_lie_where_they_are_said_to() -> None:
    said: list[str] = []
    train.make_points(fit(), said.append, steps=200, rate=0.05, replicates=4)
    found = stored_points("fit", {}, INIT)
    assert list(found) == ["init", "mid", "converged"]
    torch.testing.assert_close(found["converged"].theta, torch.tensor([[3.0], [0.0]]).double(), atol=0.1, rtol=0)
    L = [
        -0.5 * (float(p.theta[0] - 3) ** 2 + float((2 * p.theta[1]).exp())) + float(p.theta[1]) for p in found.values()
    ]
    assert 0.45 < (L[1] - L[0]) / (L[2] - L[0]) < 0.65
    record = read_points("fit")[""]["mid"]["record"]
    assert record["estimator"] == "pathwise"
    assert 0 < record["steps"] < 200
    assert record["objective"] == pytest.approx(L[1] + 0.5 * math.log(2 * math.pi * math.e), abs=0.2)
    assert any("converged" in line for line in said)


def test_the_same_seed_gives_the_same_file_and_another_seed_another(folder: Path) -> None:
    texts = []
    for seed in (0, 0, 1):
        train.make_points(fit(), quiet, steps=100, rate=0.05, replicates=4, seed=seed)
        texts.append((folder / "fit.json").read_text())
    assert texts[0] == texts[1] != texts[2]


def test_a_model_is_trained_along_with_theta() -> None:
    """p -> 1 and the model with it, from a start where the model leans that way."""
    init = Point(torch.full((2,), 2.0, dtype=torch.float64), torch.full((2,), 0.6, dtype=torch.float64))
    problem = Problem(
        "tilt",
        Bernoulli,
        init.theta,
        lambda x, model: -((x - model) ** 2).sum(-1),
        model=init.model,
        points={"init": init},
    )
    train.make_points(problem, quiet, steps=300, rate=0.05, replicates=4)
    converged = stored_points("tilt", {}, init)["converged"]
    assert converged.model is not None
    assert (converged.theta.sigmoid() > 0.95).all()
    assert (converged.model > 0.9).all()


def test_a_cost_may_be_descended() -> None:
    theta = torch.zeros(3, dtype=torch.float64)
    problem = Problem("cost", Bernoulli, theta, lambda x: (x - 0.2).square().sum(-1))
    train.make_points(problem, quiet, steps=100, rate=0.05, replicates=4, maximise=False)
    assert (stored_points("cost", {}, Point(theta))["converged"].theta < -1).all()
    train.make_points(problem, quiet, steps=100, rate=0.05, replicates=4)
    assert (stored_points("cost", {}, Point(theta))["converged"].theta > 1).all()


def test_the_estimator_is_the_first_that_fits() -> None:
    assert train.training_estimator(fit()).name == "pathwise"
    theta = torch.zeros(3, dtype=torch.float64)
    assert train.training_estimator(Problem("bits", Bernoulli, theta, lambda x: x.sum(-1))).name == "rloo"
    wake = Problem("wake", Bernoulli, theta, lambda x: x.sum(-1), InclusiveKL())
    with pytest.raises(
        ValueError, match=r"wake cannot be trained: none of pathwise, .* is an unbiased estimator for it"
    ):
        train.training_estimator(wake)


STORED = [
    (path.stem, entries["mid"]["record"]["command"].split('"')[1])
    for path in sorted(points.FOLDER.glob("*.json"))
    for entries in read_points(path.stem).values()
]


@pytest.mark.parametrize(("name", "selector"), STORED)
def test_stored_points_still_have_the_objective_that_was_recorded(
    name: str, selector: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change of the problem (its data, its density, the order of its weights) makes its stored points stale."""
    monkeypatch.undo()
    (choice,) = choose(selector, catalogue().problems, "problem")
    problem = catalogue().problems[name].build(choice.settings)
    for point, entry in read_points(name)[place_text(problem.settings)].items():
        record = entry["record"]
        found, se = train.objective_at(problem.at(point), record["seed"])
        assert found == pytest.approx(record["objective"], abs=max(1e-5 * abs(found), 0.05 * se))


def test_a_run_that_improves_nothing_is_refused() -> None:
    problem = Problem("flat", Bernoulli, torch.zeros(2, dtype=torch.float64), lambda x: 0 * x.sum(-1))
    with pytest.raises(ArithmeticError, match="no improvement"):
        train.make_points(problem, quiet, steps=20)


def test_a_run_that_diverges_is_refused() -> None:
    problem = Problem("steep", Normal, INIT.theta, lambda x: (x**4).exp().sum(-1), smooth=2, relaxed=True)
    with pytest.raises(ArithmeticError, match=r"steep: the gradient of step \d+ is not finite"):
        train.make_points(problem, quiet, steps=100, rate=1.0)
