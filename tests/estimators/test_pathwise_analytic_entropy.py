"""The entropy in closed form: against automatic differentiation of the bound so written, and where its variance vanishes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import distributions

from bench.evaluate import Count, ask, gradients, prepare
from estimators.base import mismatch
from estimators.noise import MEASURE
from estimators.pathwise import pathwise, pathwise_total
from estimators.pathwise_analytic_entropy import ENTROPIES, pathwise_analytic_entropy
from problems.base import Problem
from problems.families.beta import Beta
from problems.families.dirichlet import Dirichlet
from problems.families.gamma import Gamma
from problems.families.normal import Normal
from problems.families.von_mises import VonMises
from problems.families.weibull import Weibull
from problems.objectives import Elbo

FAMILIES: dict[str, tuple[Any, Any]] = {  # and where torch has no entropy of it, None: by quadrature
    "normal": (Normal, lambda theta: distributions.Normal(theta[0], theta[1].exp())),
    "gamma": (Gamma, lambda theta: distributions.Gamma(*theta.exp())),
    "beta": (Beta, lambda theta: distributions.Beta(*theta.exp())),
    "dirichlet": (Dirichlet, lambda theta: distributions.Dirichlet(theta.exp())),
    "von_mises": (VonMises, None),
    "weibull": (Weibull(1.5), None),
}
POINTS = torch.tensor([[0.3, -1.2, 1.5], [-0.4, 0.6, 0.1]], dtype=torch.float64)


@pytest.mark.parametrize("name", ["normals elbo", "amortised normals elbo", "gammas elbo", "amortised gammas elbo"])
@pytest.mark.parametrize("samples", [1, 3])
def test_the_mean_is_the_gradient(
    samples: int, name: str, agreement: Callable[..., Any], small: Callable[[str], Problem]
) -> None:
    problem = small(name)
    found = agreement(pathwise_analytic_entropy(samples), problem)
    assert found.z < found.allowed
    evaluations = samples * max(problem.rows, 1)
    assert (found.f, found.df) == (evaluations, evaluations)


def test_rows_drawn_for_each_replicate(agreement: Callable[..., Any], small: Callable[[str], Problem]) -> None:
    found = agreement(pathwise_analytic_entropy(2), replace(small("amortised normals elbo"), batch=2))
    assert found.z < found.allowed


def gradient_of_entropy(family: str, theta: torch.Tensor) -> torch.Tensor:
    """By automatic differentiation of torch's entropy, or of the trapezium rule over -q log q."""
    make, law = FAMILIES[family]
    theta = theta.clone().requires_grad_()
    if law is not None:
        entropy = law(theta).entropy().sum()
    else:
        t = torch.linspace(-1, 1, 20_001, dtype=torch.float64)
        t = torch.pi * t if family == "von_mises" else (18 * t).exp()
        width = torch.full_like(t, torch.pi) if family == "von_mises" else 18 * t
        log_q = torch.stack([make(theta[..., d : d + 1]).log_prob(t[:, None]) for d in range(theta.shape[-1])], -1)
        entropy = -(1e-4 * width[:, None] * log_q.exp() * log_q)[:-1].sum()
    (found,) = torch.autograd.grad(entropy, theta)
    return found


def parameters(family: str) -> torch.Tensor:
    """Of three sites; of two Dirichlet variables."""
    return POINTS[0] if family == "weibull" else POINTS


@pytest.mark.parametrize("family", ENTROPIES)
def test_slope_and_entropy_are_those_of_automatic_differentiation(family: str) -> None:
    make, theta = FAMILIES[family][0], parameters(family)
    x = torch.tensor([0.2, 0.7, 0.9], dtype=torch.float64).expand(make.event(theta)).clone().requires_grad_()
    slope, of_entropy = ENTROPIES[family](make(theta), x.detach())
    (right,) = torch.autograd.grad(make(theta).log_prob(x), x)
    assert torch.allclose(slope, right, rtol=1e-12)
    assert torch.allclose(of_entropy, gradient_of_entropy(family, theta), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("family", ENTROPIES)
def test_of_a_constant_f_nothing_is_left_to_vary(family: str) -> None:
    """The gradient is that of the entropy; the path derivative of -log q is not free of noise."""
    make, theta = FAMILIES[family][0], parameters(family)
    flat = Problem("entropy", make, theta, lambda x: 1 + 0 * x.flatten(-make.event_axes).sum(-1), Elbo(), smooth=2)
    g = gradients(prepare(pathwise_analytic_entropy(), flat), range(256))
    assert torch.allclose(g, gradient_of_entropy(family, theta).reshape(-1).expand_as(g), rtol=1e-8, atol=1e-8)
    assert float(gradients(prepare(pathwise(), flat), range(256)).var(0).max()) > 1e-2


def test_amortised_gradients_are_those_of_plain_autograd(small: Callable[[str], Problem]) -> None:
    """Encoder and decoder on the same noise, to rounding, the bound written as f and the entropy."""
    problem = small("amortised normals elbo")
    assert problem.model is not None
    trial = prepare(pathwise_analytic_entropy(2), problem)
    g = gradients(trial, range(4))
    noise = ask(trial, range(4), None, MEASURE, Count()).known["noise"]
    for r in range(4):
        w, model = problem.theta.clone().requires_grad_(), problem.model.clone().requires_grad_()
        q = Normal(problem.site_parameters(w))
        L = problem.value(q.sample(noise[:, r]), model).mean(0).sum() + q.theta[..., 1, :].sum()
        assert torch.allclose(g[r], torch.cat(torch.autograd.grad(L, [w, model])), rtol=1e-12, atol=1e-13)


def test_a_forgotten_entropy_is_seen(agreement: Callable[..., Any], small: Callable[[str], Problem]) -> None:
    def without(q: Any, x: torch.Tensor, dfx: torch.Tensor) -> torch.Tensor:
        return q.path(x, dfx + ENTROPIES[q.name](q, x)[0])

    for name in ("normals elbo", "amortised gammas elbo"):
        found = agreement(replace(pathwise_analytic_entropy(), combine=without), small(name))
        assert found.z > found.allowed


def test_of_a_normal_posterior_it_varies_where_the_path_derivative_does_not() -> None:
    """f = log q: grad f = -eps / sigma, of variance 1 / sigma^2 in mu and, times sigma eps, 2 in log sigma; as the total's."""
    theta = torch.tensor([[0.3], [0.5]], dtype=torch.float64).log()
    problem = Problem("exact", Normal, theta, lambda x: Normal(theta.to(x)).log_prob(x), Elbo(), smooth=2)
    own = gradients(prepare(pathwise_analytic_entropy(), problem), range(8192))
    assert float(gradients(prepare(pathwise(), problem), range(64)).abs().max()) < 1e-12
    for g in (own, gradients(prepare(pathwise_total(), problem), range(8192))):
        spread = (g - g.mean(0)).square()
        assert ((spread.mean(0) - torch.tensor([4.0, 2.0])).abs() < 4 * spread.std(0) / 8192**0.5).all()


def test_what_does_not_fit_is_refused_in_a_sentence(small: Callable[[str], Problem]) -> None:
    why = mismatch(pathwise_analytic_entropy(), small("normals"))
    assert why == "pathwise_analytic_entropy estimates the gradient of Elbo; normals's objective is Expectation"
    with pytest.raises(ValueError, match=r"pathwise_analytic_entropy\[samples=0\]: samples must be at least 1"):
        pathwise_analytic_entropy(0)
