"""Sum and sample: agreement, its mean over the orders is the unordered set estimator, its exact variance, and its special cases."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, permutations

import pytest
import torch

from bench.evaluate import gradients, prepare
from estimators.base import mismatch
from estimators.score_function import reinforce
from estimators.sum_and_sample import sum_and_sample
from estimators.unordered_set import unordered_set

SETTINGS = [{}, {"samples": 3, "chosen": "drawn"}, {"samples": 3, "baseline": True}]
SETTINGS += [{"samples": 3, "chosen": "drawn", "baseline": True}]
PROBLEMS = [
    "bits elbo",
    "categories",
    "amortised bits elbo",
    "amortised categories",
    "layers",
    "layers of categories elbo",
]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_it_agrees_with_the_exact_gradient(agreement, small, settings, problem):
    e = sum_and_sample(**settings)
    found = agreement(e, small(problem), replicates=8192)
    assert found.z < found.allowed
    assert (found.f, found.df) == (e.settings["samples"] * max(small(problem).rows, 1), 0)


@pytest.mark.parametrize("chosen", ["largest", "drawn"])
def test_rows_drawn_for_each_replicate_agree(agreement, small, chosen):
    found = agreement(sum_and_sample(chosen=chosen), replace(small("amortised bits elbo"), batch=2))
    assert found.z < found.allowed


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_sample_that_weighs_too_much_is_seen(agreement, small, settings):
    right = sum_and_sample(**settings)

    def wrong(q, noise, x, fx):
        return right.combine(q, noise, x, fx) + q.score(x[-1:], 0.1 * fx[-1:])

    found = agreement(replace(right, combine=wrong), small("bits elbo"))
    assert found.z > found.allowed


@pytest.mark.parametrize("problem", ["bits", "categories elbo"])
def test_its_mean_over_the_orders_of_the_drawn_is_the_unordered_set_estimator(small, problem):
    """Rao-Blackwell, exactly: sum over the orders of S of P(order | S) g(order), for every S."""
    p = small(problem)
    q = p.bind(p.theta)
    chance = q.log_prob(q.support()).exp()
    ordered, whole = sum_and_sample(3, "drawn"), unordered_set(3, baseline=False)
    for S in combinations(range(len(chance)), 3):
        orders = list(permutations(S))
        noise = torch.full((len(orders), len(chance)), -1e6, dtype=torch.float64)
        weight = []
        for row, (i, j, k) in enumerate(orders):
            noise[row, [i, j, k]] = torch.tensor([3e6, 2e6, 1e6], dtype=torch.float64)
            weight.append(chance[i] * chance[j] / (1 - chance[i]) * chance[k] / (1 - chance[i] - chance[j]))
        x = ordered.draw(q, noise)
        fx = p.f(x) - q.log_prob(x) if p.objective.ratio else p.f(x)
        g, w = ordered.combine(q, noise, x, fx), torch.stack(weight)
        mean = torch.tensordot(w / w.sum(), g, 1)
        x = whole.draw(q, noise[:1])
        fx = p.f(x) - q.log_prob(x) if p.objective.ratio else p.f(x)
        torch.testing.assert_close(mean, whole.combine(q, noise[:1], x, fx)[0], rtol=1e-9, atol=1e-11)


def test_its_variance_is_that_of_the_sample_of_the_rest(agreement, small):
    """(1 - q(S))^2 Var[f(z') grad log q(z')], z' of the rest; all of it is taken off REINFORCE's, never added."""
    p = small("bits elbo")
    q = p.bind(p.theta)
    x = q.support()
    chance = q.log_prob(x).exp()
    term = (p.f(x) - q.log_prob(x))[:, None] * q.local(x)
    plain = agreement(reinforce(), p)
    for k in (1, 2, 4, 7):
        rest = chance.sort(descending=True).indices[k - 1 :]
        of_rest = chance[rest] / chance[rest].sum()
        variance = of_rest @ term[rest] ** 2 - (of_rest @ term[rest]) ** 2
        exact = chance[rest].sum() ** 2 * variance
        found = agreement(sum_and_sample(k), p)
        assert ((found.variance - exact).abs() < 4.5 * found.variance_se).all()
        assert (exact <= plain.variance + 4.5 * plain.variance_se).all()


@pytest.mark.parametrize("chosen", ["largest", "drawn"])
def test_one_sample_is_the_score_function_and_the_whole_support_is_exact(agreement, small, chosen):
    one = gradients(prepare(sum_and_sample(1, chosen), small("bits")), range(256))
    assert torch.equal(one, gradients(prepare(unordered_set(1, baseline=False), small("bits")), range(256)))
    found = agreement(sum_and_sample(1, chosen), small("bits"))
    assert found.z < found.allowed
    for samples, baseline in ((8, False), (8, True)):
        found = agreement(sum_and_sample(samples, chosen, baseline), small("bits"), replicates=16)
        assert (found.gradients - found.truth).abs().max() < 1e-13


@pytest.mark.parametrize("chosen", ["largest", "drawn"])
@pytest.mark.parametrize("logit", [0.0, 30.0, 200.0])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_ties_and_probabilities_that_round_to_certainty_give_finite_gradients(small, chosen, logit, dtype):
    base = small("categories")
    trial = prepare(sum_and_sample(3, chosen, True), replace(base, theta=logit * base.theta.sign()), dtype=dtype)
    assert gradients(trial, range(512)).isfinite().all()


def test_what_makes_no_sense_is_refused(small):
    with pytest.raises(ValueError, match=r"samples=0\]"):
        sum_and_sample(0)
    with pytest.raises(ValueError, match="the baseline comes from the states summed"):
        sum_and_sample(1, baseline=True)
    with pytest.raises(ValueError, match="chosen is largest or drawn"):
        sum_and_sample(chosen="smallest")
    with pytest.raises(ValueError, match="fewer states"):
        sum_and_sample(5, states=4)
    assert "there are 8" in mismatch(sum_and_sample(9), small("bits"))
    assert "infinite support" in mismatch(sum_and_sample(), small("counts"))
