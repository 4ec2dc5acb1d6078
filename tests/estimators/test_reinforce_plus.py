"""REINFORCE+: unbiased, and of the variance that its baseline's own noise gives it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from estimators.reinforce_plus import reinforce_plus
from estimators.score_function import rloo

PROBLEMS = [
    "bits elbo",
    "categories",
    "normals elbo",
    "counts",
    "amortised bits elbo",
    "amortised categories",
    "layers elbo",
    "layers of categories",
]


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("samples", [1, 3])
def test_it_agrees_with_the_exact_gradient(agreement, small, problem, samples):
    found = agreement(reinforce_plus(samples), small(problem), replicates=8192)
    assert found.z < found.allowed
    assert (found.f, found.df) == (2 * samples * max(small(problem).rows, 1), 0)


def test_rows_drawn_for_each_replicate_agree(agreement, small):
    found = agreement(reinforce_plus(), replace(small("amortised bits elbo"), batch=2), replicates=8192)
    assert found.z < found.allowed


def test_a_draw_that_is_its_own_baseline_is_seen(agreement, small):
    """The mean of both values of f as the baseline: half of the gradient."""

    def combine(q, x, fx):
        return q.score(x[:1], fx[:1] - fx.mean(0))

    found = agreement(replace(reinforce_plus(), combine=combine), small("bits"))
    assert found.z > found.allowed


def variance_of_the_exact_mean_baseline_and_of_it(problem):
    """By enumeration: E[(f - E f)^2 s^2] - g^2, and Var f E[s^2] more."""
    q = problem.bind(problem.theta)
    x = q.support()
    weight, s, fx = q.log_prob(x).exp()[:, None], q.local(x).flatten(1), problem.f(x)[:, None]
    centred = fx - (weight * fx).sum()
    g = (weight * fx * s).sum(0)
    least = (weight * (centred * s) ** 2).sum(0) - g**2
    return least, least + (weight * centred**2).sum() * (weight * s**2).sum(0), g


@pytest.mark.parametrize("problem", ["bits", "categories"])
def test_its_variance_is_that_of_the_mean_and_of_the_noise_of_its_baseline(agreement, small, problem):
    _, wanted, _ = variance_of_the_exact_mean_baseline_and_of_it(small(problem))
    for samples in (1, 4):
        found = agreement(reinforce_plus(samples), small(problem), replicates=65_536)
        assert ((found.variance - wanted / samples).abs() < 4.5 * found.variance_se).all()


@pytest.mark.parametrize("problem", ["bits", "categories"])
def test_it_has_twice_the_variance_of_leave_one_out_less_the_square_of_the_gradient(agreement, small, problem):
    _, wanted, g = variance_of_the_exact_mean_baseline_and_of_it(small(problem))
    other = agreement(rloo(2), small(problem), replicates=65_536)
    assert ((2 * other.variance - g**2 - wanted).abs() < 4.5 * 2 * other.variance_se).all()


def test_leave_one_out_is_its_mean_over_both_orders_of_the_same_two_draws(agreement, small):
    right, problem = reinforce_plus(), small("bits elbo")
    turned = replace(right, combine=lambda q, x, fx: right.combine(q, x.flip(0), fx.flip(0)))
    one, two, both = (agreement(e, problem, replicates=512) for e in (right, turned, rloo(2)))
    assert torch.allclose((one.gradients + two.gradients) / 2, both.gradients, rtol=0, atol=1e-13)


def test_no_samples_are_refused():
    with pytest.raises(ValueError, match=r"reinforce_plus\[samples=0\]: samples must be at least 1"):
        reinforce_plus(0)
