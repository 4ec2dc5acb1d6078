"""bitflip-1 and UGC: agreement, exactness for one bit, closed-form variance, and where clipping takes variance from DisARM."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from estimators.base import mismatch
from estimators.bitflip import bitflip, flipped, ugc
from estimators.disarm import disarm
from problems.base import Problem
from problems.families.bernoulli import Bernoulli
from problems.objectives import Elbo

RARE = torch.tensor([-3.0, 0.4, 2.5, 0.9], dtype=torch.float64)


def numbers(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rare(theta=RARE, **optional):
    """A table of the bits of theta, of which some are nearly certain."""
    A = numbers(1, len(theta), len(theta))
    return Problem("rare", Bernoulli, theta, lambda x: ((x @ A.to(x)) * x).sum(-1) + 0.7, **optional)


@pytest.mark.parametrize("problem", ["bits", "bits elbo", "amortised bits elbo", "rare", "rare elbo"])
@pytest.mark.parametrize("make", [bitflip, ugc])
def test_they_agree_with_the_exact_gradient(agreement, small, make, problem):
    there = {"rare": rare(), "rare elbo": rare(objective=Elbo())}.get(problem) or small(problem)
    found = agreement(make(), there)
    assert found.z < found.allowed
    assert (found.f, found.df) == ((2 if make is bitflip else 3) * max(there.rows, 1), 0)


def test_rows_drawn_for_each_replicate_agree(agreement, small):
    for estimator in (bitflip(), ugc()):
        found = agreement(estimator, replace(small("amortised bits elbo"), batch=2))
        assert found.z < found.allowed


@pytest.mark.parametrize("make", [bitflip, ugc])
def test_a_wrong_constant_is_seen(agreement, make):
    right = make()

    def wrong(theta, x, fx):
        return 1.1 * right.combine(theta, x, fx)

    found = agreement(replace(right, combine=wrong), rare(), replicates=65_536)
    assert found.z > found.allowed


def test_a_coordinate_that_is_never_turned_is_seen(agreement):
    right = bitflip()

    def wrong(q, noise):
        return right.draw(q, (noise[0], 0.75 * noise[1]))

    found = agreement(replace(right, draw=wrong), rare())
    assert found.z > found.allowed


def test_for_one_bit_they_are_exact(agreement):
    """m < clip / D = 1/2, but for a fair bit, of which DisARM is exact."""
    for theta in (-2.0, 0.0, 0.3):
        bit = Problem("bit", Bernoulli, torch.tensor([theta], dtype=torch.float64), lambda x: 3 * x[..., 0] + 1.5)
        for estimator in (bitflip(), ugc()):
            found = agreement(estimator, bit, replicates=256)
            assert torch.allclose(found.gradients, found.truth.expand(256, -1), rtol=0, atol=1e-15)


def test_the_variance_of_a_sum_of_bits_is_the_closed_form(agreement):
    """f = a . b: g_d = D p (1 - p) a_d with chance 1/D, so that Var g_d = (D - 1) (p (1 - p) a_d)^2."""
    a = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    found = agreement(bitflip(), Problem("sum", Bernoulli, RARE, lambda x: x @ a.to(x)))
    expected = 3 * (a * RARE.sigmoid() * (-RARE).sigmoid()) ** 2
    assert ((found.variance - expected).abs() < 4 * found.variance_se).all()
    assert ((found.variance - 1.1 * expected).abs() > 4 * found.variance_se).all()


@pytest.mark.parametrize("seed", range(4))
def test_clipping_takes_variance_from_disarm_in_the_rare_coordinates(agreement, seed):
    """On the same pairs: the other coordinates are DisARM's own."""
    theta = torch.cat([torch.tensor([-3.0, 2.6], dtype=torch.float64), numbers(20 + seed, 3)])
    problem = rare(theta)
    ours, other = agreement(ugc(), problem), agreement(disarm(), problem)
    clipped = (-theta.abs()).sigmoid() < 0.1
    assert clipped[:2].all()
    assert torch.equal(ours.gradients[:, ~clipped], other.gradients[:, ~clipped])
    gap = (other.gradients - other.truth).square() - (ours.gradients - ours.truth).square()
    mean, se = gap.mean(0)[clipped], gap.std(0)[clipped] / math.sqrt(len(gap))
    assert (mean > -4 * se).all()
    assert mean.sum() > 4 * se.square().sum().sqrt()


def test_clipping_may_add_variance_where_all_bits_turned_cancel(agreement):
    """The parity of an even number of bits, the others fair: DisARM's pair never differs in f where the rare bit differs."""
    theta = torch.tensor([-3.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    problem = Problem("parity", Bernoulli, theta, lambda x: (1 - 2 * x).prod(-1))
    ours, other = agreement(ugc(), problem), agreement(disarm(), problem)
    assert other.variance[0] == 0
    assert abs(ours.variance[0] - 4 * 4 * (theta[0].sigmoid() * (-theta[0]).sigmoid()) ** 2) < 4 * ours.variance_se[0]


def test_without_clipping_it_is_disarm_and_with_all_clipped_bitflip(agreement, small):
    without, all_ = agreement(ugc(clip=0), small("bits"), 512), agreement(ugc(clip=2), small("bits"))
    assert torch.equal(without.gradients, agreement(disarm(), small("bits"), 512).gradients)
    alone = agreement(bitflip(), small("bits"))
    slack = all_.total_variance_se + alone.total_variance_se
    assert abs(all_.total_variance - alone.total_variance) < 4 * slack


def test_one_bit_is_turned():
    b = torch.tensor([[0.0, 1.0, 1.0]] * 4)
    u = torch.tensor([0.0, 0.34, 0.99, 1.0])[:, None]
    assert flipped(b, u).tolist() == [[1, 1, 1], [0, 0, 1], [0, 1, 0], [0, 1, 0]]


def test_certain_bits_keep_the_digits_of_their_gradient(agreement):
    """p (1 - p) of p = sigmoid(30), and of none at 800."""
    bits = Problem("bits", Bernoulli, torch.tensor([30.0, -800.0], dtype=torch.float64), lambda x: x.sum(-1))
    for estimator in (bitflip(), ugc()):
        found = agreement(estimator, bits, replicates=64)
        turned = found.gradients[found.gradients[:, 0] != 0, 0]
        assert turned.numpy() == pytest.approx(2 * 9.357622968839299e-14, rel=1e-13)
        assert (found.gradients[:, 1] == 0).all()


def test_what_does_not_fit_is_refused(small):
    with pytest.raises(ValueError, match=r"ugc\[clip=-1\]: clip must be at least 0"):
        ugc(-1)
    assert "bitflip is for bernoulli variables" in mismatch(bitflip(), small("categories"))
