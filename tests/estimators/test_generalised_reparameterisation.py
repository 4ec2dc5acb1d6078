"""G-REP: against closed forms, with and without the term that mends the path, and where that term vanishes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from bench.evaluate import gradients, prepare
from estimators.base import mismatch
from estimators.generalised_reparameterisation import generalised_reparameterisation, of_gamma
from estimators.pathwise import pathwise
from problems import PROBLEMS
from problems.base import Problem
from problems.families.gamma import Gamma
from problems.objectives import Elbo
from problems.truth import true_gradient

NAMES = ["gammas", "gammas elbo", "amortised gammas", "amortised gammas elbo"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("samples", [1, 3])
def test_the_mean_is_the_gradient(
    samples: int, name: str, agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    problem = small(name)
    found = agreement(generalised_reparameterisation(samples), problem)
    assert found.z < found.allowed
    evaluations = samples * max(problem.rows, 1)
    assert (found.f, found.df) == (evaluations, evaluations)


@pytest.mark.parametrize("cost", ["square", "log"])
@pytest.mark.parametrize(
    ("name", "point"),
    [
        *[("gamma_cost", p) for p in ("init", "sparse", "peaked")],
        *[("beta_cost", p) for p in ("init", "ends", "peaked")],
    ],
)
def test_small_and_large_concentrations(name: str, point: str, cost: str, agreement: Callable[..., Any]) -> None:
    problem = PROBLEMS[name](cost=cost, dim=2).at(point)
    found = agreement(generalised_reparameterisation(), problem)
    assert found.z < found.allowed


@pytest.mark.parametrize("point", ["init", "peaked"])
def test_the_bound_of_beta_variables(point: str, agreement: Callable[..., Any]) -> None:
    """Their cost, and their entropy."""
    cost = PROBLEMS["beta_cost"](dim=2).at(point)

    def exact(problem: Problem) -> torch.Tensor:
        theta = problem.theta.clone().requires_grad_()
        (entropy,) = torch.autograd.grad(torch.distributions.Beta(*theta.exp()).entropy().sum(), theta)
        found = true_gradient(cost)
        assert found is not None
        return found.gradient.reshape(2, 2) + entropy

    found = agreement(generalised_reparameterisation(), replace(cost, objective=Elbo(), exact=exact))
    assert found.z < found.allowed


def test_rows_drawn_for_each_replicate(agreement: Callable[..., Any], small: Callable[[str], Problem]) -> None:
    found = agreement(generalised_reparameterisation(2), replace(small("amortised gammas elbo"), batch=2))
    assert found.z < found.allowed


@pytest.mark.parametrize("name", ["gammas", "amortised gammas elbo"])
def test_the_path_alone_is_seen_to_be_biased(
    name: str, agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    def path_alone(q: Gamma, x: torch.Tensor, dfx: torch.Tensor) -> torch.Tensor:
        t = of_gamma(q, x)
        return ((t.slope * dfx).unsqueeze(-2) * t.along).mean(0)

    found = agreement(replace(generalised_reparameterisation(), combine=path_alone), small(name))
    assert found.z > found.allowed


def test_the_rates_have_the_gradient_of_the_path(small: Callable[[str], Problem]) -> None:
    """x = (b x) / b, and the law of b x does not depend on b: there is nothing to mend."""
    ours, path = (
        gradients(prepare(e, small("gammas")), range(256)) for e in (generalised_reparameterisation(), pathwise())
    )
    assert torch.allclose(ours[:, 2:], path[:, 2:], rtol=1e-12, atol=1e-14)
    assert not torch.allclose(ours[:, :2], path[:, :2], rtol=1e-2)


def test_it_comes_near_the_path_at_large_concentrations() -> None:
    """There log x is nearly Normal: what is left is of the order of 1 / sqrt(a)."""
    gaps = []
    for a in (1e2, 1e4):
        theta = torch.tensor([[a], [a]], dtype=torch.float64).log()
        problem = Problem("peaked", Gamma, theta, lambda x: x.log().sum(-1), smooth=2)
        ours, path = (
            gradients(prepare(e, problem), range(4096)) for e in (generalised_reparameterisation(), pathwise())
        )
        gaps.append(float((ours - path)[:, 0].square().mean().sqrt() / path[:, 0].mean()))
    assert gaps[1] < 0.2 * gaps[0]


def test_what_does_not_fit_is_refused_in_a_sentence(small: Callable[[str], Problem]) -> None:
    why = mismatch(generalised_reparameterisation(), replace(small("gammas"), smooth=0))
    assert why == "generalised_reparameterisation needs 1 derivative of f; gammas offers none"
    why = mismatch(generalised_reparameterisation(), small("normals"))
    assert why == "generalised_reparameterisation is for gamma or beta variables; normals's are normal"
    with pytest.raises(ValueError, match=r"\[samples=0\]: samples must be at least 1"):
        generalised_reparameterisation(0)
