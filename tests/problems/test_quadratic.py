"""The quadratic's closed form against enumeration, and against differences of E f written as sums over pairs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from estimators.kernels.backend import plain
from estimators.kernels.lift import kit
from problems.base import Problem
from problems.quadratic import coefficients, quadratic
from problems.truth import true_gradient


@pytest.mark.parametrize("settings", [{"dim": 5}, {"dim": 3, "family": "categorical", "categories": 4}])
@pytest.mark.parametrize("point", ["init", "mid", "converged"])
def test_closed_form_is_enumeration(settings: dict, point: str) -> None:
    problem = quadratic(**settings).at(point)
    own, enumerated = true_gradient(problem), true_gradient(replace(problem, exact=None))
    assert own is not None
    assert enumerated is not None
    assert (own.tier, enumerated.tier) == ("closed form", "enumeration")
    torch.testing.assert_close(own.gradient, enumerated.gradient, rtol=1e-11, atol=1e-12)


def test_closed_form_at_a_dimension_beyond_enumeration(differences: Callable[..., Tensor]) -> None:
    """E x'Ax + c'x = sum_{i != j} A_ij p_i p_j + sum_i (A_ii + c_i) p_i, pair by pair."""
    D = 25
    problem = quadratic(dim=D).at("mid")
    A, c = coefficients(D, D)

    def L(theta: list[float]) -> float:
        p = [1 / (1 + math.exp(-t)) for t in theta]
        pairs = sum(A[i, j] * p[i] * p[j] for i in range(D) for j in range(D) if i != j)
        return float(pairs + sum((A[i, i] + c[i]) * p[i] for i in range(D)))

    truth = true_gradient(problem)
    assert truth is not None
    torch.testing.assert_close(truth.gradient, differences(L, problem.theta.tolist()), rtol=0, atol=1e-8)


def test_coefficients_are_coupled_and_repeat() -> None:
    A, c = coefficients(6, 6)
    assert np.array_equal(A, A.T)
    assert (np.abs(A) > 1e-3).all()
    assert np.array_equal(A, coefficients(6, 6)[0])
    assert c.shape == (6,)


@pytest.mark.parametrize("settings", [{"dim": 10}, {"dim": 3, "family": "categorical"}])
def test_converged_points_to_a_state_that_no_single_change_improves(settings: dict) -> None:
    problem = quadratic(**settings)
    state = (problem.points["converged"].theta > 0).double()
    choices = [[0.0], [1.0]] if state.ndim == 1 else torch.eye(3).tolist()
    best = float(problem.f(state))
    for d, choice in itertools.product(range(len(state)), choices):
        changed = state.clone()
        changed[d] = torch.tensor(choice).squeeze()
        assert float(problem.f(changed)) >= best - 1e-12


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"dim": 0}, r"quadratic\[dim=0\]: dim must be at least 1"),
        ({"family": "normal"}, r"quadratic\[family=normal\]: family is bernoulli or categorical"),
        ({"categories": 1}, r"quadratic\[categories=1\]: categories must be at least 2"),
    ],
)
def test_settings_it_cannot_take(settings: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        quadratic(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"dim": 5},
        {"dim": 34},
        *({"dim": D, "family": "categorical", "categories": C} for D, C in ((2, 3), (9, 2), (3, 20))),
    ],
)
def test_lanes_are_f_its_gradient_and_its_moved_points(settings: dict) -> None:
    problem, L = quadratic(**settings), 4
    model = quadratic_lanes(problem, L)
    x = torch.randn(L, *problem.theta.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    lanes, out, slope = np.moveaxis(x.numpy(), 0, -1).copy(), np.empty(L), np.empty((*problem.theta.shape, L))
    c = SimpleNamespace(room=np.full((model.rooms, L), np.nan))
    leaf = x.clone().requires_grad_()
    (df,) = torch.autograd.grad(problem.f(leaf).sum(), leaf)
    model.f(out, lanes, c)
    model.df(slope, lanes, c)
    np.testing.assert_allclose(out, problem.f(x), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(slope, np.moveaxis(df.numpy(), 0, -1), rtol=1e-12, atol=1e-12)
    model.begin(lanes, c)
    for d in range(len(problem.theta)):
        categories = problem.theta.shape[-1] if problem.theta.ndim == 2 else 2
        v = np.arange(L) % categories
        moved = x.clone()
        moved[:, d] = torch.eye(categories).double()[v] if problem.theta.ndim == 2 else torch.from_numpy(v).double()
        model.moved(out, lanes, d, v.astype(float), c)
        np.testing.assert_allclose(out, problem.f(moved), rtol=1e-11, atol=1e-11)


def quadratic_lanes(problem: Problem, L: int) -> Any:
    assert problem.lanes is not None
    return problem.lanes(kit(plain(), L, 0))
