"""Measure-valued derivatives of Normal, Bernoulli and Poisson variables."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from estimators.measure_valued import (
    combine_bernoulli,
    combine_normal,
    combine_poisson,
    draw_normal,
    measure_valued_bernoulli,
    measure_valued_normal,
    measure_valued_poisson,
)
from estimators.replaced import replaced
from problems.families.normal import Normal

PAIRS = [
    (measure_valued_normal, "normals", 8),
    (measure_valued_bernoulli, "bits", 6),
    (measure_valued_poisson, "counts", 3),
    (measure_valued_normal, "amortised normals", 3 * 8),
    (measure_valued_bernoulli, "amortised bits", 3 * 4),
    (measure_valued_poisson, "amortised counts", 3 * 2),
]


@pytest.mark.parametrize("objective", ["", " elbo"])
@pytest.mark.parametrize(("make", "problem", "evaluations"), PAIRS)
def test_they_agree_with_the_exact_gradient(agreement, small, make, problem, evaluations, objective):
    found = agreement(make(), small(problem + objective))
    assert found.z < found.allowed
    assert (found.f, found.df) == (evaluations, 0)


@pytest.mark.parametrize(("make", "problem", "evaluations"), PAIRS[3:])
def test_rows_drawn_for_each_replicate_agree(agreement, small, make, problem, evaluations):
    found = agreement(make(), replace(small(problem), batch=2))
    assert found.z < found.allowed
    assert found.f == evaluations * 2 / 3


def test_wrong_constants_are_seen(agreement, small):
    def means(q, fx):
        return combine_normal(q, fx) * torch.tensor([[1.05], [1.0]], dtype=torch.float64)

    def natural(q, fx):
        """dE/d sigma in the place of dE/d log sigma."""
        g = combine_normal(q, fx)
        return torch.stack([g[..., 0, :], g[..., 1, :] / q.sigma], -2)

    def per_rate(q, fx):
        return combine_poisson(q, fx) / q.rate

    def per_probability(q, fx):
        return combine_bernoulli(q, fx) / (4 * q.p * (1 - q.p))

    mutants = [
        (measure_valued_normal, "normals", means),
        (measure_valued_normal, "normals", natural),
        (measure_valued_poisson, "counts", per_rate),
        (measure_valued_bernoulli, "bits", per_probability),
    ]
    for make, problem, combine in mutants:
        found = agreement(replace(make(), combine=combine), small(problem), replicates=65_536)
        assert found.z > found.allowed, combine.__name__


def test_a_negative_part_of_the_scale_that_is_not_normal_is_seen(agreement, small):
    """M itself, without the uniform that makes U M a standard normal, scaled to the same second moment."""

    def draw(q, noise):
        eps, u, normals, U = noise
        return draw_normal(q, (eps, u, normals, torch.full_like(U, 3**-0.5)))

    found = agreement(replace(measure_valued_normal(), draw=draw), small("normals"), replicates=65_536)
    assert found.z > found.allowed


def test_the_last_points_of_the_normal_form_are_samples():
    """Mean and variance of mu + sigma U M within 4 standard errors of mu and sigma^2."""
    q = Normal(torch.tensor([[0.3], [-0.5]], dtype=torch.float64))
    generator, n = torch.Generator().manual_seed(3), 200_000
    eps, *normals = (torch.randn(n, 1, generator=generator, dtype=torch.float64) for _ in range(4))
    u, U = (torch.rand(n, 1, generator=generator, dtype=torch.float64) for _ in range(2))
    x = draw_normal(q, (eps, u, torch.stack(normals), U))[3, :, 0]
    standard = (x - q.mu) / q.sigma
    assert standard.mean().abs() < 4 / n**0.5
    assert (standard.var() - 1).abs() < 4 * (2 / n) ** 0.5
    assert (standard.pow(4).mean() - 3).abs() < 4 * (96 / n) ** 0.5


def test_one_coordinate_is_replaced_at_a_time():
    base = torch.tensor([[1.0, 2.0, 3.0]])
    x = replaced(base, torch.stack([10 * base, -base]))
    assert x[:, 0].tolist() == [[10, 2, 3], [1, 20, 3], [1, 2, 30], [-1, 2, 3], [1, -2, 3], [1, 2, -3]]
