"""The score function with samples of a flatter q."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from estimators.base import claim_of, mismatch
from estimators.off_policy import off_policy
from estimators.score_function import reinforce, rloo
from problems.base import Problem
from problems.families.bernoulli import Bernoulli
from problems.truth import log_probability

PROBLEMS = [
    "bits elbo",
    "categories",
    "normals",
    "normals elbo",
    "amortised bits elbo",
    "amortised categories",
    "amortised normals elbo",
]


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("settings", [{"samples": 1, "temperature": 2.0}, {"samples": 3, "baseline": "leave_one_out"}])
def test_it_agrees_with_the_exact_gradient(agreement, small, problem, settings):
    found = agreement(off_policy(**settings), small(problem))
    assert found.z < found.allowed
    assert (found.f, found.df) == (settings["samples"] * max(small(problem).rows, 1), 0)


def test_rows_drawn_for_each_replicate_agree(agreement, small):
    found = agreement(off_policy(), replace(small("amortised bits elbo"), batch=2))
    assert found.z < found.allowed


@pytest.mark.parametrize("problem", ["bits elbo", "categories", "normals elbo", "amortised bits elbo"])
def test_at_temperature_1_it_is_the_score_function(agreement, small, problem):
    def gradients(estimator):
        return agreement(estimator, small(problem), replicates=512).gradients

    assert torch.equal(gradients(off_policy(4, 1.0)), gradients(reinforce(4)))
    ours, other = gradients(off_policy(4, 1.0, "leave_one_out")), gradients(rloo(4))
    assert torch.allclose(ours, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("problem", ["bits", "categories"])
def test_without_the_weights_the_bias_is_seen(agreement, small, problem):
    def combine(q, x, fx):
        return q.score(x, fx / len(fx))

    found = agreement(replace(off_policy(), combine=combine), small(problem))
    assert found.z > found.allowed


def test_a_sample_in_its_own_baseline_is_seen(agreement, small):
    right = off_policy(2, 2.0, "leave_one_out")

    def combine(q, x, fx):
        return right.combine(q, x, fx) / 2

    found = agreement(replace(right, combine=combine), small("bits elbo"))
    assert found.z > found.allowed


@pytest.mark.parametrize("problem", ["bits", "categories elbo"])
def test_its_variance_is_the_sum_over_the_support(agreement, small, problem):
    """E_r[(w f s_i)^2] - g_i^2."""
    p = small(problem)
    q, r = p.bind(p.theta), p.bind(p.theta / 2)
    x = q.support()
    log_q, log_r = log_probability(q, x), log_probability(r, x)
    fx, s = (p.f(x) - log_q * p.objective.ratio)[:, None], q.local(x).flatten(1)
    second = ((2 * log_q - log_r).exp()[:, None] * (fx * s) ** 2).sum(0)
    g = (log_q.exp()[:, None] * fx * s).sum(0)
    found = agreement(off_policy(1, 2.0), p, replicates=65_536)
    assert ((found.variance - (second - g**2)).abs() < 4.5 * found.variance_se).all()


def test_a_rare_bit_on_which_f_depends_is_seen_more_often(agreement):
    """f = b, p = 1/100: variance p^2 (1 - p)^2 (1/r - 1), r = sigmoid(logit p / 2), against p (1 - p)^3 of the score function."""
    p = torch.tensor([0.01], dtype=torch.float64)
    problem = Problem("rare", Bernoulli, p.logit(), lambda x: x[..., 0])
    r = (p.logit() / 2).sigmoid()
    ours, other = (agreement(e, problem, replicates=65_536) for e in (off_policy(1, 2.0), reinforce()))
    wanted = p**2 * (1 - p) ** 2 * (1 / r - 1)
    assert ((ours.variance - wanted).abs() < 4.5 * ours.variance_se).all()
    assert ours.total_variance < other.total_variance / 5


@pytest.mark.parametrize("baseline", ["none", "leave_one_out"])
def test_self_normalised_its_mean_is_that_over_all_groups(agreement, small, baseline):
    problem, K = small("bits"), 2
    theta = problem.theta.clone().requires_grad_()
    q, r = problem.bind(problem.theta), problem.bind(problem.theta / 2)
    x = q.support()
    index = torch.cartesian_prod(*[torch.arange(len(x))] * K)
    w = (log_probability(q, x) - log_probability(r, x)).exp()[index]
    f = problem.f(x)[index]
    advantage = f - f.flip(1) if baseline != "none" else f
    chance = log_probability(r, x)[index].sum(1).exp()
    score = log_probability(problem.bind(theta), x)[index]
    (wanted,) = torch.autograd.grad((chance * (w / w.sum(1, keepdim=True) * advantage * score).sum(1)).sum(), theta)
    ours = off_policy(K, 2.0, baseline, self_normalised=True)
    found = agreement(ours, replace(problem, exact=lambda _: wanted))
    assert found.z < found.allowed
    assert claim_of(ours, problem) == "consistent"


def test_self_normalised_its_bias_vanishes_as_samples_are_added(agreement, small):
    """As 1/K: times K it stays of one size."""
    few, many = (agreement(off_policy(k, 2.0, self_normalised=True), small("bits"), 65_536) for k in (2, 32))
    bias_few, bias_many = ((one.mean - one.truth).norm() for one in (few, many))
    noise = many.total_variance**0.5 / 256
    assert bias_few > 8 * bias_many - 8 * 3 * noise
    assert few.z > few.allowed


def test_logits_of_30_and_weights_of_all_sizes_give_numbers(agreement):
    theta = torch.tensor([30.0, -30.0, 0.5], dtype=torch.float64)
    problem = Problem("far", Bernoulli, theta, lambda x: x.sum(-1))
    for settings in ({}, {"samples": 3, "baseline": "leave_one_out", "self_normalised": True}):
        agreement(off_policy(temperature=20.0, **settings), problem, replicates=4096)  # asserts that they are finite


def test_what_does_not_fit_is_refused(small):
    assert "off_policy is for bernoulli or categorical or normal" in mismatch(off_policy(), small("layers"))
    for settings, why in [
        ({"samples": 0}, r"samples=0\]: samples must be at least 1"),
        ({"samples": 1, "self_normalised": True}, r"samples=1\]: samples must be at least 2"),
        ({"samples": 1, "baseline": "leave_one_out"}, r"samples=1\]: samples must be at least 2"),
        ({"temperature": 0.5}, r"temperature=0.5\]: temperature must be at least 1"),
        ({"baseline": "mean"}, r"baseline=mean\]"),
    ]:
        with pytest.raises(ValueError, match=why):
            off_policy(**settings)
