"""TVO: its exact mean beside the paper's surrogate, its order in K, and the ELBO that one part is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from bench.evaluate import Count, ask, gradients, prepare
from estimators.base import claim_of, mismatch
from estimators.noise import MEASURE
from estimators.score_function import rloo
from estimators.thermodynamic import tvo
from problems.base import Problem
from problems.linear_gaussian import linear_gaussian
from problems.mixture import mixture
from problems.objectives import Elbo, Thermodynamic
from problems.truth import true_gradient
from tests.estimators.enumerated import exact_mean, first_datum

BOUNDS = [Thermodynamic(), Thermodynamic((0.0, 0.3, 1.0), "right"), Thermodynamic((0.0, 0.1, 0.5, 1.0))]


def at(objective: Any) -> Problem:
    return replace(first_datum(mixture(objective="thermodynamic")), objective=objective)


@pytest.mark.parametrize("objective", BOUNDS, ids=lambda o: str(o.partition))
def test_the_mean_comes_to_the_gradient_as_one_over_the_samples(objective: Any) -> None:
    """Exactly, over every multiset of K = 8 and 16 draws: twice the samples halve the bias."""
    problem = at(objective)
    truth = true_gradient(problem)
    assert truth is not None
    assert claim_of(tvo(), problem) == "consistent"
    bias = [float((exact_mean(tvo(K), problem, True) - truth.gradient).norm()) for K in (8, 16)]
    assert bias[0] / bias[1] == pytest.approx(2, rel=0.03)
    assert bias[1] < 0.1 * float(truth.gradient.norm())


@pytest.mark.parametrize("objective", BOUNDS, ids=lambda o: str(o.partition))
def test_it_is_the_gradient_of_the_papers_surrogate(objective: Any, small: Callable[[str], Problem]) -> None:
    """For each part cov_b(log w, log pi_b), less its own mean, of all K samples, and E_b log w: by autograd, to rounding."""
    problem = replace(small("amortised bits"), objective=objective)
    trial, K = prepare(tvo(4), problem), 4
    g = gradients(trial, range(4))
    x = ask(trial, range(4), None, MEASURE, Count()).known["x"]
    for r in range(4):
        w = problem.theta.clone().requires_grad_()
        log_q = problem.bind(problem.site_parameters(w)).log_prob(x[:, r])
        log_w = problem.value(x[:, r]) - log_q
        held, total = log_w.detach(), torch.tensor(0.0)
        for beta, width in objective.partition:
            v = (beta * held).softmax(0)
            log_pi = log_q + beta * log_w
            covariance = v * (held - (v * held).sum(0)) * (log_pi - (v * log_pi).sum(0))
            total = total + width * (K / (K - 1) * covariance + v * log_w).sum()
        torch.testing.assert_close(g[r, : len(w)], torch.autograd.grad(total, w)[0], rtol=1e-10, atol=1e-12)


def test_one_part_on_the_left_is_the_elbo_by_leave_one_out(agreement: Callable[..., Any]) -> None:
    """RLOO less the mean score, whose mean is nil."""
    elbo = linear_gaussian(2, data=2).at("mid")
    problem = replace(elbo, objective=Thermodynamic((0.0, 1.0)), exact=lambda _: true_gradient(elbo).gradient)  # type: ignore[union-attr]
    assert claim_of(tvo(), problem) == "unbiased"
    found = agreement(tvo(3), problem)
    assert found.z < found.allowed
    assert (found.f, found.df) == (6, 0)
    bits = at(Thermodynamic((0.0, 1.0)))
    torch.testing.assert_close(exact_mean(tvo(3), bits), exact_mean(rloo(3), replace(bits, objective=Elbo())))


def test_of_gaussians_it_is_near_the_truth_at_many_samples(agreement: Callable[..., Any]) -> None:
    problem = linear_gaussian(1, data=2, objective="thermodynamic").at("mid")
    found = agreement(tvo(64), problem, 4096)
    assert (found.mean - found.truth).norm() < 0.1 * found.truth.norm()


def test_a_covariance_without_the_score_of_the_path_is_seen() -> None:
    """grad log q in the place of (1 - b) grad log q, the score of pi_b: the bias no longer falls with K."""

    def combine(q: Any, x: torch.Tensor, fx: torch.Tensor, objective: Any) -> torch.Tensor:
        a = 0 * fx
        for beta, width in objective.partition:
            v = (beta * fx).softmax(0)
            a = a + width * v * (len(fx) / (len(fx) - 1) * (fx - (v * fx).sum(0)) - 1)
        return q.score(x, a)

    problem = at(BOUNDS[2])
    truth = true_gradient(problem)
    assert truth is not None
    bias = [
        float((exact_mean(replace(tvo(K), combine=combine), problem, True) - truth.gradient).norm()) for K in (8, 16)
    ]
    assert bias[1] > 0.9 * bias[0]


def test_what_does_not_fit_is_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"tvo\[samples=1\]: samples must be at least 2"):
        tvo(1)
    with pytest.raises(ValueError, match=r"betas of a thermodynamic bound rise from 0 to 1, not \(0.1, 1.0\)"):
        Thermodynamic((0.1, 1.0))
    why = mismatch(tvo(), mixture())
    assert why == "tvo estimates the gradient of Thermodynamic; mixture's objective is Elbo"
