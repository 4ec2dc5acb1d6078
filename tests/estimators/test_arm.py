"""AR: agreement, its closed-form variance for one bit, and that ARM is its antithetic mean. ARM itself: test_disarm.py."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from estimators import arm
from estimators.score_function import reinforce
from problems.base import Problem
from problems.families.bernoulli import Bernoulli


@pytest.mark.parametrize("problem", ["bits", "bits elbo", "amortised bits elbo"])
@pytest.mark.parametrize("samples", [1, 3])
def test_it_agrees_with_the_exact_gradient(agreement, small, samples, problem):
    found = agreement(arm.ar(samples), small(problem))
    assert found.z < found.allowed
    assert (found.f, found.df) == (samples * max(small(problem).rows, 1), 0)


def test_a_wrong_constant_is_seen(agreement, small):
    right = arm.ar()

    def wrong(noise, fx):
        return 1.1 * right.combine(noise, fx)

    found = agreement(replace(right, combine=wrong), small("bits"), replicates=65_536)
    assert found.z > found.allowed


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_the_variance_for_one_bit_is_the_closed_form(agreement, p):
    """E g^2 = f1^2 (1 - c) / 6 + f0^2 (1 + c) / 6, c = (1 - 2 p)^3, and E g = p (1 - p) (f1 - f0)."""
    theta, c = torch.tensor([math.log(p / (1 - p))], dtype=torch.float64), (1 - 2 * p) ** 3
    found = agreement(arm.ar(), Problem("bit", Bernoulli, theta, lambda x: 3 * x[..., 0] + 1.5))
    expected = 4.5**2 * (1 - c) / 6 + 1.5**2 * (1 + c) / 6 - (3 * p * (1 - p)) ** 2
    assert abs(found.total_variance - expected) < 4 * found.total_variance_se
    assert abs(found.total_variance - 1.1 * expected) > 4 * found.total_variance_se


def test_arm_is_its_mean_at_a_uniform_and_at_the_opposite(small):
    problem = small("bits")
    q, u = problem.bind(problem.theta), torch.rand(1, 99, 3, generator=torch.Generator().manual_seed(0)).double()
    both = torch.cat([1 - u, u])
    x = arm.ar(2).draw(q, both)
    pair = arm.draw(problem.theta, u)
    assert torch.equal(x, pair)
    f = problem.value(x)
    assert torch.allclose(arm.ar(2).combine(both, f), arm.combine(u, f), atol=1e-15)


@pytest.mark.parametrize("problem", ["bits", "amortised bits elbo"])
def test_its_variance_is_more_than_that_of_arm_and_of_reinforce(agreement, small, problem):
    """In every coordinate of theta: both are means of it; REINFORCE on the same uniforms."""
    theta = small(problem).theta.numel()
    ours, *rest = (agreement(e, small(problem)) for e in (arm.ar(), arm.arm(), reinforce()))
    for other in rest:
        gap = ((ours.gradients - ours.truth).square() - (other.gradients - other.truth).square())[:, :theta]
        assert (gap.mean(0) > 4 * gap.std(0) / math.sqrt(len(gap))).all()


def test_reinforce_is_its_mean_given_the_bits():
    """1 - 2 u between 0 and p is 1 - p in the mean, and -p between p and 1."""
    p, u = 0.3, (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    g = arm.ar().combine(u[None, :, None], torch.ones(1, 1000, dtype=torch.float64)).ravel()
    assert g[u < p].mean() == pytest.approx(1 - p)
    assert g[u > p].mean() == pytest.approx(-p)


def test_certain_bits_give_finite_gradients(agreement, small):
    certain = replace(small("bits"), theta=torch.tensor([800.0, 0.2, -30.0], dtype=torch.float64))
    found = agreement(arm.ar(), certain, replicates=4096)
    assert found.z < found.allowed


def test_no_sample_is_refused():
    with pytest.raises(ValueError, match=r"ar\[samples=0\]: samples must be at least 1"):
        arm.ar(0)
