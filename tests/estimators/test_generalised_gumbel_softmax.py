"""Generalised Gumbel-Softmax: masses and their slopes against torch.distributions, autograd, and its relaxed objective."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from bench.evaluate import Count, ask, gradients, prepare
from estimators.base import claim_of, mismatch, target_of
from estimators.generalised_gumbel_softmax import chances, generalised_gumbel_softmax, last, law
from estimators.noise import MEASURE
from problems.base import Problem
from problems.families.binomial import Binomial
from problems.families.geometric import Geometric
from problems.families.poisson import Poisson
from problems.objectives import Elbo, Expectation, Objective

SITES = {
    "poisson": (Poisson, 0.3),
    "geometric": (Geometric, -0.5),
    "binomial": (Binomial(5), -0.6),
    "all of a binomial": (Binomial(2), 0.3),
}


def count(name: str, objective: Objective) -> Problem:
    """A function of one count that is no polynomial."""
    family, theta = SITES[name]

    def f(x: torch.Tensor) -> torch.Tensor:
        return (x.sum(-1) + 0.8) ** 2 + x[..., 0].sin()

    return Problem(name, family, torch.tensor([theta], dtype=torch.float64), f, objective, smooth=2, relaxed=True)


@pytest.mark.parametrize("name", SITES)
@pytest.mark.parametrize("n", [1, 2, 8])
def test_masses_and_slopes(name: str, n: int) -> None:
    """The last has what the others leave; slopes by autograd."""
    family, _ = SITES[name]
    n = last(family, n)
    theta = torch.tensor([0.4, -1.3], dtype=torch.float64)
    log_pi, slope = chances(family(theta), n)
    assert log_pi.shape == (2, n + 1)
    leaf = theta.clone().requires_grad_()
    k = torch.arange(n, dtype=torch.float64)
    p = law(family, leaf[:, None]).log_prob(k).exp()
    p = torch.cat([p, 1 - p.sum(-1, keepdim=True)], -1)
    assert torch.allclose(log_pi.exp(), p, atol=1e-14)
    wanted = torch.stack([torch.autograd.grad(p[:, j].sum(), leaf, retain_graph=True)[0] for j in range(n + 1)], -1)
    assert torch.allclose(log_pi.exp() * slope, wanted, atol=1e-13)


@pytest.mark.parametrize("name", SITES)
@pytest.mark.parametrize("theta", [30.0, -30.0])
def test_masses_and_slopes_of_large_parameters(name: str, theta: float) -> None:
    family, _ = SITES[name]
    if name == "poisson":
        theta = min(theta, 8.0)
    for dtype in (torch.float64, torch.float32):
        log_pi, slope = chances(family(torch.tensor([theta], dtype=dtype)), last(family, 20))
        assert log_pi.isfinite().all()
        assert slope.isfinite().all()
        assert float(log_pi.double().logsumexp(-1).abs()) < (1e-9 if dtype == torch.float64 else 1e-3)


@pytest.mark.parametrize("objective", [Expectation(), Elbo()], ids=lambda o: o.name)
@pytest.mark.parametrize("name", SITES)
def test_its_mean_is_the_gradient_of_its_relaxed_objective(
    name: str, objective: Objective, agreement: Callable[..., Any]
) -> None:
    """With two or three categories, where that is to be had."""
    problem = replace(count(name, objective), exact=None)
    for n, temperature in ((1, 0.6), (2, 1.5)):
        estimator = generalised_gumbel_softmax(temperature, n)
        claimed = target_of(estimator, problem)
        assert claimed is not None
        own = replace(problem, exact=lambda _, mean=claimed[0]: mean)
        found = agreement(estimator, own)
        assert found.z < found.allowed
        assert (found.f, found.df) == (1, 1)
        assert claim_of(estimator, problem) == "biased"
        combine, factor = estimator.combine, temperature
        assert combine is not None
        unscaled = replace(
            estimator, combine=lambda q, noise, x, dfx, c=combine, t=factor: t * c(q=q, noise=noise, x=x, dfx=dfx)
        )
        wrong = agreement(unscaled, own)
        assert wrong.z > wrong.allowed
    assert target_of(generalised_gumbel_softmax(), count("poisson", objective)) is None


@pytest.mark.parametrize("name", ["amortised counts", "amortised counts elbo", "counts elbo"])
def test_gradients_are_those_of_plain_autograd(name: str, small: Callable[[str], Problem]) -> None:
    """Encoder and model at sum_k k y_k; log q's own theta held fixed."""
    problem, temperature, n = small(name), 0.8, 6
    trial = prepare(generalised_gumbel_softmax(temperature, n), problem)
    g = gradients(trial, range(4))
    noise = ask(trial, range(4), None, MEASURE, Count()).known["noise"]
    k = torch.arange(n + 1, dtype=torch.float64)
    for r in range(4):
        leaves = [t.clone().requires_grad_() for t in (problem.theta, problem.model) if t is not None]
        theta = problem.site_parameters(leaves[0])
        p = torch.distributions.Poisson(theta[..., None].exp()).log_prob(k[:-1]).exp()
        log_pi = torch.cat([p, 1 - p.sum(-1, keepdim=True)], -1).log()
        x = ((log_pi + noise[0, r]) / temperature).softmax(-1) @ k
        L = problem.value(x, leaves[-1] if problem.model is not None else None).sum()
        if problem.objective.ratio:
            L = L - problem.bind(theta.detach()).log_prob(x).sum()
        assert torch.allclose(g[r], torch.cat(torch.autograd.grad(L, leaves)), rtol=1e-8, atol=1e-9)


def test_a_cold_point_is_a_count(small: Callable[[str], Problem]) -> None:
    """min(X, n), in its law."""
    n, R = 3, 16_384
    problem = small("counts")
    x = ask(prepare(generalised_gumbel_softmax(1e-3, n), problem), range(R), None, MEASURE, Count()).known["x"][0]
    whole = x.round()
    assert float((x - whole).abs().gt(1e-6).double().mean()) < 0.02
    p = chances(problem.bind(problem.theta), n)[0].exp()
    share = torch.stack([(whole == k).double().mean(0) for k in range(n + 1)], -1)
    assert float(((share - p).abs() / (p * (1 - p) / R).sqrt()).max()) < 4.5


def test_it_is_biased(agreement: Callable[..., Any], small: Callable[[str], Problem]) -> None:
    """16,384 replicates are enough to see it."""
    found = agreement(generalised_gumbel_softmax(), small("counts"))
    assert found.z > found.allowed


def test_what_does_not_fit_is_refused_in_a_sentence(small: Callable[[str], Problem]) -> None:
    with pytest.raises(ValueError, match=r"generalised_gumbel_softmax\[truncation=0\]: truncation must be at least 1"):
        generalised_gumbel_softmax(truncation=0)
    with pytest.raises(ValueError, match=r"the temperature must be positive"):
        generalised_gumbel_softmax(0)
    assert mismatch(generalised_gumbel_softmax(), small("bits")) == (
        "generalised_gumbel_softmax is for poisson or geometric or binomial variables; bits's are bernoulli"
    )
