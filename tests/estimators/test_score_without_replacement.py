"""The score function without replacement: its mean by quadrature over the threshold, agreement, and its limits."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch

from bench.evaluate import gradients, prepare
from estimators.base import claim_of, mismatch
from estimators.score_without_replacement import log_passing, score_without_replacement

PROBLEMS = [
    "bits elbo",
    "categories",
    "amortised bits elbo",
    "amortised categories",
    "layers",
    "layers of categories elbo",
]
FAR = 1e6


@pytest.mark.parametrize(("baseline", "samples"), [(False, 3), (True, 4)])
@pytest.mark.parametrize("problem", PROBLEMS)
def test_it_agrees_with_the_exact_gradient(agreement, small, baseline, samples, problem):
    samples = min(samples, 3) if problem == "amortised bits elbo" else samples  # of four states
    found = agreement(score_without_replacement(samples, baseline), small(problem))
    assert found.z < found.allowed
    assert (found.f, found.df) == (samples * max(small(problem).rows, 1), 0)


def expected(problem, e, nodes=400):
    """E g by enumeration of the sets and quadrature over kappa = -log t, whose law given S is known in closed form.

    phi_i + G_i > -log t with probability 1 - exp(-q_i t), so that the density of S and t is
    prod_{i in S} (1 - exp(-q_i t)) q(not S) exp(-q(not S) t).
    """
    k, q = e.settings["samples"], problem.bind(problem.theta)
    support = q.support()
    log_q = q.log_prob(support)
    p = log_q.exp()
    u, w = (torch.tensor(a) for a in np.polynomial.legendre.leggauss(nodes))
    u, w = (u + 1) / 2, w / 2
    t, dt = u / (1 - u), w / (1 - u) ** 2
    mean, mass = torch.zeros_like(problem.theta), 0.0
    for S in combinations(range(len(p)), k):
        rest = [i for i in range(len(p)) if i not in S]
        left = p[rest].sum()
        density = dt * (-torch.expm1(-t[:, None] * p[list(S)])).prod(-1) * left * (-left * t).exp()
        noise = torch.full((nodes, len(p)), -FAR, dtype=torch.float64)
        noise[:, list(S)] = FAR
        noise[:, rest[0]] = -t.log() - log_q[rest[0]]
        # the combine reads phi - kappa, not by how far G passes
        x = e.draw(q, noise)
        fx = problem.f(x) - q.log_prob(x) if problem.objective.ratio else problem.f(x)
        mean += torch.tensordot(density, e.combine(q, noise, x, fx), 1)
        mass += float(density.sum())
    assert mass == pytest.approx(1, abs=1e-10)
    return mean.reshape(-1)


@pytest.mark.parametrize("problem", ["bits", "bits elbo", "categories"])
@pytest.mark.parametrize(("samples", "baseline"), [(1, False), (3, False), (2, True), (3, True)])
def test_its_mean_is_the_exact_gradient(agreement, small, problem, samples, baseline):
    e, p = score_without_replacement(samples, baseline), small(problem)
    torch.testing.assert_close(expected(p, e), agreement(e, p, 4).truth, rtol=1e-7, atol=1e-7)


def test_normalised_it_is_biased_with_less_variance_and_says_so(agreement, small):
    p = small("bits elbo")
    for baseline in (False, True):
        e = score_without_replacement(4, baseline, normalised=True)
        assert claim_of(e, p) == "consistent"
        found, plain = agreement(e, p), agreement(score_without_replacement(4, baseline), p)
        assert (expected(p, e) - found.truth).abs().max() > 0.01
        against_its_mean = agreement(e, replace(p, exact=lambda problem, e=e: expected(problem, e)))
        assert against_its_mean.z < against_its_mean.allowed
        assert found.total_variance < plain.total_variance - 4 * plain.total_variance_se


def test_a_baseline_that_leaves_the_own_term_in_is_seen(small):
    """B itself, in place of B with r_i replaced by q_i."""
    right, plain, p = score_without_replacement(3), score_without_replacement(3, False), small("bits")

    def wrong(q, noise, x, fx):
        return plain.combine(q, noise, x, fx - right.value(q, noise, fx))

    gap = expected(p, replace(right, combine=wrong)) - expected(p, right)
    assert gap.abs().max() > 0.01


def test_the_whole_support_is_the_exact_gradient(agreement, small):
    for baseline in (False, True):
        for normalised in (False, True):
            e = score_without_replacement(8, baseline, normalised)
            found = agreement(e, small("bits"), replicates=16)
            assert (found.gradients - found.truth).abs().max() < 1e-13


def test_the_chance_to_pass_keeps_its_digits():
    above = torch.tensor([-800.0, -40.0, -30.0, -1.0, 0.0, 2.0, 900.0, torch.inf], dtype=torch.float64)
    exact = [-800.0, -40.0, -30.0 - 4.7e-14, -1.1783071, -0.4586751, -0.0006181700, 0.0, 0.0]
    assert log_passing(above).tolist() == pytest.approx(exact, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("baseline", [False, True])
@pytest.mark.parametrize("logit", [0.0, 30.0, 200.0])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_ties_and_probabilities_that_round_to_certainty_give_finite_gradients(small, baseline, logit, dtype):
    base = small("categories")
    e = score_without_replacement(4, baseline, normalised=baseline)
    trial = prepare(e, replace(base, theta=logit * base.theta.sign()), dtype=dtype)
    assert gradients(trial, range(512)).isfinite().all()


def test_what_makes_no_sense_is_refused(small):
    with pytest.raises(ValueError, match="the baseline comes from the other samples"):
        score_without_replacement(1)
    with pytest.raises(ValueError, match="fewer states"):
        score_without_replacement(5, states=4)
    assert "there are 8" in mismatch(score_without_replacement(9), small("bits"))
