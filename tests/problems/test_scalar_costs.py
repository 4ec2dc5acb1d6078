"""Costs of sites of one family: closed forms against scipy's integrals and sums."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
import torch
from torch import Tensor

from problems.base import Problem
from problems.beta_cost import beta_cost
from problems.binomial_cost import binomial_cost
from problems.dirichlet_cost import dirichlet_cost
from problems.gamma_cost import gamma_cost
from problems.gaussian_cost import gaussian_cost
from problems.geometric_cost import geometric_cost
from problems.poisson_cost import poisson_cost
from problems.truth import true_gradient
from problems.von_mises_cost import von_mises_cost
from problems.weibull_cost import weibull_cost

Cost = Callable[[Any], Any]


def checked(problem: Problem, wanted: Tensor, atol: float) -> None:
    """The closed form is `wanted`, and would not be if any entry of it were 0.1% off."""
    truth = true_gradient(problem)
    assert truth is not None
    assert truth.tier == "closed form"
    assert not truth.se.any()
    torch.testing.assert_close(truth.gradient, wanted, rtol=0, atol=atol)
    assert float(wanted.abs().max()) * 1e-3 > atol


NORMAL: list[tuple[str, float, Cost]] = [
    ("square", 2.0, lambda x: (x - 2.0) ** 2),
    ("square", -1.5, lambda x: (x + 1.5) ** 2),
    ("exp", 2.0, lambda x: math.exp(-2 * x * x)),
    ("exp", 0.3, lambda x: math.exp(-0.3 * x * x)),
    ("cos", 2.0, lambda x: math.cos(2 * x)),
    ("cos", 0.7, lambda x: math.cos(0.7 * x)),
]


@pytest.mark.parametrize(("cost", "k", "c"), NORMAL)
@pytest.mark.parametrize("point", ["init", "narrow", "wide"])
def test_normal(cost: str, k: float, c: Cost, point: str, differences: Callable[..., Tensor]) -> None:
    problem = gaussian_cost(cost=cost, k=k).at(point)

    def L(theta: list[float]) -> float:
        mu, sigma = theta[0], math.exp(theta[1])
        return float(
            scipy.integrate.quad(
                lambda e: math.exp(-e * e / 2) / math.sqrt(2 * math.pi) * c(mu + sigma * e),
                -12,
                12,
                epsabs=1e-13,
                limit=200,
            )[0]
        )

    checked(problem, differences(L, problem.theta.reshape(-1).tolist(), 1e-4), 1e-6)


GAMMA: list[tuple[str, float, Cost]] = [
    ("square", 2.0, lambda x: (x - 2) ** 2),
    ("moment", 2.0, lambda x: x**2),
    ("moment", 0.5, lambda x: x**0.5),
    ("log", 2.0, math.log),
]


@pytest.mark.parametrize(("cost", "k", "c"), GAMMA)
@pytest.mark.parametrize("point", ["init", "sparse", "peaked"])
def test_gamma(cost: str, k: float, c: Cost, point: str, differences: Callable[..., Tensor]) -> None:
    """In y = log x, where the density of a sparse Gamma has no spike."""
    problem = gamma_cost(cost=cost, k=k).at(point)

    def L(theta: list[float]) -> float:
        a, b = math.exp(theta[0]), math.exp(theta[1])

        def integrand(y: float) -> float:
            return math.exp(a * (y + theta[1]) - b * math.exp(y) - math.lgamma(a)) * c(math.exp(y))

        return float(scipy.integrate.quad(integrand, -120, 6, points=[-5, 0, 2], epsabs=1e-12, limit=400)[0])

    checked(problem, differences(L, problem.theta.reshape(-1).tolist(), 1e-4), 2e-5)


BETA: list[tuple[str, float, Cost]] = [
    ("square", 0.4, lambda x: (x - 0.4) ** 2),
    ("moment", 2.0, lambda x: x**2),
    ("moment", 0.5, lambda x: x**0.5),
    ("log", 0.4, math.log),
]


@pytest.mark.parametrize(("cost", "k", "c"), BETA)
@pytest.mark.parametrize("point", ["init", "ends", "peaked"])
def test_beta(cost: str, k: float, c: Cost, point: str, differences: Callable[..., Tensor]) -> None:
    """In y = logit x, where the density has no spikes."""
    problem = beta_cost(cost=cost, k=k).at(point)

    def L(theta: list[float]) -> float:
        a, b = math.exp(theta[0]), math.exp(theta[1])
        log_B = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)

        def integrand(y: float) -> float:
            log_x, log_rest = -math.log1p(math.exp(-y)), -math.log1p(math.exp(y))
            return math.exp(a * log_x + b * log_rest - log_B) * c(math.exp(log_x))

        return float(scipy.integrate.quad(integrand, -70, 70, points=[-5, 0, 2, 5], epsabs=1e-12, limit=400)[0])

    checked(problem, differences(L, problem.theta.reshape(-1).tolist(), 1e-4), 2e-6)


DIRICHLET: list[tuple[str, Cost, Cost]] = [
    ("square", lambda x: (x - 1 / 3) ** 2, lambda x: (x - 2 / 3) ** 2),
    ("log", lambda x: math.log(x) / 3, lambda x: 2 * math.log(x) / 3),
    ("entropy", lambda x: -x * math.log(x), lambda x: -x * math.log(x)),
]


@pytest.mark.parametrize(("cost", "first", "second"), DIRICHLET)
@pytest.mark.parametrize("point", ["init", "sparse", "peaked"])
def test_dirichlet_of_two(cost: str, first: Cost, second: Cost, point: str, differences: Callable[..., Tensor]) -> None:
    """In the logit of the first entry."""
    problem = dirichlet_cost(cost=cost, categories=2).at(point)

    def L(theta: list[float]) -> float:
        a, b = math.exp(theta[0]), math.exp(theta[1])
        log_B = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)

        def integrand(y: float) -> float:
            log_x, log_rest = -math.log1p(math.exp(-y)), -math.log1p(math.exp(y))
            density = math.exp(a * log_x + b * log_rest - log_B)
            return density * (first(math.exp(log_x)) + second(math.exp(log_rest)))

        return float(scipy.integrate.quad(integrand, -120, 120, points=[-5, 0, 2, 5], epsabs=1e-12, limit=400)[0])

    checked(problem, differences(L, problem.theta.reshape(-1).tolist(), 1e-4), 2e-6)


@pytest.mark.parametrize("cost", ["square", "log", "entropy"])
def test_dirichlet_of_more(cost: str) -> None:
    """Entries are Beta variables: a sum of integrals over each, for four of them."""
    problem = dirichlet_cost(cost=cost, categories=4).at("peaked")
    t = [0.1, 0.2, 0.3, 0.4]

    def c(t_c: float, x: Any) -> Any:
        return {"square": (x - t_c) ** 2, "log": t_c * np.log(x), "entropy": -x * np.log(x)}[cost]

    def L(theta: Tensor) -> float:
        alpha = theta.exp().numpy()
        laws = [scipy.stats.beta(a, alpha.sum() - a) for a in alpha]
        return float(sum(law.expect(partial(c, t_c)) for law, t_c in zip(laws, t, strict=True)))

    step = 1e-4 * torch.eye(4, dtype=torch.float64)
    theta = problem.theta[0]
    checked(problem, torch.tensor([(L(theta + e) - L(theta - e)) / 2e-4 for e in step], dtype=torch.float64), 1e-6)


@pytest.mark.parametrize(("cost", "k"), [("cos", 0.0), ("cos", 1.3), ("exp", 0.0), ("exp", -2.0)])
@pytest.mark.parametrize("point", ["init", "flat", "peaked"])
def test_von_mises(cost: str, k: float, point: str, differences: Callable[..., Tensor]) -> None:
    """By the trapezium rule on the circle, where it converges faster than any power of the step."""
    problem = von_mises_cost(cost=cost, k=k).at(point)
    x = np.linspace(-np.pi, np.pi, 400, endpoint=False)
    c = np.cos(x - k) if cost == "cos" else np.exp(np.cos(x - k))

    def L(theta: list[float]) -> float:
        weight = np.exp(math.exp(theta[1]) * (np.cos(x - theta[0]) - 1))
        return float((weight * c).sum() / weight.sum())

    checked(problem, differences(L, problem.theta.reshape(-1).tolist()), 1e-8)


WEIBULL: list[tuple[str, float, Cost]] = [
    ("square", 2.5, lambda x: (x - 2.5) ** 2),
    ("moment", 2.0, lambda x: x**2),
    ("moment", 0.5, lambda x: x**0.5),
    ("log", 2.0, np.log),
    ("step", 1.2, lambda x: x > 1.2),
]


@pytest.mark.parametrize(("cost", "k", "c"), WEIBULL)
@pytest.mark.parametrize("shape", [1.0, 1.5])
@pytest.mark.parametrize("point", ["init", "slow", "fast"])
def test_weibull(cost: str, k: float, c: Cost, shape: float, point: str, differences: Callable[..., Tensor]) -> None:
    """In E = rate x^shape, whose law does not depend on theta; the jump of `step` is an end of the interval."""
    problem = weibull_cost(cost=cost, k=k, shape=shape).at(point)

    def L(theta: list[float]) -> float:
        rate = math.exp(theta[0])
        jump = [rate * k**shape] if cost == "step" else []

        def integrand(e: float) -> float:
            return math.exp(-e) * c((e / rate) ** (1 / shape))

        ends = sorted([1e-14, 0.01, 1.0, *jump, 40.0])
        return sum(scipy.integrate.quad(integrand, a, b, epsabs=1e-13)[0] for a, b in itertools.pairwise(ends))

    checked(problem, differences(L, problem.theta.tolist()), 2e-6)


POISSON: list[tuple[str, float, Cost]] = [
    ("square", 2.0, lambda x: (x - 2.0) ** 2),
    ("exp", 2.0, lambda x: np.exp(-2.0 * x)),
    ("exp", 0.5, lambda x: np.exp(-0.5 * x)),
]


@pytest.mark.parametrize(("cost", "k", "c"), POISSON)
@pytest.mark.parametrize("point", ["init", "small", "large"])
def test_poisson(cost: str, k: float, c: Cost, point: str, differences: Callable[..., Tensor]) -> None:
    problem = poisson_cost(cost=cost, k=k).at(point)
    x = np.arange(200)

    def L(theta: list[float]) -> float:
        return float((scipy.stats.poisson.pmf(x, math.exp(theta[0])) * c(x)).sum())

    checked(problem, differences(L, problem.theta.tolist()), 1e-7)


@pytest.mark.parametrize(("cost", "k", "c"), POISSON)
@pytest.mark.parametrize("point", ["init", "rare", "common"])
def test_geometric(cost: str, k: float, c: Cost, point: str, differences: Callable[..., Tensor]) -> None:
    problem = geometric_cost(cost=cost, k=k).at(point)
    x = np.arange(2000)

    def L(theta: list[float]) -> float:
        return float((scipy.stats.geom.pmf(x, scipy.special.expit(theta[0]), loc=-1) * c(x)).sum())

    checked(problem, differences(L, problem.theta.tolist()), 1e-5)


@pytest.mark.parametrize(("cost", "k", "c"), POISSON)
@pytest.mark.parametrize("point", ["init", "rare", "common"])
def test_binomial(cost: str, k: float, c: Cost, point: str, differences: Callable[..., Tensor]) -> None:
    """And against enumeration, which the closed form goes before."""
    problem = binomial_cost(cost=cost, k=k, trials=7).at(point)
    x = np.arange(8)

    def L(theta: list[float]) -> float:
        return float((scipy.stats.binom.pmf(x, 7, scipy.special.expit(theta[0])) * c(x)).sum())

    wanted = differences(L, problem.theta.tolist())
    checked(problem, wanted, 1e-8)
    truth = true_gradient(replace(problem, exact=None))
    assert truth is not None
    assert truth.tier == "enumeration"
    torch.testing.assert_close(truth.gradient, wanted, rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    "factory",
    [
        gaussian_cost,
        gamma_cost,
        poisson_cost,
        geometric_cost,
        binomial_cost,
        beta_cost,
        dirichlet_cost,
        von_mises_cost,
        weibull_cost,
    ],
)
def test_coordinates_add_up(factory: Callable[..., Problem]) -> None:
    """Three coordinates are three problems of one: the middle one of the spread is the single one."""
    three, one = factory(dim=3), factory(dim=1)
    for point in one.points:
        whole, single = true_gradient(three.at(point)), true_gradient(one.at(point))
        assert whole is not None
        assert single is not None
        axis = -one.family.event_axes  # type: ignore[attr-defined]
        per_site = whole.gradient.reshape(three.theta.shape)
        middle = per_site.narrow(axis, 1, 1)
        torch.testing.assert_close(middle, single.gradient.reshape(one.theta.shape))
        assert not torch.allclose(per_site.narrow(axis, 0, 1), middle)
    x = torch.rand(three.family.event(three.theta), dtype=torch.float64)  # type: ignore[attr-defined]
    assert float(three.f(x)) == pytest.approx(sum(float(one.f(x[d : d + 1])) for d in range(3)))


@pytest.mark.parametrize(
    ("factory", "settings", "sentence"),
    [
        (gaussian_cost, {"cost": "sin"}, r"gaussian_cost\[cost=sin\]: cost is square, exp or cos"),
        (gaussian_cost, {"dim": 0}, r"gaussian_cost\[dim=0\]: dim must be at least 1"),
        (
            gaussian_cost,
            {"cost": "exp", "k": -1.0},
            r"gaussian_cost\[cost=exp,k=-1.0\]: exp\(-k x\^2\) needs a positive k .*",
        ),
        (gamma_cost, {"cost": "cos"}, r"gamma_cost\[cost=cos\]: cost is square, moment or log"),
        (gamma_cost, {"cost": "moment", "k": 0.0}, r"gamma_cost\[cost=moment,k=0.0\]: x\^k needs a positive k .*"),
        (gamma_cost, {"dim": -1}, r"gamma_cost\[dim=-1\]: dim must be at least 1"),
        (poisson_cost, {"cost": "log"}, r"poisson_cost\[cost=log\]: cost is square or exp"),
        (poisson_cost, {"dim": 0}, r"poisson_cost\[dim=0\]: dim must be at least 1"),
        (weibull_cost, {"cost": "step", "k": 0.0}, r"weibull_cost\[cost=step,k=0.0\]: k must be positive"),
        (weibull_cost, {"shape": 0.0}, r"weibull_cost\[shape=0.0\]: shape must be positive and finite"),
        (von_mises_cost, {"cost": "square"}, r"von_mises_cost\[cost=square\]: cost is cos or exp"),
        (dirichlet_cost, {"categories": 1}, r"dirichlet_cost\[categories=1\]: categories must be at least 2"),
        (beta_cost, {"cost": "moment", "k": 0.0}, r"beta_cost\[cost=moment,k=0.0\]: x\^k needs a positive k .*"),
        (binomial_cost, {"trials": 0}, r"binomial_cost\[trials=0\]: trials must be at least 1"),
        (geometric_cost, {"cost": "log"}, r"geometric_cost\[cost=log\]: cost is square or exp"),
    ],
)
def test_settings_they_cannot_take(factory: Callable[..., Problem], settings: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        factory(**settings)
