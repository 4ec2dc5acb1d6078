"""Stratified and systematic sampling of the joint states: agreement, exact variance, and one sample."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench.evaluate import gradients, prepare
from estimators.base import mismatch
from estimators.score_function import reinforce
from estimators.stratified import stratified

DESIGNS = ["stratified", "systematic"]
PROBLEMS = [
    "bits elbo",
    "categories",
    "amortised bits elbo",
    "amortised categories",
    "layers",
    "layers of categories elbo",
]


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_it_agrees_with_the_exact_gradient(agreement, small, design, problem):
    found = agreement(stratified(3, design, baseline=0.4), small(problem))
    assert found.z < found.allowed
    assert (found.f, found.df) == (3 * max(small(problem).rows, 1), 0)


@pytest.mark.parametrize("design", DESIGNS)
def test_rows_drawn_for_each_replicate_agree(agreement, small, design):
    found = agreement(stratified(2, design), replace(small("amortised bits elbo"), batch=2))
    assert found.z < found.allowed


@pytest.mark.parametrize("design", DESIGNS)
def test_a_leave_one_out_baseline_would_be_seen(agreement, small, design):
    """The samples depend on one another."""

    def wrong(q, x, fx):
        return q.score(x, (fx - fx.mean(0)) / (len(fx) - 1))

    found = agreement(replace(stratified(3, design), combine=wrong), small("bits elbo"))
    assert found.z > found.allowed


def masses(chance, strata):
    """The mass that each of the strata gives to each state: `[K, S]`, every row summing to one."""
    ends = torch.cat([chance.new_zeros(1), chance.cumsum(0)])
    k = torch.arange(strata, dtype=chance.dtype)[:, None]
    high = torch.minimum(ends[1:], (k + 1) / strata)
    return (high - torch.maximum(ends[:-1], k / strata)).clamp(min=0) * strata


@pytest.mark.parametrize("samples", [2, 3, 5])
def test_its_variance_is_that_within_the_strata_and_less_than_that_of_independent_samples(agreement, small, samples):
    """1/K^2 sum_k Var_k[f grad log q]; independent: 1/K Var[f grad log q]."""
    p = small("bits elbo")
    q = p.bind(p.theta)
    x = q.support()
    chance = q.log_prob(x).exp()
    term = (p.f(x) - q.log_prob(x))[:, None] * q.local(x)
    within = masses(chance, samples)
    assert torch.allclose(within.mean(0), chance, atol=1e-12)
    exact = (within @ term**2 - (within @ term) ** 2).sum(0) / samples**2
    independent = (chance @ term**2 - (chance @ term) ** 2) / samples
    found, plain = agreement(stratified(samples), p), agreement(reinforce(samples), p)
    assert ((found.variance - exact).abs() < 4.5 * found.variance_se).all()
    assert ((plain.variance - independent).abs() < 4.5 * plain.variance_se).all()
    assert (exact < independent).all()


def test_one_sample_of_either_design_is_the_same_and_is_the_score_function(agreement, small):
    p = small("categories elbo")
    one, other = (gradients(prepare(stratified(1, design), p), range(256)) for design in DESIGNS)
    assert torch.equal(one, other)
    found, plain = agreement(stratified(1), p), agreement(reinforce(), p)
    assert found.z < found.allowed
    assert ((found.variance - plain.variance).abs() < 4.5 * (found.variance_se + plain.variance_se)).all()


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("logit", [0.0, 30.0, 200.0])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_probabilities_that_round_to_certainty_give_finite_gradients(small, design, logit, dtype):
    base = small("categories")
    trial = prepare(stratified(3, design), replace(base, theta=logit * base.theta.sign()), dtype=dtype)
    assert gradients(trial, range(512)).isfinite().all()


def test_what_makes_no_sense_is_refused(small):
    with pytest.raises(ValueError, match=r"samples=0\]"):
        stratified(0)
    with pytest.raises(ValueError, match="design is stratified or systematic"):
        stratified(design="sobol")
    assert "infinite support" in mismatch(stratified(), small("counts"))
    assert "at most 4 states" in mismatch(stratified(states=4), small("bits"))
