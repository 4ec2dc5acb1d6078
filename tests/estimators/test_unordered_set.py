"""The unordered set estimator: its weights against brute force, its mean by enumeration of the sets, and agreement."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations, permutations

import pytest
import torch

from bench.evaluate import gradients, prepare
from estimators.base import mismatch
from estimators.score_function import rloo
from estimators.unordered_set import chances, log_drawing, unordered_set

PROBLEMS = [
    "bits",
    "bits elbo",
    "categories elbo",
    "amortised bits elbo",
    "amortised categories",
    "layers",
    "layers of categories",
]


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("samples", [2, 3])
def test_it_agrees_with_the_exact_gradient(agreement, small, samples, problem):
    found = agreement(unordered_set(samples=samples), small(problem))
    assert found.z < found.allowed
    assert (found.f, found.df) == (samples * max(small(problem).rows, 1), 0)


@pytest.mark.parametrize("problem", ["bits elbo", "amortised categories"])
@pytest.mark.parametrize("samples", [1, 3])
def test_without_the_baseline_it_agrees_as_well(agreement, small, samples, problem):
    found = agreement(unordered_set(samples=samples, baseline=False), small(problem))
    assert found.z < found.allowed


def test_rows_drawn_for_each_replicate_agree(agreement, small):
    found = agreement(unordered_set(), replace(small("amortised bits elbo"), batch=2))
    assert found.z < found.allowed


def expected_over_sets(problem, samples, combine):
    """sum_S P(S) g(S) over all sets, each made the first `samples` by its noise."""
    q = problem.bind(problem.theta)
    support = q.support()
    log_q = q.log_prob(support)
    sets = list(combinations(range(len(support)), samples))
    noise = torch.zeros(len(sets), len(support), dtype=torch.float64)
    for row, S in enumerate(sets):
        noise[row, list(S)] = 1e6
    e = unordered_set(samples=samples)
    x = e.draw(q, noise)
    fx = problem.f(x) - q.log_prob(x) if problem.objective.ratio else problem.f(x)
    P = torch.tensor([by_permutations(log_q.exp(), S) for S in sets], dtype=torch.float64)
    assert P.sum().item() == pytest.approx(1)
    g = combine(e)(q, noise, x, fx)
    return (P.reshape(-1, *[1] * (g.ndim - 1)) * g).sum(0), (P * e.value(q, noise, fx)).sum()


def by_permutations(p, S):
    """P(S): the chance of drawing S without replacement, summed over its orders."""
    total = 0.0
    for order in permutations(S):
        left, chance = 1.0, 1.0
        for i in order:
            chance, left = chance * float(p[i]) / left, left - float(p[i])
        total += chance
    return total


@pytest.mark.parametrize("problem", ["bits", "bits elbo", "categories"])
@pytest.mark.parametrize("samples", [2, 3, 4])
def test_its_mean_over_all_sets_is_the_exact_gradient(agreement, small, samples, problem):
    p = small(problem)
    mean, value = expected_over_sets(p, samples, lambda e: e.combine)
    truth = agreement(rloo(), p, replicates=4).truth
    torch.testing.assert_close(mean.reshape(-1), truth, rtol=1e-10, atol=1e-10)
    q = p.bind(p.theta)
    x = q.support()
    fx = p.f(x) - q.log_prob(x) if p.objective.ratio else p.f(x)
    assert value.item() == pytest.approx((q.log_prob(x).exp() * fx).sum().item(), rel=1e-10)


def first_order(e):
    """The value sum_j q_j R(S, j) f_j as the baseline of every i: it depends on whether i is in S."""

    def combine(q, noise, x, fx):
        log_q, log_P = chances(q, noise, len(fx))
        S = frozenset(range(len(fx)))
        weight = torch.stack([(log_q[i] + log_P[S - {i}] - log_P[S]).exp() for i in S])
        return q.score(x, weight * (fx - (weight * fx).sum(0)))

    return combine


def test_a_baseline_without_the_second_order_ratio_is_seen(small):
    right, _ = expected_over_sets(small("bits"), 3, lambda e: e.combine)
    wrong, _ = expected_over_sets(small("bits"), 3, first_order)
    assert (wrong - right).abs().max() > 0.01


def test_the_chances_are_those_of_all_orders():
    p = torch.tensor([0.4, 0.05, 0.2, 0.1], dtype=torch.float64)
    rest = torch.tensor(0.25, dtype=torch.float64)
    found = log_drawing(p.log(), rest.log())
    for size in range(5):
        for A in combinations(range(4), size):
            gone = 1 - sum(float(p[i]) for i in range(4) if i not in A)
            expected = by_permutations(p / gone, A)
            assert math.exp(found[frozenset(A)].item()) == pytest.approx(expected, rel=1e-12)


def test_the_whole_support_is_the_exact_gradient(agreement, small):
    found = agreement(unordered_set(samples=8), small("bits"), replicates=16)
    assert (found.gradients - found.truth).abs().max() < 1e-13


def test_it_has_less_variance_than_leave_one_out(agreement, small):
    ours, other = (agreement(e, small("bits elbo")) for e in (unordered_set(samples=3), rloo(samples=3)))
    assert ours.total_variance < other.total_variance - 4 * other.total_variance_se


@pytest.mark.parametrize("problem", ["bits elbo", "categories elbo"])
def test_the_baseline_takes_variance_off(agreement, small, problem):
    """On the same sets; as published, and no theorem (of some layers it does not)."""
    p = small(problem)
    with_it, without = (agreement(unordered_set(3, baseline), p) for baseline in (True, False))
    gap = (without.gradients - without.mean).square().sum(1) - (with_it.gradients - with_it.mean).square().sum(1)
    assert gap.mean() > 5 * gap.std() / len(gap) ** 0.5


@pytest.mark.parametrize("problem", ["bits elbo", "categories"])
@pytest.mark.parametrize("logit", [30.0, 200.0])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_probabilities_that_round_to_certainty_give_finite_gradients(small, problem, dtype, logit):
    base = small(problem)
    trial = prepare(unordered_set(samples=3), replace(base, theta=logit * base.theta.sign()), dtype=dtype)
    assert gradients(trial, range(512)).isfinite().all()


def test_settings_and_supports_that_make_no_sense_are_refused(small):
    with pytest.raises(ValueError, match=r"samples=1\]"):
        unordered_set(samples=1)
    with pytest.raises(ValueError, match=r"states=2\]"):
        unordered_set(samples=3, states=2)
    assert "infinite support" in mismatch(unordered_set(), small("normals"))
