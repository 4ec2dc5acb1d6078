"""Straight-through: exact for linear f, and for any f its mean is the slope at the samples through the derivative of the mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from bench.evaluate import Count, ask, gradients, prepare
from estimators.base import claim_of, mismatch
from estimators.noise import MEASURE
from estimators.straight_through import straight_through
from problems.base import Problem
from problems.families.bernoulli import Bernoulli
from problems.truth import log_probability

NAMES = ["bits", "bits elbo", "categories", "categories elbo"]


def probabilities(problem: Problem, theta: torch.Tensor) -> torch.Tensor:
    return theta.sigmoid() if problem.family is Bernoulli else theta.softmax(-1)


def mean_of_straight_through(problem: Problem) -> torch.Tensor:
    """d/dtheta of p . E grad [f - log q](x), the slope held fixed, over the whole support."""
    theta = problem.theta.clone().requires_grad_()
    q = problem.bind(problem.theta)
    x = q.support().requires_grad_()
    fx = problem.f(x) - q.log_prob(x) if problem.objective.ratio else problem.f(x)
    (slope,) = torch.autograd.grad(fx.sum(), x)
    chance = log_probability(q, x.detach()).exp()
    expected = torch.einsum("s,s...->...", chance, slope)
    return torch.autograd.grad((expected * probabilities(problem, theta)).sum(), theta)[0]


@pytest.mark.parametrize("name", NAMES)
def test_the_mean_is_its_own_and_not_the_gradient(
    name: str, agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    problem = small(name)
    mean = mean_of_straight_through(problem)
    found = agreement(straight_through(), replace(problem, exact=lambda _: mean))
    assert found.z < found.allowed
    assert (found.f, found.df) == (1, 1)
    for degree in (None, 2):
        assert claim_of(straight_through(), replace(problem, degree=degree)) == "biased"
    against_truth = agreement(straight_through(), problem)
    assert against_truth.z > against_truth.allowed


@pytest.mark.parametrize("name", NAMES)
def test_it_is_exact_where_f_is_linear(
    name: str, agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    """Without variance, for the slope is everywhere the same."""
    weights = torch.linspace(-1, 2, small(name).theta.numel(), dtype=torch.float64).reshape(small(name).theta.shape)

    def f(x: torch.Tensor) -> torch.Tensor:
        return (x * weights.to(x)).flatten(x.ndim - weights.ndim).sum(-1) + 0.3

    problem = replace(small(name), f=f, degree=1)
    found = agreement(straight_through(), problem)
    assert claim_of(straight_through(), problem) == "unbiased"
    assert torch.allclose(found.mean, found.truth, rtol=1e-12)
    assert found.total_variance < 1e-25


def test_a_wrong_derivative_of_the_mean_is_seen(agreement: Callable[..., Any], small: Callable[[str], Problem]) -> None:
    """The identity in place of p (1 - p)."""
    problem = small("bits")
    mean = mean_of_straight_through(problem)
    wrong = replace(straight_through(), combine=lambda dfx: dfx[0])
    found = agreement(wrong, replace(problem, exact=lambda _: mean))
    assert found.z > found.allowed


@pytest.mark.parametrize("batch", [0, 2])
@pytest.mark.parametrize("name", ["amortised bits elbo", "amortised categories elbo"])
def test_amortised_gradients_are_those_of_plain_autograd(
    name: str, batch: int, small: Callable[[str], Problem]
) -> None:
    """Encoder and decoder at x + p - sg(p), on the same samples, to rounding; log q's own theta held fixed."""
    problem = replace(small(name), batch=batch)
    assert problem.model is not None
    trial = prepare(straight_through(), problem)
    g = gradients(trial, range(4))
    answers = ask(trial, range(4), None, MEASURE, Count())
    for r in range(4):
        data = problem.data if answers.data is None else answers.data[r]
        w, model = problem.theta.clone().requires_grad_(), problem.model.clone().requires_grad_()
        theta = problem.site_parameters(w, data)
        p = probabilities(problem, theta)
        x = answers.known["x"][0, r] + p - p.detach()
        L = (problem.value(x, model, data) - problem.bind(theta.detach()).log_prob(x)).sum()
        L = L * (problem.rows / batch if batch else 1)
        assert torch.allclose(g[r], torch.cat(torch.autograd.grad(L, [w, model])), rtol=1e-12, atol=1e-13)


def test_what_does_not_fit_is_refused_in_a_sentence(small: Callable[[str], Problem]) -> None:
    why = mismatch(straight_through(), small("normals"))
    assert why == "straight_through is for bernoulli or categorical variables; normals's are normal"
