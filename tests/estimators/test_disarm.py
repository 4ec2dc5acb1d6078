"""DisARM and ARM: agreement, their closed-form variances for one bit, and that integrating the noise out never adds variance."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from estimators.arm import arm
from estimators.disarm import combine, disarm, draw
from estimators.score_function import rloo
from problems.base import Problem
from problems.families.bernoulli import Bernoulli

DELTA = 3.0


def one_bit(p: float) -> Problem:
    """f(1) - f(0) = DELTA."""
    theta = torch.tensor([math.log(p / (1 - p))], dtype=torch.float64)
    return Problem("one bit", Bernoulli, theta, lambda x: DELTA * x[..., 0] + 1.5, settings={"p": p})


@pytest.mark.parametrize("problem", ["bits", "bits elbo", "amortised bits elbo"])
@pytest.mark.parametrize("samples", [2, 6])
@pytest.mark.parametrize("make", [disarm, arm])
def test_they_agree_with_the_exact_gradient(agreement, small, make, samples, problem):
    found = agreement(make(samples=samples), small(problem))
    assert found.z < found.allowed
    assert found.f == samples * max(small(problem).rows, 1)


def test_rows_drawn_for_each_replicate_agree(agreement, small):
    found = agreement(disarm(samples=4), replace(small("amortised bits elbo"), batch=2))
    assert found.z < found.allowed


@pytest.mark.parametrize("problem", ["bits", "amortised bits elbo"])
def test_a_wrong_constant_is_seen(agreement, small, problem):
    def wrong(theta, x, fx):
        return 1.1 * combine(theta, x, fx)

    found = agreement(replace(disarm(), combine=wrong), small(problem))
    assert found.z > found.allowed


@pytest.mark.parametrize("p", [0.05, 0.2, 0.5, 0.7, 0.99])
def test_the_variance_for_one_bit_is_the_closed_form(agreement, p):
    """In units of (f1 - f0)^2 / 4: r (1 - r) for RLOO of two, r = 2 p (1 - p); M^2 2 m (1 - 2 m) for DisARM, m = min(p, 1 - p)."""
    r, m, M = 2 * p * (1 - p), min(p, 1 - p), max(p, 1 - p)
    closed = {"rloo": r * (1 - r), "disarm": M * M * 2 * m * (1 - 2 * m)}
    for e in (rloo(samples=2), disarm()):
        found = agreement(e, one_bit(p), replicates=65_536)
        expected = DELTA**2 / 4 * closed[e.name]
        assert abs(found.total_variance - expected) < 4 * found.total_variance_se + 1e-12
        assert abs(found.total_variance - 1.5 * expected) > 4 * found.total_variance_se or expected == 0


def test_the_variance_of_arm_for_a_fair_bit_is_the_closed_form(agreement):
    found = agreement(arm(), one_bit(0.5), replicates=65_536)
    assert abs(found.total_variance - DELTA**2 / 48) < 4 * found.total_variance_se
    assert abs(found.total_variance - DELTA**2 / 40) > 4 * found.total_variance_se


@pytest.mark.parametrize("problem", ["bits", "bits elbo", "amortised bits elbo"])
def test_disarm_has_no_more_variance_than_arm(agreement, small, problem):
    """On the same uniforms: in every coordinate of theta, of which the model's are the same."""
    noisy, integrated = agreement(arm(), small(problem)), agreement(disarm(), small(problem))
    theta = small(problem).theta.numel()
    gap = (noisy.gradients - noisy.truth).square() - (integrated.gradients - integrated.truth).square()
    assert (gap.mean(0) > 4 * gap.std(0) / math.sqrt(len(gap)))[:theta].all()
    assert torch.equal(noisy.gradients[:, theta:], integrated.gradients[:, theta:])


def test_pairs_are_averaged(agreement, small):
    one, three = agreement(disarm(), small("bits")), agreement(disarm(samples=6), small("bits"))
    assert abs(one.total_variance / 3 - three.total_variance) < 4 * (
        one.total_variance_se / 3 + three.total_variance_se
    )


def test_a_pair_by_hand():
    theta = torch.tensor([0.0, 2.0, -2.0], dtype=torch.float64)
    x = draw(theta, torch.tensor([[[0.3, 0.3, 0.5]]], dtype=torch.float64))
    assert x[:, 0].tolist() == [[0, 1, 0], [1, 1, 0]]
    g = combine(theta, x, torch.tensor([[5.0], [1.0]], dtype=torch.float64))
    assert g[0].tolist() == [0.5 * 4 * -1 * 0.5, 0, 0]


def test_certain_bits_give_finite_gradients(agreement, small):
    certain = replace(small("bits"), theta=torch.tensor([800.0, 0.2, -800.0], dtype=torch.float64))
    found = agreement(disarm(), certain, replicates=4096)
    assert found.z < found.allowed
    assert (found.gradients[:, [0, 2]] == 0).all()
    found = agreement(arm(), certain, replicates=4096)
    assert found.z < found.allowed


@pytest.mark.parametrize("make", [disarm, arm])
@pytest.mark.parametrize("samples", [0, 1, 3])
def test_samples_come_in_pairs(make, samples):
    with pytest.raises(ValueError, match="antithetic pairs"):
        make(samples=samples)
