"""Gumbel-entmax: projections against Newton's method, ties and corners, and its relaxed objective."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from bench.evaluate import Count, ask, gradients, prepare
from estimators.base import claim_of, mismatch, target_of
from estimators.gumbel_entmax import by_newton, entmax, entmax_jacobian, gumbel_entmax
from estimators.gumbel_softmax import gumbel_softmax
from estimators.noise import MEASURE
from problems.base import Problem
from problems.families.bernoulli import Bernoulli
from problems.objectives import Elbo, Expectation, Objective
from tests.estimators.relaxed import one_of_three, tensor, two_bits


@pytest.mark.parametrize("alpha", [1.5, 2.0])
@pytest.mark.parametrize("C", [2, 3, 7])
def test_the_projection_is_that_of_newtons_method(C: int, alpha: float) -> None:
    z = torch.randn(500, C, generator=torch.Generator().manual_seed(C), dtype=torch.float64) * 2
    p = entmax(z, alpha)
    assert torch.allclose(p, by_newton(z, alpha), atol=1e-12)
    assert torch.allclose(p.sum(-1), torch.ones(500, dtype=torch.float64), rtol=1e-13)
    assert (p == 0).any()


@pytest.mark.parametrize("alpha", [1.5, 2.0])
def test_ties_share_and_a_large_logit_takes_all(alpha: float) -> None:
    tied = entmax(tensor([1.0, 1.0, 1.0], [2.0, 2.0, -9.0]), alpha)
    assert torch.allclose(tied, tensor([1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0.0]), rtol=1e-14)
    assert torch.equal(entmax(tensor(60.0, -60.0, 3.0), alpha), tensor(1.0, 0.0, 0.0))
    on_the_edge = 1 / (alpha - 1)  # where the second entry begins
    assert torch.allclose(entmax(tensor(on_the_edge, 0.0), alpha), tensor(1.0, 0.0), atol=1e-14)
    assert torch.allclose(entmax(tensor(on_the_edge + 1e8, 1e8), alpha), tensor(1.0, 0.0), atol=1e-7)


@pytest.mark.parametrize("alpha", [1.0, 1.5, 2.0])
def test_the_derivative_is_that_of_autograd(alpha: float) -> None:
    z = tensor([0.3, -0.2, 0.9, -3.0], [5.0, 0.0, 0.0, 0.0]).requires_grad_()
    v = tensor([1.0, -2.0, 0.5, 3.0])
    p = entmax(z, alpha)
    (g,) = torch.autograd.grad((p * v).sum(), z)
    assert torch.allclose(entmax_jacobian(p.detach(), v.expand_as(p), alpha), g, atol=1e-13)


@pytest.mark.parametrize("objective", [Expectation(), Elbo()], ids=lambda o: o.name)
@pytest.mark.parametrize("make", [two_bits, one_of_three], ids=lambda m: m.__name__)
def test_its_mean_is_the_gradient_of_its_relaxed_objective(
    make: Callable[[Objective], Problem], objective: Objective, agreement: Callable[..., Any]
) -> None:
    problem = make(objective)
    for temperature, alpha in ((1.0, 1.5), (1.5, 2.0)):
        estimator = gumbel_entmax(temperature, alpha)
        claimed = target_of(estimator, problem)
        assert claimed is not None
        found = agreement(estimator, replace(problem, exact=lambda _, mean=claimed[0]: mean))
        assert found.z < found.allowed
        assert (found.f, found.df) == (1, 1)
        against_truth = agreement(estimator, problem)
        assert claim_of(estimator, problem) == "biased"
        assert against_truth.z > against_truth.allowed
        other = agreement(gumbel_entmax(1.2 * temperature, alpha), replace(problem, exact=lambda _, m=claimed[0]: m))
        assert other.z > other.allowed


@pytest.mark.parametrize("name", ["bits elbo", "categories", "amortised categories elbo"])
def test_alpha_one_is_gumbel_softmax(name: str, small: Callable[[str], Problem]) -> None:
    problem = small(name)
    both = [gradients(prepare(e, problem), range(64)) for e in (gumbel_entmax(0.7, 1.0), gumbel_softmax(0.7))]
    assert torch.allclose(*both, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("alpha", [1.5, 2.0])
@pytest.mark.parametrize("name", ["amortised bits elbo", "amortised categories"])
def test_amortised_gradients_are_those_of_plain_autograd(
    name: str, alpha: float, small: Callable[[str], Problem]
) -> None:
    """Encoder and decoder at y, autograd through the sort; log q's own theta held fixed."""
    problem, temperature = small(name), 0.7
    assert problem.model is not None
    trial = prepare(gumbel_entmax(temperature, alpha), problem)
    g = gradients(trial, range(4))
    noise = ask(trial, range(4), None, MEASURE, Count()).known["noise"]
    for r in range(4):
        w, model = problem.theta.clone().requires_grad_(), problem.model.clone().requires_grad_()
        theta = problem.site_parameters(w)
        if problem.family is Bernoulli:
            z = (theta - noise[0, r].logit()) / temperature
            y = entmax(torch.stack([z, torch.zeros_like(z)], -1), alpha)[..., 0]
        else:
            y = entmax((theta + noise[0, r]) / temperature, alpha)
        L = problem.value(y, model).sum()
        if problem.objective.ratio:
            L = L - problem.bind(theta.detach()).log_prob(y).sum()
        assert torch.allclose(g[r], torch.cat(torch.autograd.grad(L, [w, model])), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("alpha", [1.5, 2.0])
@pytest.mark.parametrize("name", ["bits", "categories"])
def test_logits_of_thirty(name: str, alpha: float, small: Callable[[str], Problem]) -> None:
    far = replace(small(name), theta=30 * small(name).theta.sign())
    for dtype in ("float64", "float32"):
        assert gradients(prepare(gumbel_entmax(0.1, alpha), far, dtype=dtype), range(64)).isfinite().all()


def test_what_does_not_fit_is_refused_in_a_sentence(small: Callable[[str], Problem]) -> None:
    with pytest.raises(ValueError, match=r"gumbel_entmax\[alpha=3\]: alpha is 1.0, 1.5 or 2.0"):
        gumbel_entmax(alpha=3)
    with pytest.raises(ValueError, match=r"gumbel_entmax\[temperature=0\]: the temperature must be positive"):
        gumbel_entmax(0)
    assert "evaluates f off its support" in (mismatch(gumbel_entmax(), replace(small("bits"), relaxed=False)) or "")
