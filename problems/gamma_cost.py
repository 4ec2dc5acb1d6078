"""Moments and logarithms of Gamma variables: the family of implicit reparameterisation and of GO."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from problems.base import Point, Problem
from problems.families.gamma import Gamma
from problems.settings import at_least, one_of

COSTS = ("square", "moment", "log")


def gamma_cost(cost: str = "square", k: float = 2.0, dim: int = 1) -> Problem:
    """E sum_d c(x_d), x_d ~ Gamma(a_d, rate b_d), with c(x) = (x - k)^2, x^k or log x.

    theta = (log a, log b). A Gamma variable has no location-scale path: implicit derivatives, weak derivatives and scores are
    compared. The path is worth much for the logarithm where the law is `peaked` (a = 10) and little for the square; at `sparse`
    (a = 0.3) most of the mass is near zero, where approximate reparameterisations break.
    Closed forms: a (a + 1) / b^2 - 2 k a / b + k^2; Gamma(a + k) / (Gamma(a) b^k); psi(a) - log b.
    Figurnov, Mohamed & Mnih 2018, arXiv:1805.08498; Cong et al. 2019, arXiv:1901.06020.
    """
    one_of("gamma_cost", COSTS, cost=cost)
    at_least("gamma_cost", 1, dim=dim)
    if cost == "moment" and k <= 0:
        raise ValueError(
            f"gamma_cost[cost=moment,k={k}]: x^k needs a positive k to have a mean for every concentration"
        )

    def f(x: torch.Tensor) -> torch.Tensor:
        if cost == "square":
            return ((x - k) ** 2).sum(-1)
        return (x**k if cost == "moment" else x.log()).sum(-1)

    def exact(problem: Problem) -> torch.Tensor:
        """The derivatives in log a and log b: a times that in a, b times that in b."""
        a, b = problem.theta.exp()
        if cost == "square":
            d_a = a * (2 * a + 1) / b**2 - 2 * k * a / b
            d_b = -2 * a * (a + 1) / b**2 + 2 * k * a / b
        elif cost == "moment":
            L = torch.exp(torch.lgamma(a + k) - torch.lgamma(a)) / b**k
            d_a, d_b = a * L * (torch.digamma(a + k) - torch.digamma(a)), -k * L
        else:
            d_a, d_b = a * torch.polygamma(1, a), -torch.ones_like(b)
        return torch.stack([d_a, d_b])

    spread = torch.linspace(-0.5, 0.5, dim, dtype=torch.float64) if dim > 1 else torch.zeros(1, dtype=torch.float64)
    places = {"init": (1.0, 1.0), "sparse": (0.3, 0.3), "peaked": (10.0, 5.0)}
    points = {
        name: Point(torch.stack([math.log(a) + spread, torch.full((dim,), math.log(b)).double()]))
        for name, (a, b) in places.items()
    }
    settings: dict[str, Any] = {"cost": cost, "k": float(k), "dim": dim}
    whole = int(k) if float(k).is_integer() else None
    return Problem(
        name="gamma_cost",
        family=Gamma,
        theta=points["init"].theta,
        f=f,
        smooth=2,
        relaxed=cost == "square",
        degree={"square": 2, "moment": whole, "log": None}[cost],
        exact=exact,
        scalar_f=scalar_cost(cost, k, dim),
        points=points,
        settings=settings,
        source="Figurnov et al. 2018, arXiv:1805.08498; Cong et al. 2019, arXiv:1901.06020",
    )


def scalar_cost(cost: str, k: float, dim: int) -> Callable[[Sequence[float]], float]:
    """f of one point in plain Python."""

    def square(x: Sequence[float]) -> float:
        total = 0.0
        for d in range(dim):
            total += (x[d] - k) ** 2
        return total

    def moment(x: Sequence[float]) -> float:
        total = 0.0
        for d in range(dim):
            total += x[d] ** k
        return total

    def log(x: Sequence[float]) -> float:
        total = 0.0
        for d in range(dim):
            total += math.log(x[d])
        return total

    return {"square": square, "moment": moment, "log": log}[cost]
