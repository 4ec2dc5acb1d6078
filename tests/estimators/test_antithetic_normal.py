"""Pathwise gradients on antithetic pairs of Normal samples."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from estimators.antithetic_normal import antithetic_normal, combine, draw
from estimators.pathwise import pathwise
from problems.base import Problem
from problems.families.normal import Normal


@pytest.mark.parametrize("problem", ["normals", "normals elbo", "amortised normals", "amortised normals elbo"])
@pytest.mark.parametrize("samples", [2, 6])
def test_it_agrees_with_the_exact_gradient(agreement, small, samples, problem):
    found = agreement(antithetic_normal(samples), small(problem))
    assert found.z < found.allowed
    evaluations = samples * max(small(problem).rows, 1)
    assert (found.f, found.df) == (evaluations, evaluations)


def test_rows_drawn_for_each_replicate_agree(agreement, small):
    found = agreement(antithetic_normal(), replace(small("amortised normals elbo"), batch=2))
    assert found.z < found.allowed


@pytest.mark.parametrize("problem", ["normals", "amortised normals elbo"])
def test_a_wrong_divisor_and_a_wrong_centre_are_seen(agreement, small, problem):
    def scaled(q, x, dfx):
        return 1.1 * combine(q, x, dfx)

    def about_zero(q, noise):
        """-x in the place of 2 mu - x."""
        x = q.sample(noise)
        return torch.cat([x, -x])

    for wrong in (replace(antithetic_normal(), combine=scaled), replace(antithetic_normal(), draw=about_zero)):
        found = agreement(wrong, small(problem))
        assert found.z > found.allowed


def test_pairs_are_symmetric_about_the_mean():
    q = Normal(torch.tensor([[0.3, -2.0], [-0.5, 1.0]], dtype=torch.float64))
    x = draw(q, torch.tensor([[[0.7, -1.1]], [[0.2, 3.0]]], dtype=torch.float64))
    assert torch.allclose(x[:2] + x[2:], (2 * q.mu).expand(2, 1, 2), rtol=0, atol=1e-15)


def test_the_means_of_a_quadratic_have_no_variance_and_its_scales_that_of_one_sample(agreement):
    """f = x^2 + x: dL/dmu = 2 mu + 1 in every pair; dL/dlog sigma is 2 sigma^2 eps^2 of either half, of variance 8 sigma^4."""
    mu, sigma = 0.3, 0.8
    theta = torch.tensor([[mu], [sigma]], dtype=torch.float64)
    theta[1].log_()
    exact = torch.tensor([[2 * mu + 1], [2 * sigma**2]], dtype=torch.float64)
    problem = Problem("square", Normal, theta, lambda x: (x * x + x).sum(-1), smooth=2, exact=lambda p: exact)
    found = agreement(antithetic_normal(), problem)
    assert torch.allclose(found.gradients[:, 0], exact[0].expand(len(found.gradients)), rtol=0, atol=1e-13)
    assert abs(found.variance[1] - 8 * sigma**4) < 4 * found.variance_se[1]


def test_it_has_less_variance_than_independent_samples(agreement, small):
    ours, other = agreement(antithetic_normal(), small("normals")), agreement(pathwise(2), small("normals"))
    assert (ours.variance[:2] < other.variance[:2] - 4 * other.variance_se[:2]).all()


@pytest.mark.parametrize("samples", [0, 1, 3])
def test_samples_come_in_pairs(samples):
    with pytest.raises(ValueError, match=r"antithetic_normal\[samples=\d\]: samples come in antithetic pairs"):
        antithetic_normal(samples)
