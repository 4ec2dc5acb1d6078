"""IndeCateR: agreement, its variance against local expectation, counts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from estimators.base import mismatch
from estimators.indecater import indecater
from estimators.local_expectation import local_expectation
from problems.base import Problem
from problems.families.bernoulli import Bernoulli
from problems.families.categorical import Categorical

PAIRS = [
    ("bits elbo", 3 * 2),
    ("categories", 2 * 3),
    ("amortised bits elbo", 3 * 2 * 2),
    ("amortised categories", 3 * 2 * 3),
]
FRESH = ["site", "value"]


@pytest.mark.parametrize("fresh", FRESH)
@pytest.mark.parametrize(("problem", "evaluations"), PAIRS)
@pytest.mark.parametrize("samples", [1, 2])
def test_it_agrees_with_the_exact_gradient(agreement, small, problem, evaluations, samples, fresh):
    found = agreement(indecater(samples, fresh), small(problem))
    assert found.z < found.allowed
    assert (found.f, found.df) == (samples * evaluations, 0)


@pytest.mark.parametrize("fresh", FRESH)
def test_rows_drawn_for_each_replicate_agree(agreement, small, fresh):
    found = agreement(indecater(2, fresh), replace(small("amortised categories elbo"), batch=2))
    assert found.z < found.allowed


@pytest.mark.parametrize("problem", ["bits", "categories"])
def test_values_in_a_wrong_order_are_seen(agreement, small, problem):
    right = indecater(2)

    def wrong(q, fx):
        return right.combine(q, fx.unflatten(0, (2, -1, q.theta.shape[0])).roll(1, 1).flatten(0, 2))

    found = agreement(replace(right, combine=wrong), small(problem))
    assert found.z > found.allowed


@pytest.mark.parametrize("problem", ["bits elbo", "categories"])
def test_each_coordinate_has_the_variance_of_local_expectation_and_sites_are_independent(agreement, small, problem):
    p = small(problem)
    ours, shared = agreement(indecater(), p), agreement(local_expectation(), p)
    slack = ours.variance_se + shared.variance_se
    assert ((ours.variance - shared.variance).abs() < 4.5 * slack).all()
    D = p.theta.shape[0]
    g = (ours.gradients - ours.mean).unflatten(1, (D, -1))
    for i in range(D):
        for j in range(i):
            products = g[:, i, :, None] * g[:, j, None, :]
            z = products.mean(0) / products.std(0).clamp(min=1e-300) * len(g) ** 0.5
            assert z.abs().max() < 4.5


def test_fresh_draws_for_each_value_give_more_variance_on_a_sum_of_terms(agreement, small):
    """With the same draws the other sites' terms cancel between the values of a site, to the last digit."""
    theta = torch.tensor([[0.3, -0.5, 0.8], [1.1, 0.2, -0.9]], dtype=torch.float64)
    A = torch.tensor([[1.0, -2.0, 0.5], [3.0, 0.1, -1.0]], dtype=torch.float64)
    additive = Problem("additive", Categorical, theta, lambda x: (x * A).sum((-2, -1)))
    site, value = agreement(indecater(), additive), agreement(indecater(fresh="value"), additive)
    assert site.total_variance < 1e-25
    assert value.total_variance > 0.1


@pytest.mark.parametrize("fresh", FRESH)
def test_on_one_site_it_is_exact(agreement, fresh):
    theta = torch.tensor([[0.3, -0.5, 0.8, -9.0]], dtype=torch.float64)
    one = Problem("one", Categorical, theta, lambda x: (x[..., 0, :] @ theta[0]).exp())
    bit = Problem("bit", Bernoulli, theta[:, 0], lambda x: (x[..., 0] - 0.4) ** 3)
    for problem in (one, bit):
        found = agreement(indecater(1, fresh), problem, replicates=64)
        assert torch.allclose(found.gradients, found.truth.expand(64, -1), rtol=0, atol=1e-14)


def test_a_nearly_certain_bit_keeps_the_digits_of_its_gradient(agreement):
    bit = Problem("bit", Bernoulli, torch.tensor([30.0], dtype=torch.float64), lambda x: x[..., 0])
    found = agreement(indecater(), bit, replicates=16)
    assert found.gradients.numpy() == pytest.approx(9.357622968839299e-14, rel=1e-13)


def test_what_makes_no_sense_is_refused(small):
    with pytest.raises(ValueError, match=r"indecater\[samples=0\]"):
        indecater(0)
    with pytest.raises(ValueError, match="fresh is site or value"):
        indecater(fresh="draw")
    assert "indecater is for bernoulli or categorical variables" in mismatch(indecater(), small("layers"))
