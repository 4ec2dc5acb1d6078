"""The score function with the exact mean of f as its baseline."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from estimators.base import mismatch
from estimators.exact_mean_baseline import exact_mean_baseline
from estimators.reinforce_plus import reinforce_plus
from estimators.score_function import reinforce
from problems.bernoulli_toy import bernoulli_toy

PROBLEMS = [
    ("bits", 8),
    ("categories elbo", 9),
    ("amortised bits elbo", 4),
    ("amortised categories", 9),
    ("layers elbo", 16),
    ("layers of categories", 9),
]


@pytest.mark.parametrize(("problem", "states"), PROBLEMS)
@pytest.mark.parametrize("samples", [1, 3])
def test_it_agrees_with_the_exact_gradient(agreement, small, problem, states, samples):
    found = agreement(exact_mean_baseline(samples), small(problem), replicates=8192)
    assert found.z < found.allowed
    assert (found.f, found.df) == ((samples + states) * max(small(problem).rows, 1), 0)


def test_rows_drawn_for_each_replicate_agree(agreement, small):
    found = agreement(exact_mean_baseline(), replace(small("amortised bits elbo"), batch=2), replicates=8192)
    assert found.z < found.allowed


@pytest.mark.parametrize("theta", [0.5, -1.0, 2.0])
def test_on_one_bit_its_variance_is_the_closed_form(agreement, theta):
    """(f(1) - f(0))^2 p (1 - p) (1 - 2 p)^2: E[(b - p)^4] - (p (1 - p))^2, and none where p = 1/2."""
    toy = bernoulli_toy(dim=1, target=0.3)
    problem = replace(toy, theta=torch.tensor([theta], dtype=torch.float64), points={})
    p = problem.theta.sigmoid()
    wanted = (1 - 2 * 0.3) ** 2 * p * (1 - p) * (1 - 2 * p) ** 2
    found = agreement(exact_mean_baseline(), problem)
    assert ((found.variance - wanted).abs() < 4.5 * found.variance_se).all()
    even = agreement(exact_mean_baseline(), replace(problem, theta=torch.zeros(1, dtype=torch.float64)), replicates=64)
    assert torch.allclose(even.gradients, even.truth.expand(64, 1), rtol=1e-14)


@pytest.mark.parametrize("problem", ["bits elbo", "categories"])
def test_a_baseline_with_noise_of_its_own_and_none_at_all_have_more_variance(agreement, small, problem):
    ours, noisy, none = (agreement(e, small(problem)) for e in (exact_mean_baseline(), reinforce_plus(), reinforce()))
    assert ours.total_variance < noisy.total_variance - 4 * (ours.total_variance_se + noisy.total_variance_se)
    assert ours.total_variance < none.total_variance - 4 * (ours.total_variance_se + none.total_variance_se)


def test_a_constant_is_seen_as_one(agreement, small):
    constant = replace(small("bits"), f=lambda x: 0 * x[..., 0] + 5.0)
    assert agreement(exact_mean_baseline(), constant, replicates=64).gradients.abs().max() < 1e-14


def test_a_wrong_divisor_is_seen(agreement, small):
    right = exact_mean_baseline(2)

    def scaled(q, x, fx):
        return 1.1 * right.combine(q, x, fx)

    found = agreement(replace(right, combine=scaled), small("bits elbo"))
    assert found.z > found.allowed


def test_what_does_not_fit_is_refused(small):
    assert "an infinite support" in mismatch(exact_mean_baseline(), small("normals"))
    assert "at most 4 states; bits has 8 states" in mismatch(exact_mean_baseline(states=4), small("bits"))
    with pytest.raises(ValueError, match=r"exact_mean_baseline\[samples=0\]"):
        exact_mean_baseline(0)
