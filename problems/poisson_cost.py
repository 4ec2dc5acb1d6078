"""Costs of Poisson variables: counts, an infinite support and no path."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from problems.base import Point, Problem
from problems.families.poisson import Poisson
from problems.settings import at_least, one_of

COSTS = ("square", "exp")


def poisson_cost(cost: str = "square", k: float = 2.0, dim: int = 1) -> Problem:
    """E sum_d c(x_d), x_d ~ Poisson(lambda_d), with c(x) = (x - k)^2 or exp(-k x).

    theta = log lambda. The support has no end, so that nothing can be enumerated, and there is no path: differences f(x + 1) - f(x)
    (weak derivatives, GO, stochastic automatic differentiation) stand against scores. exp depends on little but whether x is
    zero, and the `large` rate makes that a rare event. Closed forms: lambda + (lambda - k)^2; exp(lambda (exp(-k) - 1)).
    Mohamed et al. 2020, arXiv:1906.10652, section 6; Cong et al. 2019, arXiv:1901.06020; Arya et al. 2022, arXiv:2210.08572.
    """
    one_of("poisson_cost", COSTS, cost=cost)
    at_least("poisson_cost", 1, dim=dim)

    def f(x: torch.Tensor) -> torch.Tensor:
        return ((x - k) ** 2 if cost == "square" else torch.exp(-k * x)).sum(-1)

    def exact(problem: Problem) -> torch.Tensor:
        """lambda times the derivative in lambda."""
        rate = problem.theta.exp()
        if cost == "square":
            return rate * (1 + 2 * (rate - k))
        slope = math.exp(-k) - 1
        return rate * slope * torch.exp(rate * slope)

    spread = torch.linspace(-0.5, 0.5, dim, dtype=torch.float64) if dim > 1 else torch.zeros(1, dtype=torch.float64)
    places = {"init": 1.0, "small": 0.1, "large": 10.0}
    points = {name: Point(math.log(rate) + spread) for name, rate in places.items()}
    settings: dict[str, Any] = {"cost": cost, "k": float(k), "dim": dim}
    return Problem(
        name="poisson_cost",
        family=Poisson,
        theta=points["init"].theta,
        f=f,
        smooth=2,
        relaxed=True,
        degree=2 if cost == "square" else None,
        exact=exact,
        scalar_f=scalar_cost(cost, k, dim),
        points=points,
        settings=settings,
        source="Mohamed et al. 2020, arXiv:1906.10652; Cong et al. 2019, arXiv:1901.06020",
    )


def scalar_cost(cost: str, k: float, dim: int) -> Callable[[Sequence[float]], float]:
    """f of one point in plain Python."""

    def square(x: Sequence[float]) -> float:
        total = 0.0
        for d in range(dim):
            total += (x[d] - k) ** 2
        return total

    def exp(x: Sequence[float]) -> float:
        total = 0.0
        for d in range(dim):
            total += math.exp(-k * x[d])
        return total

    return {"square": square, "exp": exp}[cost]
