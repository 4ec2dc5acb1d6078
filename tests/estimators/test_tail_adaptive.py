"""Tail-adaptive f-divergence: its mean by the binomial law of ranks, its ends, and ranks in the place of the ordering."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from bench.evaluate import gradients, prepare
from estimators.base import across, claim_of
from estimators.importance_weighted import stl
from estimators.tail_adaptive import descending_rank, tail_adaptive
from problems.base import Problem
from problems.linear_gaussian import linear_gaussian
from problems.objectives import Elbo
from problems.truth import true_gradient
from tests.estimators import test_importance_weighted as gaussians


def one_dimensional() -> Problem:
    """z ~ N(m, 1), x | z ~ N(z, 1); a Normal q of another mean and scale."""
    return gaussians.linear_gaussian(Elbo(), 1)


def mean_of_tail_adaptive(problem: Problem, samples: int, beta: float) -> torch.Tensor:
    """E g = K E [c(z) (dz/dtheta)' grad log w(z)], z ~ q in one dimension, by a sum over 40,001 places; in the model the ELBO's.

    c(z) = E rank^beta / sum_r r^beta, rank - 1 ~ Binomial(K - 1, P(w(z') > w(z))): how many of the others are larger.
    """
    mu, sigma = problem.theta[0], problem.theta[1].exp()
    eps = torch.linspace(-9, 9, 40_001, dtype=torch.float64)
    mass = (-0.5 * eps * eps).exp()
    mass = mass / mass.sum()
    z = (mu + sigma * eps[:, None]).requires_grad_()
    log_w = problem.value(z) - torch.distributions.Normal(mu, sigma).log_prob(z).sum(-1)
    (slope,) = torch.autograd.grad(log_w.sum(), z)
    order = log_w.detach().argsort(descending=True)
    above = torch.empty_like(mass)
    above[order] = mass[order].cumsum(0) - mass[order] / 2
    K = samples
    c = torch.stack(
        [math.comb(K - 1, r) * above**r * (1 - above) ** (K - 1 - r) * (r + 1) ** beta for r in range(K)]
    ).sum(0) / sum(r**beta for r in range(1, K + 1))
    a = K * mass * c * slope[:, 0]
    truth = true_gradient(problem)
    assert truth is not None
    return torch.cat([torch.stack([a.sum(), (a * sigma * eps).sum()]), truth.gradient[2:]])


@pytest.mark.parametrize(("samples", "beta"), [(2, -1.0), (3, -1.0), (5, -0.5)])
def test_the_mean_is_that_of_the_law_of_ranks(samples: int, beta: float, agreement: Callable[..., Any]) -> None:
    problem, estimator = one_dimensional(), tail_adaptive(samples, beta)
    mean = mean_of_tail_adaptive(problem, samples, beta)
    found = agreement(estimator, replace(problem, exact=lambda _: mean), 65_536)
    assert found.z < found.allowed
    assert (found.f, found.df) == (samples, samples)
    assert claim_of(estimator, problem) == "biased"
    against_truth = agreement(estimator, problem)
    assert against_truth.z > 2 * against_truth.allowed


def test_with_equal_coefficients_it_is_stl_of_the_elbo(agreement: Callable[..., Any]) -> None:
    problem = one_dimensional()
    torch.testing.assert_close(
        mean_of_tail_adaptive(problem, 5, 0.0), true_gradient(problem).gradient, rtol=1e-6, atol=1e-7
    )  # type: ignore[union-attr]
    for estimator in (tail_adaptive(4, 0.0), tail_adaptive(1)):
        assert claim_of(estimator, problem) == "unbiased"
    amortised = linear_gaussian(2, data=3).at("mid")
    found = agreement(tail_adaptive(4, 0.0), amortised)
    assert found.z < found.allowed
    one = gradients(prepare(tail_adaptive(1), amortised), range(32))
    assert torch.equal(one, gradients(prepare(stl(), amortised), range(32)))


def test_ranks_are_counted_from_the_largest() -> None:
    """And argsort of four numbers is not their ranks: of two it is, and of three in four orders of six."""
    log_w = torch.tensor([0.3, 2.0, -1.0, 0.7])[:, None]
    assert descending_rank(log_w)[:, 0].tolist() == [3, 1, 4, 2]
    assert (log_w.argsort(0, descending=True) + 1)[:, 0].tolist() == [2, 4, 1, 3]
    counted = (log_w < log_w.T).sum(1) + 1
    assert torch.equal(descending_rank(log_w)[:, 0], counted)


def test_where_q_is_the_posterior_it_is_nil() -> None:
    at = torch.tensor([[(0.4 + 1.7) / 2], [-0.5 * math.log(2)]], dtype=torch.float64)
    g = gradients(prepare(tail_adaptive(), replace(one_dimensional(), theta=at)), range(64))
    assert float(g[:, :2].abs().max()) < 1e-13


def test_ranks_from_the_least_are_seen(agreement: Callable[..., Any]) -> None:
    def combine(q: Any, x: torch.Tensor, fx: torch.Tensor, dfx: torch.Tensor) -> torch.Tensor:
        gamma = 1 / descending_rank(-fx).to(fx)
        return q.path(x, across(gamma / gamma.sum(0), dfx) * dfx)

    problem = one_dimensional()
    mean = mean_of_tail_adaptive(problem, 3, -1.0)
    found = agreement(replace(tail_adaptive(3), combine=combine), replace(problem, exact=lambda _: mean))
    assert found.z > found.allowed


def test_what_does_not_fit_is_refused_in_a_sentence() -> None:
    for settings, sentence in [
        ({"beta": 0.5}, r"tail_adaptive\[beta=0.5\]: beta goes from -1 to 0"),
        ({"beta": -2.0}, r"tail_adaptive\[beta=-2.0\]: beta must be at least -1"),
        ({"samples": 0}, r"tail_adaptive\[samples=0\]: samples must be at least 1"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            tail_adaptive(**settings)
