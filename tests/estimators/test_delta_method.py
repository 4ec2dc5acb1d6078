"""The delta method for the score function and for the pathwise gradient: exact for a quadratic, unbiased for the rest."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from estimators.base import mismatch
from estimators.delta_method import delta_method, delta_pathwise, gradient_of_expansion, regressed
from estimators.score_function import reinforce

ESTIMATORS = [delta_method(), delta_method(samples=3, fresh=10), delta_pathwise(), delta_pathwise(samples=2, fresh=5)]


@pytest.mark.parametrize("problem", ["normals", "normals elbo", "amortised normals", "amortised normals elbo"])
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: f"{e.name}{e.settings}")
def test_they_agree_with_the_exact_gradient(agreement, small, estimator, problem):
    found = agreement(estimator, small(problem), replicates=8192)
    assert found.z < found.allowed


def test_evaluations(agreement, small):
    found = agreement(delta_method(samples=3, fresh=10), small("normals"), replicates=64)
    assert (found.f, found.df, found.hf) == (14, 1, 1)
    found = agreement(delta_pathwise(samples=3, fresh=10), small("normals"), replicates=64)
    assert (found.f, found.df) == (14, 14)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: f"{e.name}{e.settings}")
def test_a_wrong_mean_of_the_expansion_is_seen(agreement, small, estimator, monkeypatch):
    def natural(q, slope, H):
        """dE[fq]/d sigma in the place of dE[fq]/d log sigma."""
        right = gradient_of_expansion(q, slope, H)
        return torch.stack([right[..., 0, :], right[..., 1, :] / q.sigma], -2)

    monkeypatch.setattr("estimators.delta_method.gradient_of_expansion", natural)
    found = agreement(estimator, small("normals"), replicates=32_768)
    assert found.z > found.allowed


def quadratic(small):
    """f with curvature across coordinates; d E f / d mu = A mu + b, d E f / d log sigma = diag(A) sigma^2."""
    A = torch.tensor([[1.0, 0.7], [0.7, -2.0]], dtype=torch.float64)
    b = torch.tensor([0.5, -1.0], dtype=torch.float64)

    def exact(problem):
        mu, log_sigma = problem.theta
        return torch.stack([A @ mu + b, A.diagonal() * (2 * log_sigma).exp()])

    def f(x):
        return 0.5 * ((x @ A) * x).sum(-1) + x @ b + 3

    return replace(small("normals"), f=f, exact=exact)


def test_a_quadratic_has_no_pathwise_variance(agreement, small):
    found = agreement(delta_pathwise(), quadratic(small), replicates=256)
    assert (found.gradients - found.truth).abs().max() < 1e-13


def test_a_quadratic_has_hardly_any_score_function_variance(agreement, small):
    """Only the 1e-3 beside the variance in the regression keeps the coefficient from 1."""
    found, plain = agreement(delta_method(), quadratic(small)), agreement(reinforce(), quadratic(small))
    assert found.total_variance < 1e-5 * plain.total_variance
    assert found.z < found.allowed


def test_the_coefficient_is_that_of_regression():
    B = torch.randn(400, 2, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    assert regressed(0.7 * B + 5, B).item() == pytest.approx(0.7, rel=1e-3)
    assert regressed(0.7 * B + 5, B).shape == (1, 1)


def test_two_derivatives_are_needed_and_fresh_samples_are_two_or_more(small):
    for make in (delta_method, delta_pathwise):
        assert "needs 2 derivatives of f" in mismatch(make(), replace(small("normals"), smooth=1))
        with pytest.raises(ValueError, match=r"fresh=1\]"):
            make(fresh=1)
        with pytest.raises(ValueError, match=r"samples=0\]"):
            make(samples=0)
    with pytest.raises(ValueError, match=r"fresh=0\]"):
        delta_method(fresh=0)
