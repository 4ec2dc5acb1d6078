"""Local expectation gradients of bits and categories."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from estimators.base import mismatch
from estimators.local_expectation import local_expectation
from estimators.measure_valued import measure_valued_bernoulli
from estimators.replaced import replaced
from estimators.score_function import reinforce
from problems.base import Problem
from problems.families.bernoulli import Bernoulli
from problems.families.categorical import Categorical
from problems.objectives import Elbo

PAIRS = [
    ("bits", 1 + 3),
    ("categories", 1 + 2 * 2),
    ("amortised bits", 3 * (1 + 2)),
    ("amortised categories", 3 * (1 + 4)),
]


@pytest.mark.parametrize("objective", ["", " elbo"])
@pytest.mark.parametrize(("problem", "evaluations"), PAIRS)
@pytest.mark.parametrize("samples", [1, 2])
def test_it_agrees_with_the_exact_gradient(agreement, small, problem, evaluations, samples, objective):
    found = agreement(local_expectation(samples), small(problem + objective))
    assert found.z < found.allowed
    assert (found.f, found.df) == (samples * evaluations, 0)


@pytest.mark.parametrize("problem", ["amortised bits elbo", "amortised categories"])
def test_rows_drawn_for_each_replicate_agree(agreement, small, problem):
    found = agreement(local_expectation(2), replace(small(problem), batch=2))
    assert found.z < found.allowed


@pytest.mark.parametrize("problem", ["bits", "categories", "amortised categories elbo"])
def test_a_wrong_divisor_and_sites_in_a_wrong_order_are_seen(agreement, small, problem):
    right = local_expectation(2)

    def scaled(q, x, fx):
        return 1.1 * right.combine(q, x, fx)

    def crossed(q, x, fx):
        """f at the points of the sites in the opposite order."""
        return right.combine(q, x, torch.cat([fx[:2], fx[2:].flip(0)]))

    for wrong in (scaled, crossed):
        found = agreement(replace(right, combine=wrong), small(problem), replicates=65_536)
        assert found.z > found.allowed, wrong.__name__


@pytest.mark.parametrize("objective", [None, Elbo()])
def test_on_one_site_it_is_exact(agreement, objective):
    theta = torch.tensor([[0.3, -0.5, 0.8, -9.0]], dtype=torch.float64)
    optional = {"objective": objective} if objective else {}
    one = Problem("one", Categorical, theta, lambda x: (x[..., 0, :] @ theta[0]).exp(), **optional)
    bit = Problem("bit", Bernoulli, theta[:, 0], lambda x: (x[..., 0] - 0.4) ** 3, **optional)
    for problem in (one, bit):
        found = agreement(local_expectation(), problem, replicates=256)
        assert torch.allclose(found.gradients, found.truth.expand(256, -1), rtol=0, atol=1e-14)


@pytest.mark.parametrize("problem", ["bits elbo", "categories"])
def test_it_has_less_variance_than_the_score_function_in_every_coordinate(agreement, small, problem):
    """It is the score function's mean over each site given the others."""
    ours, other = agreement(local_expectation(), small(problem)), agreement(reinforce(), small(problem))
    assert (ours.variance < other.variance - 4 * (ours.variance_se + other.variance_se)).all()


def test_in_a_parameter_that_sites_share_it_may_have_more_variance_than_the_score_function(agreement):
    """f = 1[b_1 != b_2] of two fair bits of one logit: the scores cancel where f is 1; the means over each do not."""

    def differ(x):
        return (x[..., 0] - x[..., 1]).square()

    encode = {"encode": lambda w, data: w.expand(*data.shape[:-1], 2), "data": torch.zeros(1, 1, dtype=torch.float64)}
    problem = Problem("shared", Bernoulli, torch.zeros(1, dtype=torch.float64), lambda x, data: differ(x), **encode)
    ours, other = agreement(local_expectation(), problem), agreement(reinforce(), problem)
    assert other.variance == 0
    assert abs(ours.variance - 1 / 8) < 4 * ours.variance_se  # (1 - b_1 - b_2) / 2


def test_on_bits_it_is_the_measure_valued_gradient_of_the_same_draw(agreement, small):
    ours, other = (agreement(e, small("bits elbo"), 512) for e in (local_expectation(), measure_valued_bernoulli()))
    assert torch.allclose(ours.gradients, other.gradients, rtol=0, atol=1e-13)


def test_draws_are_averaged(agreement, small):
    one, three = agreement(local_expectation(), small("bits")), agreement(local_expectation(3), small("bits"))
    slack = one.total_variance_se / 3 + three.total_variance_se
    assert abs(one.total_variance / 3 - three.total_variance) < 4 * slack


def test_a_nearly_certain_bit_keeps_the_digits_of_its_gradient(agreement):
    """p (1 - p) of p = sigmoid(30), to rounding."""
    bit = Problem("bit", Bernoulli, torch.tensor([30.0], dtype=torch.float64), lambda x: x[..., 0])
    found = agreement(local_expectation(), bit, replicates=16)
    assert found.gradients.numpy() == pytest.approx(9.357622968839299e-14, rel=1e-13)


def test_a_one_hot_site_is_replaced_whole():
    x = torch.eye(3)[[0, 2]]  # two sites, categories 0 and 2
    points = replaced(x, x.roll(1, -1)[None], -2).argmax(-1)
    assert points.tolist() == [[1, 2], [0, 0]]


def test_what_does_not_fit_is_refused(small):
    with pytest.raises(ValueError, match=r"local_expectation\[samples=0\]: samples must be at least 1"):
        local_expectation(0)
    assert "local_expectation is for bernoulli or categorical or chain of bernoulli" in mismatch(
        local_expectation(), small("normals")
    )
