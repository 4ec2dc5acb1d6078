"""DReG(alpha) and RWS-DReG: their exact means where Gaussians give them in closed form, and the estimators that they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch

from bench.evaluate import gradients, prepare
from estimators.base import Estimator, across, claim_of
from estimators.importance_weighted import dreg, rws_dreg, stl, wake_phi
from problems.base import Problem
from problems.linear_gaussian import VARIANCE, linear_gaussian, pulled
from problems.truth import true_gradient
from tests.estimators.test_importance_weighted import title

DIM = 2


def truth(problem: Problem) -> torch.Tensor:
    found = true_gradient(problem)
    assert found is not None
    return found.gradient


def mean_of_wake_phi(samples: int, mu: torch.Tensor) -> torch.Tensor:
    """E sum_k v_k grad log q(z_k) at `mid`, from dL_K/dmu = E sum_k v_k (z_k - mu) and grad_m log q = (z - m) / (2/3).

    One datum at a time, whose dL_K/dmu is its own.
    """
    whole = linear_gaussian(DIM, samples, 3).at("mid")
    assert whole.data is not None
    total = torch.zeros_like(whole.theta)
    for x in whole.data:
        one = replace(whole, data=x[None], model=mu)
        m = x @ one.theta[: DIM * DIM].reshape(DIM, DIM).T + one.theta[DIM * DIM :]
        total += pulled(x[None], ((truth(one)[-DIM:] + mu - m) / VARIANCE)[None])
    return total


def inclusive() -> tuple[Problem, torch.Tensor]:
    """The inclusive divergence, and mu, which it fixes."""
    problem = linear_gaussian(DIM, data=3, objective="inclusive_kl").at("mid")
    assert problem.data is not None
    return problem, problem.data.mean(0)


@pytest.mark.parametrize("estimator", [wake_phi(2), rws_dreg(2), rws_dreg(5)], ids=title)
def test_the_score_reparameterised_has_the_mean_of_wake_phi(
    estimator: Estimator, agreement: Callable[..., Any]
) -> None:
    problem, mu = inclusive()
    samples = int(estimator.settings["samples"])
    mean = mean_of_wake_phi(samples, mu)
    found = agreement(estimator, replace(problem, exact=lambda _: mean), 32_768)
    assert claim_of(estimator, problem) == "consistent"
    assert found.z < found.allowed
    assert (found.f, found.df) == (3 * samples, 3 * samples * (estimator.name == "rws_dreg"))
    against_truth = agreement(estimator, problem, 32_768)
    assert against_truth.z > 2 * against_truth.allowed


def test_their_bias_falls_as_one_over_the_samples() -> None:
    """Exactly, by quadrature: K |bias| goes to a constant."""
    problem, mu = inclusive()
    scaled = [K * float((mean_of_wake_phi(K, mu) - truth(problem)).norm()) for K in (64, 128, 256, 512)]
    gaps = [abs(b - a) for a, b in pairwise(scaled)]
    assert gaps[2] < 0.03 * scaled[3]
    assert gaps[2] < 0.7 * gaps[1] < 0.7 * 0.7 * gaps[0]


@pytest.mark.parametrize("alpha", [0.25, 1.0])
def test_dreg_of_alpha_lies_between_its_ends(alpha: float, agreement: Callable[..., Any]) -> None:
    """E g = (1 - alpha) dL_K/dtheta + alpha E sum_k v_k grad log q(z_k), and the model's gradient is the bound's."""
    problem = linear_gaussian(DIM, 3, 3).at("mid")
    assert problem.model is not None
    of_bound, of_wake = truth(problem), mean_of_wake_phi(3, problem.model)
    theta = (1 - alpha) * of_bound[:-DIM] + alpha * of_wake
    found = agreement(dreg(alpha), replace(problem, exact=lambda _: torch.cat([theta, of_bound[-DIM:]])))
    assert claim_of(dreg(alpha), problem) == "biased"
    assert found.z < found.allowed
    assert agreement(dreg(alpha), problem).z > 2 * found.allowed


def test_at_one_half_it_is_half_of_stl() -> None:
    problem = linear_gaussian(DIM, 4, 3).at("converged")
    theta = problem.theta.numel()
    g, h = (gradients(prepare(e, problem), range(64)) for e in (dreg(0.5), stl()))
    torch.testing.assert_close(g[:, :theta], h[:, :theta] / 2)
    torch.testing.assert_close(g[:, theta:], h[:, theta:])


def test_normalised_coefficients_add_to_one() -> None:
    """A slope of one everywhere gives their sum, also where weights are far apart; on two samples RWS-DReG's are 1/2 each."""
    for spread in (1.0, 50.0, 2000.0):
        log_w = spread * torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        for estimator, wanted in (
            (dreg(normalised=True), log_w.softmax(0) ** 2),
            (rws_dreg(5, normalised=True), log_w.softmax(0) - log_w.softmax(0) ** 2),
        ):
            a = coefficients(estimator, log_w)
            torch.testing.assert_close(a.sum(0), torch.ones(7, dtype=torch.float64))
            if spread == 1:
                torch.testing.assert_close(a, wanted / wanted.sum(0))
    torch.testing.assert_close(coefficients(rws_dreg(2, True), log_w[:2]), torch.full((2, 7), 0.5).double())


class Recorded:
    """In the place of q: keeps the cotangents, which are the coefficients where every slope is one."""

    def path(self, x: torch.Tensor, cotangent: torch.Tensor) -> torch.Tensor:
        return cotangent.squeeze(-1)


def coefficients(estimator: Estimator, log_w: torch.Tensor) -> torch.Tensor:
    combine: Any = estimator.combine
    found: torch.Tensor = combine(Recorded(), None, log_w, torch.ones(*log_w.shape, 1).to(log_w))
    return found


def test_where_q_is_the_posterior_it_is_nil() -> None:
    """For the right mean at the wrong scale it is not."""
    problem, mu = inclusive()
    at = torch.cat([0.5 * torch.eye(DIM, dtype=torch.float64).reshape(-1), 0.5 * mu])

    def encode(theta: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
        mean = data @ theta[: DIM * DIM].reshape(DIM, DIM).T + theta[DIM * DIM :]
        return torch.stack([mean, torch.full_like(mean, -0.5 * math.log(2))], -2)

    exact = replace(problem, theta=at, encode=encode)
    assert float(gradients(prepare(rws_dreg(3), exact), range(64)).abs().max()) < 1e-12
    assert float(gradients(prepare(rws_dreg(3), replace(problem, theta=at)), range(64)).abs().max()) > 1e-3
    assert float(gradients(prepare(wake_phi(3), exact), range(64)).abs().max()) > 0.1


def test_one_sample_gives_nil() -> None:
    assert float(gradients(prepare(rws_dreg(1), inclusive()[0]), range(64)).abs().max()) == 0


def test_a_coefficient_that_is_not_squared_is_seen(agreement: Callable[..., Any]) -> None:
    problem, mu = inclusive()
    mean = mean_of_wake_phi(3, mu)
    wrong = replace(rws_dreg(3), combine=lambda q, x, fx, dfx: q.path(x, across(fx.softmax(0) ** 2, dfx) * dfx))
    found = agreement(wrong, replace(problem, exact=lambda _: mean))
    assert found.z > found.allowed


def test_what_does_not_fit_is_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"dreg\[alpha=1.5\]: alpha goes from 0 to 1"):
        dreg(1.5)
    with pytest.raises(ValueError, match=r"dreg\[alpha=0.5,normalised=True\]: only alpha=0 is normalised"):
        dreg(0.5, True)
    with pytest.raises(ValueError, match=r"rws_dreg\[samples=1\]: samples must be at least 2"):
        rws_dreg(1, True)
