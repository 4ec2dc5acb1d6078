"""Bonnet's and Price's theorems: against quadrature, the pathwise gradient, and where they have no variance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from bench.evaluate import gradients, prepare
from estimators.base import mismatch
from estimators.bonnet_price import bonnet_price, combine
from estimators.pathwise import pathwise
from problems.base import Problem
from problems.families.normal import Normal

NAMES = ["normals", "normals elbo", "amortised normals", "amortised normals elbo"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("samples", [1, 3])
def test_the_mean_is_the_gradient(
    samples: int, name: str, agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    problem = small(name)
    found = agreement(bonnet_price(samples), problem, replicates=8192)
    assert found.z < found.allowed
    evaluations = samples * max(problem.rows, 1)
    assert (found.f, found.df, found.hf) == (evaluations, evaluations, evaluations)


def test_rows_drawn_for_each_replicate(agreement: Callable[..., Any], small: Callable[[str], Problem]) -> None:
    found = agreement(bonnet_price(2), replace(small("amortised normals elbo"), batch=2), replicates=8192)
    assert found.z < found.allowed


@pytest.mark.parametrize("name", ["normals", "amortised normals elbo"])
def test_a_derivative_in_sigma_is_seen_where_one_in_log_sigma_is_due(
    name: str, agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    def wrong(q: Normal, dfx: torch.Tensor, hfx: torch.Tensor) -> torch.Tensor:
        right = combine(q, dfx, hfx)
        return torch.stack([right[..., 0, :], right[..., 1, :] / q.sigma], -2)

    found = agreement(replace(bonnet_price(), combine=wrong), small(name))
    assert found.z > found.allowed


def quadratic(problem: Problem) -> Problem:
    """f = 1/2 x' A x + b'x: d E f / d mu = A mu + b, d E f / d log sigma = diag(A) sigma^2, and the entropy's (0, 1)."""
    A = torch.tensor([[1.0, 0.7], [0.7, -2.0]], dtype=torch.float64)
    b = torch.tensor([0.5, -1.0], dtype=torch.float64)

    def exact(problem: Problem) -> torch.Tensor:
        mu, log_sigma = problem.theta
        entropy = 1.0 if problem.objective.ratio else 0.0
        return torch.stack([A @ mu + b, A.diagonal() * (2 * log_sigma).exp() + entropy])

    return replace(problem, f=lambda x: 0.5 * ((x @ A.to(x)) * x).sum(-1) + x @ b.to(x), exact=exact)


@pytest.mark.parametrize("name", ["normals", "normals elbo"])
def test_the_scales_of_a_quadratic_have_no_variance(
    name: str, agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    found = agreement(bonnet_price(), quadratic(small(name)), replicates=256)
    assert (found.gradients - found.truth)[:, 2:].abs().max() < 1e-13


@pytest.mark.parametrize("name", ["normals", "normals elbo"])
def test_the_means_are_those_of_the_path_and_the_scales_vary_less(name: str, small: Callable[[str], Problem]) -> None:
    """On the same noise; f is not far from a quadratic."""
    ours, path = (gradients(prepare(e, small(name)), range(4096)) for e in (bonnet_price(2), pathwise(2)))
    assert torch.allclose(ours[:, :2], path[:, :2], rtol=1e-12, atol=1e-14)
    more = (path - path.mean(0)).square()[:, 2:] - (ours - ours.mean(0)).square()[:, 2:]
    assert (more.mean(0) > 4 * more.std(0) / 64).all()


def test_what_does_not_fit_is_refused_in_a_sentence(small: Callable[[str], Problem]) -> None:
    why = mismatch(bonnet_price(), replace(small("normals"), smooth=1))
    assert why == "bonnet_price needs 2 derivatives of f; normals offers 1"
    why = mismatch(bonnet_price(), small("bits"))
    assert why == "bonnet_price is for normal variables; bits's are bernoulli"
    with pytest.raises(ValueError, match=r"bonnet_price\[samples=0\]: samples must be at least 1"):
        bonnet_price(0)
