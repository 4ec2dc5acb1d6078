"""Local expectation gradients by Gauss-Hermite rules: exact where the degree says so, else off by the error of the rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from bench.evaluate import gradients, prepare
from estimators import quadrature_expectation as module
from estimators.base import claim_of, mismatch
from estimators.quadrature_expectation import gauss_hermite, quadrature_expectation
from estimators.score_function import reinforce
from problems.base import Problem
from problems.objectives import Elbo, Expectation

NAMES = ["normals", "normals elbo", "amortised normals", "amortised normals elbo"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("samples", [1, 3])
def test_the_mean_is_the_gradient_to_the_error_of_the_rule(
    samples: int, name: str, agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    """Which 12 nodes bring below the standard error."""
    problem = small(name)
    found = agreement(quadrature_expectation(12, samples), problem, replicates=8192)
    assert found.z < found.allowed
    assert (found.f, found.df) == (12 * 2 * samples * max(problem.rows, 1), 0)


def test_rows_drawn_for_each_replicate(agreement: Callable[..., Any], small: Callable[[str], Problem]) -> None:
    found = agreement(quadrature_expectation(), replace(small("amortised normals elbo"), batch=2), replicates=8192)
    assert found.z < found.allowed


def test_another_weight_is_seen(
    agreement: Callable[..., Any], small: Callable[[str], Problem], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nodes of exp(-x^2) in the place of those of the Normal law."""
    eps, w = gauss_hermite(8)
    monkeypatch.setattr(module, "gauss_hermite", lambda nodes: (eps / 2**0.5, w))
    found = agreement(quadrature_expectation(), small("normals"))
    assert found.z > found.allowed


def power(small: Callable[[str], Problem], degree: int, elbo: bool = False) -> Problem:
    """sum_d x_d^degree, whose expectation is a polynomial in mu and sigma; and the entropy."""
    problem = small("normals")

    def exact(problem: Problem) -> torch.Tensor:
        theta = problem.theta.clone().requires_grad_()
        m, v = theta[0], (2 * theta[1]).exp()
        L = {2: m**2 + v, 3: m**3 + 3 * m * v, 4: m**4 + 6 * m**2 * v + 3 * v**2}[degree].sum()
        return torch.autograd.grad(L + theta[1].sum() * elbo, theta)[0]

    objective = Elbo() if elbo else Expectation()
    return replace(problem, f=lambda x: (x**degree).sum(-1), degree=degree, exact=exact, objective=objective)


@pytest.mark.parametrize("elbo", [False, True])
@pytest.mark.parametrize("degree", [2, 3, 4])
def test_of_a_separable_polynomial_it_is_exact_where_its_claim_says_so_and_not_elsewhere(
    degree: int, elbo: bool, agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    """Three nodes do for degree 3; without variance, for only the other sites were drawn."""
    problem = power(small, degree, elbo)
    found = agreement(quadrature_expectation(3), problem, replicates=16)
    assert float(found.variance.max()) < 1e-28
    right = torch.allclose(found.mean, found.truth, rtol=1e-12, atol=1e-13)
    assert right == (degree <= 3)
    assert claim_of(quadrature_expectation(3), problem) == ("unbiased" if degree <= 3 else "biased")


def test_the_longest_rule_is_a_rule() -> None:
    eps, w = gauss_hermite(module.MOST_NODES)
    assert [float((w * eps**n).sum()) for n in (0, 2, 4, 6)] == pytest.approx([1, 1, 3, 15], rel=1e-12)


def test_the_claim_for_elbo_counts_the_degree_of_log_q(small: Callable[[str], Problem]) -> None:
    flat = {"degree": 1}
    assert claim_of(quadrature_expectation(2), replace(small("normals"), **flat)) == "unbiased"
    assert claim_of(quadrature_expectation(2), replace(small("normals elbo"), **flat)) == "biased"
    assert claim_of(quadrature_expectation(), small("normals")) == "biased"


def test_it_varies_less_than_the_score_function(small: Callable[[str], Problem]) -> None:
    """It is the mean of it over each site, given the others."""
    ours, other = (
        gradients(prepare(e, small("normals")), range(4096)) for e in (quadrature_expectation(), reinforce())
    )
    less = (other - other.mean(0)).square() - (ours - ours.mean(0)).square()
    assert (less.mean(0) > 4 * less.std(0) / 64).all()


def test_what_does_not_fit_is_refused_in_a_sentence(small: Callable[[str], Problem]) -> None:
    assert "is for normal variables" in str(mismatch(quadrature_expectation(), small("bits")))
    with pytest.raises(ValueError, match=r"quadrature_expectation\[nodes=1\]: nodes must be at least 2"):
        quadrature_expectation(1)
    with pytest.raises(ValueError, match=r"\[nodes=257\]: nodes must be at most 256"):
        quadrature_expectation(257)
    with pytest.raises(ValueError, match=r"\[samples=0\]: samples must be at least 1"):
        quadrature_expectation(samples=0)
