"""ARMS: agreement, what it has in common with DisARM and leave-one-out, and the copulas themselves."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from scipy.special import ndtr, ndtri, owens_t
from scipy.stats import multivariate_normal

from estimators.arms import COPULAS, apart_by_gaussian, arms, debias, others, rare_by_dirichlet
from estimators.disarm import disarm
from estimators.score_function import rloo
from problems.base import Problem
from problems.families.bernoulli import Bernoulli

EACH = pytest.mark.parametrize("copula", list(COPULAS))


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def noise_of(copula, seed, *shape):
    u = torch.empty(*shape, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    return u.exponential_(generator=generator) if copula == "dirichlet" else u.normal_(generator=generator)


@pytest.mark.parametrize("problem", ["bits", "bits elbo", "amortised bits elbo"])
@pytest.mark.parametrize("samples", [2, 3, 4, 7])
@EACH
def test_it_agrees_with_the_exact_gradient(agreement, small, samples, problem, copula):
    found = agreement(arms(samples, copula), small(problem))
    assert found.z < found.allowed
    assert (found.f, found.df) == (samples * max(small(problem).rows, 1), 0)


def test_rows_drawn_for_each_replicate_agree(agreement, small):
    found = agreement(arms(3), replace(small("amortised bits elbo"), batch=2))
    assert found.z < found.allowed


@pytest.mark.parametrize("factor_of", [0, 2])
@pytest.mark.parametrize("problem", ["bits", "amortised bits elbo"])
@EACH
def test_a_wrong_factor_is_seen(agreement, small, problem, copula, factor_of):
    """Leave-one-out as if the samples were independent; the factor of two samples."""
    right, law = arms(3, copula), COPULAS[copula]

    def wrong(theta, x, fx):
        factor = debias(theta, factor_of, law) if factor_of else 1
        return right.combine(theta, x, fx) / debias(theta, 3, law) * factor

    found = agreement(replace(right, combine=wrong), small(problem), replicates=65_536)
    assert found.z > found.allowed


def test_samples_that_are_independent_are_seen(agreement, small):
    def independent(q, noise):
        return q.sample(torch.exp(-noise))

    found = agreement(replace(arms(3), draw=independent), small("bits"), replicates=65_536)
    assert found.z > found.allowed


@pytest.mark.parametrize("samples", [2, 3, 4, 8])
@EACH
def test_the_law_of_two_samples_bits(samples, copula):
    """P(b_k = 1) = p and 1 / (1 - rho) = p (1 - p) / (p - P(b_1 = b_2 = 1)), within 4 standard errors of each mean."""
    p, n = tensor(0.02, 0.3, 0.5, 0.6, 0.95), 400_000
    theta = (p / (1 - p)).log()
    law = COPULAS[copula]
    x = arms(samples, copula).draw(theta, noise_of(copula, 5, samples, n, len(p)))
    for k in range(samples):
        assert ((x[k].mean(0) - p).abs() < 4 * (p * (1 - p) / n).sqrt()).all()
    one_only = p * (1 - p) / debias(theta, samples, law)
    for k in range(1, samples):
        assert (((x[0] * (1 - x[k])).mean(0) - one_only).abs() < 4 * (one_only * (1 - one_only) / n).sqrt()).all()
    assert (debias(theta, samples, law) < 1).all()  # negatively correlated at every p


@EACH
def test_two_samples_are_disarm(agreement, small, copula):
    """The same function of the same pairs of bits: the factor is sigmoid(|theta|), and the rarer bit is never drawn twice."""
    theta = tensor(-3.0, -0.2, 0.4, 5.0)
    assert torch.allclose(debias(theta, 2, COPULAS[copula]), theta.abs().sigmoid(), rtol=1e-14)
    x = arms(2, copula).draw(theta, noise_of(copula, 6, 2, 100_000, 4))
    assert not (x.sum(0)[:, :2] == 2).any()
    assert not (x.sum(0)[:, 2:] == 0).any()
    ours, theirs = agreement(arms(2, copula), small("bits")), agreement(disarm(), small("bits"))
    assert abs(ours.total_variance - theirs.total_variance) < 4 * (ours.total_variance_se + theirs.total_variance_se)


@pytest.mark.parametrize("problem", ["bits", "amortised bits elbo"])
@EACH
def test_it_has_less_variance_than_independent_samples_and_than_pairs(agreement, small, problem, copula):
    ours, *rest = (agreement(e, small(problem)) for e in (arms(4, copula), rloo(4), disarm(4)))
    for other in rest:
        assert ours.total_variance < other.total_variance - 4 * (ours.total_variance_se + other.total_variance_se)


@pytest.mark.parametrize("samples", [2, 3, 5])
def test_the_variance_for_one_bit_is_that_of_a_binomial_count(agreement, samples):
    """f = b: g = c S (K - S) / (K (K - 1)), S the number of ones; at p = 1/2 its law follows from that of the spacings.

    S is the number of k with d_k > 1 - r, r = 2^{-1/(K-1)}; P(S >= j) = sum_i (-1)^{i-j} C(i-1, j-1) C(K, i) (1 - i (1-r))_+^{K-1}.
    """
    K, r = samples, 0.5 ** (1 / (samples - 1))
    tail = [
        sum(
            (-1) ** (i - j) * math.comb(i - 1, j - 1) * math.comb(K, i) * max(1 - i * (1 - r), 0) ** (K - 1)
            for i in range(j, K + 1)
        )
        for j in range(1, K + 1)
    ]
    mass = [a - b for a, b in zip([1.0, *tail], [*tail, 0.0], strict=True)]
    c = float(debias(tensor(0.0), K, COPULAS["dirichlet"]))
    g = [c * s * (K - s) / (K * (K - 1)) for s in range(K + 1)]
    mean = sum(m * a for m, a in zip(mass, g, strict=True))
    variance = sum(m * a * a for m, a in zip(mass, g, strict=True)) - mean**2
    assert mean == pytest.approx(0.25, rel=1e-12)
    found = agreement(arms(K), Problem("one bit", Bernoulli, tensor(0.0), lambda x: x[..., 0]), replicates=65_536)
    assert abs(found.total_variance - variance) < 4 * found.total_variance_se + 1e-12


def test_the_variance_for_a_fair_bit_of_three_gaussian_samples_is_the_closed_form(agreement):
    """f = b: S is 1 or 2, never 0 or 3, as the three sum to nil: g = c 2 / 6, without variance, and c = 3/4."""
    found = agreement(
        arms(3, "gaussian"), Problem("one bit", Bernoulli, tensor(0.0), lambda x: x[..., 0]), replicates=512
    )
    assert torch.allclose(found.gradients, tensor(0.25).expand(512, 1), rtol=0, atol=1e-13)


def test_the_gaussian_copula_is_that_of_scipy_to_twelve_digits():
    """2 T(h, a) / m, T Owen's function; for four samples also the bivariate normal probability itself."""
    theta = torch.linspace(-40, 40, 81, dtype=torch.float64)
    m = (-theta.abs()).sigmoid().numpy()
    for K in (3, 4, 5, 16, 100):
        wanted = 2 * owens_t(ndtri(m), math.sqrt(K / (K - 2))) / m
        assert apart_by_gaussian(theta, K).numpy() == pytest.approx(wanted, rel=1e-12)
    both = multivariate_normal([0, 0], [[1, -1 / 3], [-1 / 3, 1]]).cdf([-0.3, -0.3])
    (one,) = apart_by_gaussian(tensor(ndtr(-0.3)).logit()[None], 4)
    assert float(1 - one) * ndtr(-0.3) == pytest.approx(both, rel=1e-6)


@pytest.mark.parametrize("samples", [2, 3, 16])
@EACH
def test_bits_that_hardly_ever_turn_give_finite_gradients(agreement, small, samples, copula):
    for size in (30.0, 800.0):
        certain = replace(small("bits"), theta=tensor(size, 1.1, -size))
        found = agreement(arms(samples, copula), certain, replicates=4096)
        assert found.z < found.allowed
        assert found.gradients[:, [0, 2]].abs().max() < 1e-11
    factor = debias(tensor(800.0, -800.0), samples, COPULAS[copula])
    assert torch.allclose(factor, tensor(1.0, 1.0), rtol=0, atol=1e-13)


def test_rare_bits_keep_their_probability():
    """p = 1e-7 at two samples, where u_k = e_j / (e_1 + e_2) is far below the rounding of 1 - d_k in float32."""
    p = 1e-7
    theta = torch.tensor([math.log(p / (1 - p))], dtype=torch.float32)
    e = torch.tensor([[20.0], [1.9e-6]], dtype=torch.float32)
    assert rare_by_dirichlet(theta, e).ravel().tolist() == [True, False]
    assert rare_by_dirichlet(theta, e * torch.tensor([[1.0], [1.1]])).ravel().tolist() == [False, False]
    assert arms(2).draw(-theta, e).ravel().tolist() == [0.0, 1.0]


def test_the_sum_of_the_others_has_no_cancellation():
    e = tensor(1e20, 3.0, 5.0)[:, None]
    assert others(e).ravel().tolist() == [8.0, 1e20, 1e20]


@pytest.mark.parametrize("samples", [0, 1])
def test_one_sample_is_refused(samples):
    with pytest.raises(ValueError, match=rf"arms\[samples={samples}\]"):
        arms(samples)


def test_a_copula_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"arms\[copula=clayton\]: copula is dirichlet or gaussian"):
        arms(copula="clayton")
