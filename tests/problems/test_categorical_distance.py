"""The distance of categories: its closed form by two ways, its two continuations, and who has no variance on it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.conformance import check, failures
from bench.evaluate import gradients, prepare
from estimators import ESTIMATORS
from estimators.kernels import cpu, plainly
from estimators.kernels.backend import plain
from estimators.kernels.lift import kit
from problems.categorical_distance import categorical_distance, draws
from problems.truth import true_gradient


@pytest.mark.parametrize("form", ["value", "table"])
@pytest.mark.parametrize(("dim", "categories"), [(6, 3), (3, 10)])
@pytest.mark.parametrize("point", ["init", "mid", "converged"])
def test_closed_form_is_enumeration(dim: int, categories: int, form: str, point: str) -> None:
    problem = categorical_distance(dim, categories, form).at(point)
    own, enumerated = true_gradient(problem), true_gradient(replace(problem, exact=None))
    assert own is not None
    assert enumerated is not None
    assert (own.tier, enumerated.tier) == ("closed form", "enumeration")
    torch.testing.assert_close(own.gradient, enumerated.gradient, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(("dim", "categories"), [(12, 3), (6, 10), (3, 100)])
def test_closed_form_at_the_paper_s_sizes(dim: int, categories: int, differences: Callable[..., Tensor]) -> None:
    """sum_d sum_c softmax(theta_d)_c |c - b_d| in plain Python."""
    b, start = draws(dim, categories)

    def L(theta: list[float]) -> float:
        total = 0.0
        for d in range(dim):
            weights = [math.exp(t) for t in theta[d * categories : (d + 1) * categories]]
            total += sum(w * abs(c - b[d]) for c, w in enumerate(weights)) / sum(weights)
        return total

    truth = true_gradient(categorical_distance(dim, categories))
    assert truth is not None
    torch.testing.assert_close(truth.gradient, differences(L, start.flatten().tolist()), rtol=0, atol=1e-7)


def test_f_by_hand_and_off_the_support() -> None:
    """X = (2, 0) to b is |2 - b_0| + |b_1|; half way between 0 and 2 the value is 1, the table's mean another."""
    value, table = categorical_distance(2, 3), categorical_distance(2, 3, "table")
    b = draws(2, 3)[0]
    x = torch.tensor([[0.0, 0, 1], [1, 0, 0]]).double()
    assert float(value.f(x)) == float(table.f(x)) == abs(2 - b[0]) + b[1]
    half = torch.tensor([[0.5, 0, 0.5], [1, 0, 0]]).double()
    assert float(value.f(half)) == abs(1 - b[0]) + b[1]
    assert float(table.f(half)) == (b[0] + 2 - b[0]) / 2 + b[1]


def test_points_raise_the_target() -> None:
    problem = categorical_distance(4, 5)
    b = torch.from_numpy(draws(4, 5)[0]).long()[:, None]
    for name, probability in (("mid", 0.5), ("converged", 0.9)):
        p = problem.points[name].theta.softmax(-1).gather(-1, b)
        torch.testing.assert_close(p, torch.full_like(p, probability))


@pytest.mark.parametrize("name", ["local_expectation", "indecater"])
def test_what_varies_one_site_at_a_time_has_no_variance(name: str) -> None:
    problem = categorical_distance(6, 4)
    truth = true_gradient(problem)
    assert truth is not None
    g = gradients(prepare(ESTIMATORS[name](), problem), range(64))
    torch.testing.assert_close(g, truth.gradient.expand(64, -1), rtol=0, atol=1e-12)
    assert float(gradients(prepare(ESTIMATORS["rloo"](), problem), range(64)).var(0).sum()) > 0.1


@pytest.mark.parametrize(("form", "unbiased"), [("value", False), ("table", True)])
def test_the_continuation_decides_whether_straight_through_is_biased(form: str, unbiased: bool) -> None:
    """|z| of every coordinate below 5 (a chance of 1e-5), or one above 20; the truth is the same."""
    problem = categorical_distance(3, 4, form)
    truth = true_gradient(problem)
    assert truth is not None
    g = gradients(prepare(ESTIMATORS["straight_through"](), problem), range(2**14))
    rounding = 1e-14
    z = float(((g.mean(0) - truth.gradient).abs() / (g.std(0) / 2**7).clamp(min=rounding)).max())
    assert z < 5 if unbiased else z > 20


@pytest.mark.parametrize("name", ["reinforce", "rloo", "arsm", "unordered_set", "rebar", "muprop"])
def test_estimators_of_different_kinds_reach_the_truth(name: str) -> None:
    """Holm at 1e-5 over the points; the other checks of the public suite as well."""
    assert failures(check(ESTIMATORS[name](), [categorical_distance(2, 3)], replicates=8192, level=1e-5)) == []


@pytest.mark.parametrize(("dim", "categories"), [(1, 2), (4, 3), (2, 20)])
def test_lanes_are_f_its_gradient_and_its_moved_points(dim: int, categories: int) -> None:
    """At points of the support, where the slope may be nil, and off it."""
    problem, L = categorical_distance(dim, categories), 4
    assert problem.lanes is not None
    model = problem.lanes(kit(plain(), L, 0))
    noise = torch.randn(L, dim, categories, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    for x in (noise, problem.bind(problem.theta).sample(noise)):
        lanes, out, slope = np.moveaxis(x.numpy(), 0, -1).copy(), np.empty(L), np.empty((dim, categories, L))
        c = SimpleNamespace(room=np.full((model.rooms, L), np.nan))
        leaf = x.clone().requires_grad_()
        (df,) = torch.autograd.grad(problem.f(leaf).sum(), leaf)
        model.f(out, lanes, c)
        assert model.df is not None
        model.df(slope, lanes, c)
        np.testing.assert_allclose(out, problem.f(x), rtol=1e-12)
        np.testing.assert_allclose(slope, np.moveaxis(df.numpy(), 0, -1), rtol=1e-12, atol=1e-12)
        assert model.begin is not None
        assert model.moved is not None
        model.begin(lanes, c)
        for d in range(dim):
            v = np.arange(L) % categories
            moved = x.clone()
            moved[:, d] = torch.eye(categories).double()[v]
            model.moved(out, lanes, d, v.astype(float), c)
            np.testing.assert_allclose(out, problem.f(moved), rtol=1e-11, atol=1e-11)


def test_kernels_and_torch_take_the_same_slope_where_f_is_bent() -> None:
    """Straight-through at samples of which half lie on the bend; the kernel's functions as plain Python."""
    trial = prepare(ESTIMATORS["straight_through"](), categorical_distance(3, 3).at("mid"))
    kernel = cpu.kernel(trial.estimator, trial.problem, None, trial.key, 0)
    found = plainly.gradients(kernel.pair, kernel.tables, kernel.key, kernel.tag, 16, 0)
    np.testing.assert_allclose(found, gradients(trial, range(16)).numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", ["value", "table"])
def test_scalar_form_is_f(form: str) -> None:
    problem = categorical_distance(3, 4, form)
    x = torch.randn(4, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert problem.scalar_f is not None
    assert [problem.scalar_f(point) for point in x.tolist()] == pytest.approx(problem.f(x).tolist(), rel=1e-13)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"dim": 0}, r"categorical_distance\[dim=0\]: dim must be at least 1"),
        ({"categories": 1}, r"categorical_distance\[categories=1\]: categories must be at least 2"),
        ({"form": "soft"}, r"categorical_distance\[form=soft\]: form is value or table"),
    ],
)
def test_settings_it_cannot_take(settings: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        categorical_distance(**settings)
