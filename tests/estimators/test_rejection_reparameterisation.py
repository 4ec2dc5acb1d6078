"""RSVI: against closed forms, with and without its score term; the law of what it draws and the chance of no acceptance."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from bench.evaluate import gradients, prepare
from estimators.base import mismatch
from estimators.rejection_reparameterisation import (
    PROPOSALS,
    accepted,
    combine,
    draw,
    path_of,
    rejection_reparameterisation,
)
from problems import PROBLEMS
from problems.base import Problem
from problems.families.gamma import Gamma
from problems.objectives import Elbo
from problems.truth import true_gradient

NAMES = ["gammas", "gammas elbo", "amortised gammas", "amortised gammas elbo"]


def noise(seed: int, samples: int, augmentation: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = np.random.default_rng(seed)
    proposals = generator.standard_normal((PROPOSALS, samples, 1))
    chances, u = generator.random((PROPOSALS, samples, 1)), generator.random((augmentation, samples, 1))
    return torch.from_numpy(proposals), torch.from_numpy(chances), torch.from_numpy(u)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("samples", "augmentation"), [(1, 1), (3, 4)])
def test_the_mean_is_the_gradient(
    samples: int, augmentation: int, name: str, agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    problem = small(name)
    found = agreement(rejection_reparameterisation(samples, augmentation), problem)
    assert found.z < found.allowed
    evaluations = samples * max(problem.rows, 1)
    assert (found.f, found.df) == (evaluations, evaluations)


@pytest.mark.parametrize("cost", ["square", "log"])
@pytest.mark.parametrize(
    ("name", "point"),
    [
        *[("gamma_cost", p) for p in ("init", "sparse", "peaked")],
        *[("beta_cost", p) for p in ("init", "ends", "peaked")],
        *[("dirichlet_cost", p) for p in ("init", "sparse", "peaked")],
    ],
)
def test_small_and_large_concentrations(name: str, point: str, cost: str, agreement: Callable[..., Any]) -> None:
    problem = PROBLEMS[name](cost=cost, dim=2).at(point)
    found = agreement(rejection_reparameterisation(), problem)
    assert found.z < found.allowed


def bound(name: str) -> Problem:
    """The costs of Beta or Dirichlet variables, and their entropy."""
    cost = PROBLEMS[name](dim=2)

    def exact(problem: Problem) -> torch.Tensor:
        theta = problem.theta.clone().requires_grad_()
        of_beta = name == "beta_cost"
        law = torch.distributions.Beta(*theta.exp()) if of_beta else torch.distributions.Dirichlet(theta.exp())
        (entropy,) = torch.autograd.grad(law.entropy().sum(), theta)
        of_cost = true_gradient(replace(cost, theta=problem.theta))
        assert of_cost is not None
        return of_cost.gradient.reshape(entropy.shape) + entropy

    return replace(cost, objective=Elbo(), exact=exact)


@pytest.mark.parametrize("name", ["beta_cost", "dirichlet_cost"])
def test_bounds_of_beta_and_dirichlet_variables(name: str, agreement: Callable[..., Any]) -> None:
    found = agreement(rejection_reparameterisation(), bound(name), replicates=8192)
    assert found.z < found.allowed


def test_rows_drawn_for_each_replicate(agreement: Callable[..., Any], small: Callable[[str], Problem]) -> None:
    found = agreement(rejection_reparameterisation(2), replace(small("amortised gammas elbo"), batch=2))
    assert found.z < found.allowed


def without_score(q: Gamma, noise: Any, x: torch.Tensor, fx: torch.Tensor, dfx: torch.Tensor) -> torch.Tensor:
    return combine(q, noise, x, torch.zeros_like(fx), dfx)


@pytest.mark.parametrize("name", ["gammas", "gammas elbo"])
def test_the_path_alone_is_seen_to_be_biased(
    name: str, agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    found = agreement(replace(rejection_reparameterisation(8), combine=without_score), small(name), replicates=32_768)
    assert found.z > found.allowed


@pytest.mark.parametrize("a", [0.05, 0.7, 6.0])
@pytest.mark.parametrize("augmentation", [1, 3])
def test_what_it_draws_is_gamma(augmentation: int, a: float) -> None:
    q = Gamma(torch.tensor([[a], [2.0]], dtype=torch.float64).log())
    x = draw(q, noise(5, 20_000, augmentation)).flatten().numpy()
    assert stats.kstest(x, stats.gamma(a, scale=0.5).cdf).pvalue > 1e-5


def test_a_proposal_is_refused_as_often_as_stated() -> None:
    """exp(d) d^(1/6 - d) Gamma(d + 1/3) / sqrt(2 pi) is the chance that one is accepted, least at alpha = 1."""
    chance = [
        math.exp(d) * d ** (1 / 6 - d) * math.gamma(d + 1 / 3) / math.sqrt(2 * math.pi) for d in (2 / 3, 1, 5 / 3)
    ]
    assert chance[0] == pytest.approx(1 - 0.0483, abs=5e-5)
    assert chance == sorted(chance)
    assert (1 - chance[0]) ** PROPOSALS < 1e-9
    proposals, chances, _ = noise(6, 20_000, 1)
    kept = [accepted(torch.ones(1).double(), p[None], u[None]) != 0 for p, u in zip(proposals, chances, strict=True)]
    share = torch.stack(kept).double().mean().item()
    assert abs(share - chance[0]) < 4 * math.sqrt(chance[0] * (1 - chance[0]) / (PROPOSALS * 20_000))


def test_where_none_is_accepted_the_mode_stands_for_it() -> None:
    q = Gamma(torch.zeros(2, 1, dtype=torch.float64))
    refused = torch.full((PROPOSALS, 1, 1), -5.0).double(), torch.full((PROPOSALS, 1, 1), 0.5).double()
    found = path_of(q.a, (*refused, torch.ones(1, 1, 1).double()))
    assert found.log_y.exp().item() == pytest.approx(5 / 3)
    assert found.slope.isfinite().all()
    assert found.score.isfinite().all()


def test_the_score_term_falls_with_augmentation() -> None:
    """By its definition it has mean zero; its variance is what rejection costs."""
    q = Gamma(torch.tensor([[0.7], [2.0]], dtype=torch.float64).log())
    scores = [path_of(q.a, noise(7, 20_000, B)).score.flatten() for B in (1, 4, 16)]
    for score in scores:
        assert abs(float(score.mean())) < 4 * float(score.std()) / math.sqrt(20_000)
    spread = [float(score.std()) for score in scores]
    assert spread[0] > 2 * spread[1] > 4 * spread[2]


def test_augmentation_takes_variance_off(small: Callable[[str], Problem]) -> None:
    """f + 50, of which only the score term takes note."""
    problem = small("gammas")
    higher = replace(problem, f=lambda x: problem.f(x) + 50)
    one, many = (gradients(prepare(rejection_reparameterisation(1, B), higher), range(16_384)) for B in (1, 8))
    less = (one - one.mean(0)).square()[:, :2].sum(1) - (many - many.mean(0)).square()[:, :2].sum(1)
    assert less.mean() > 4 * less.std() / 128


def test_what_does_not_fit_is_refused_in_a_sentence(small: Callable[[str], Problem]) -> None:
    why = mismatch(rejection_reparameterisation(), small("normals"))
    assert why == "rejection_reparameterisation is for gamma or beta or dirichlet variables; normals's are normal"
    for wrong in ({"samples": 0}, {"augmentation": 0}):
        with pytest.raises(
            ValueError, match=r"\[(samples|augmentation)=0\]: (samples|augmentation) must be at least 1"
        ):
            rejection_reparameterisation(**wrong)
