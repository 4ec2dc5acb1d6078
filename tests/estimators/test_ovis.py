"""OVIS: against the exact gradient of the bound, its own exact mean where it is biased, and the paper's formula written out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from bench.evaluate import Count, ask, gradients, prepare
from estimators import ESTIMATORS
from estimators.base import Estimator, claim_of
from estimators.noise import MEASURE
from estimators.ovis import ovis, ovis_mc
from problems.base import Problem
from problems.families.normal import Normal
from problems.objectives import ImportanceWeighted, log_mean_exp
from tests.estimators.test_importance_weighted import bound, categories, credit, linear_gaussian, quadrature, title


@pytest.mark.parametrize("estimator", [ovis(), ovis_mc(), ovis_mc(3)], ids=title)
def test_unbiased_bounds(estimator: Estimator, agreement: Callable[..., Any], small: Callable[[str], Problem]) -> None:
    problems = [
        linear_gaussian(ImportanceWeighted(2), 2),
        categories(ImportanceWeighted(3)),
        replace(small("amortised bits"), objective=ImportanceWeighted(2)),
    ]
    extra = dict(estimator.settings).get("auxiliary", 0)
    for problem in problems:
        found = agreement(estimator, problem)
        assert claim_of(estimator, problem) == "unbiased"
        assert found.z < found.allowed, problem.name
        assert (found.f, found.df) == ((problem.objective.samples + extra) * max(problem.rows, 1), 0)


@pytest.mark.parametrize("gamma", [0.5, 1.0])
def test_a_baseline_with_its_own_weight_is_biased_by_gamma_times_the_score(
    gamma: float, agreement: Callable[..., Any]
) -> None:
    """E g = dL_K/dtheta + gamma E sum_k v_k grad log q(z_k), and the model's gradient is right."""
    problem, estimator = linear_gaussian(ImportanceWeighted(2), 1), ovis(gamma)
    mean = quadrature(problem, 40, bound) + gamma * quadrature(problem, 40, credit, held=True)
    found = agreement(estimator, replace(problem, exact=lambda _: mean))
    assert found.z < found.allowed
    against_truth = agreement(estimator, problem)
    assert claim_of(estimator, problem) == "biased"
    assert against_truth.z > 2 * against_truth.allowed


def test_an_auxiliary_sample_that_is_no_draw_of_q_is_seen(agreement: Callable[..., Any]) -> None:
    """The last of the bound's own samples in the auxiliary one's place: its baseline has its own sample."""

    def combine(q: Normal, x: torch.Tensor, fx: torch.Tensor) -> torch.Tensor:
        again = torch.cat([fx[:2], fx[1:2]])
        return made(q, x, again, size)

    problem = linear_gaussian(ImportanceWeighted(2), 1)
    made: Any = ovis_mc().combine
    size: Any = ask(prepare(ovis_mc(), problem), range(1), None, MEASURE, Count()).known["size"]
    found = agreement(replace(ovis_mc(), combine=combine), problem)
    assert found.z > found.allowed


def factors(log_w: torch.Tensor) -> torch.Tensor:
    """d_k = log 1/K sum_j w_j - v_k."""
    return log_mean_exp(log_w) - log_w.softmax(0)


def test_baselines_are_those_of_the_paper() -> None:
    """Equation 12 with the sample replaced in the list of weights; 17 with log Z - log Z_-k = log((1 - 1/K) / (1 - v_k))."""
    problem = categories(ImportanceWeighted(4))
    for S in (1, 3):
        known = ask(prepare(ovis_mc(S), problem), range(64), None, MEASURE, Count()).known
        log_w, aux, score = known["fx"][:4], known["fx"][4:], known["q"].score
        c = torch.zeros_like(log_w)
        for k in range(4):
            for s in range(S):
                c[k] += factors(torch.cat([log_w[:k], aux[s][None], log_w[k + 1 :]]))[k] / S
        wanted = score(known["x"][:4], factors(log_w) - c)
        theta = problem.theta.numel()
        assert torch.allclose(gradients(prepare(ovis_mc(S), problem), range(64))[:, :theta], wanted.reshape(64, -1))
    for gamma in (0.0, 0.3, 1.0):
        known = ask(prepare(ovis(gamma), problem), range(64), None, MEASURE, Count()).known
        v, K = known["fx"].softmax(0), 4
        log_Z_k = log_mean_exp(known["fx"]) - ((1 - 1 / K) / (1 - v)).log()
        c = log_Z_k - gamma * v + (1 - gamma) * math.log(1 - 1 / K)
        wanted = known["q"].score(known["x"], factors(known["fx"]) - c)
        found = gradients(prepare(ovis(gamma), problem), range(64))[:, : problem.theta.numel()]
        assert torch.allclose(found, wanted.reshape(64, -1), rtol=1e-9)


def test_less_variance_than_the_score_alone(agreement: Callable[..., Any]) -> None:
    problem = linear_gaussian(ImportanceWeighted(8), 1)
    none = torch.zeros(3, dtype=torch.float64)
    problem = replace(problem, exact=lambda _: none)
    plain = agreement(ESTIMATORS["iwae_score"](), problem).variance[:2].sum()
    for estimator in (ovis(), ovis_mc(4)):
        assert agreement(estimator, problem).variance[:2].sum() < 0.5 * plain, estimator.name


def test_what_does_not_fit_is_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"ovis\[gamma=1.5\]: gamma goes from 0 to 1"):
        ovis(1.5)
    with pytest.raises(ValueError, match=r"ovis_mc\[auxiliary=0\]: auxiliary must be at least 1"):
        ovis_mc(0)
    for estimator in (ovis(), ovis_mc()):
        with pytest.raises(ValueError, match=r"the bound must take 2 samples, not 1"):
            prepare(estimator, categories(ImportanceWeighted(1)))
