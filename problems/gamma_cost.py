"""Moments and logarithms of Gamma variables: the family of implicit reparameterisation and of GO."""

from __future__ import annotations

import math

import torch

from problems.base import Problem
from problems.costs import cost_problem, log, moment, square
from problems.families.gamma import Gamma


def gamma_cost(cost: str = "square", k: float = 2.0, dim: int = 1) -> Problem:
    """E sum_d c(x_d), x_d ~ Gamma(a_d, rate b_d), with c(x) = (x - k)^2, x^k or log x.

    theta = (log a, log b). A Gamma variable has no location-scale path: implicit derivatives, weak derivatives and scores are
    compared. The path is worth much for the logarithm where the law is `peaked` (a = 10) and little for the square; at `sparse`
    (a = 0.3) most of the mass is near zero, where approximate reparameterisations break.
    Closed forms: a (a + 1) / b^2 - 2 k a / b + k^2; Gamma(a + k) / (Gamma(a) b^k); psi(a) - log b.
    Figurnov, Mohamed & Mnih 2018, arXiv:1805.08498; Cong et al. 2019, arXiv:1901.06020.
    """
    if cost == "moment" and k <= 0:
        raise ValueError(
            f"gamma_cost[cost=moment,k={k}]: x^k needs a positive k to have a mean for every concentration"
        )

    def mean(theta: torch.Tensor) -> torch.Tensor:
        a, b = theta.exp()
        if cost == "square":
            return a * (a + 1) / b**2 - 2 * k * a / b + k**2
        if cost == "moment":
            return torch.exp(torch.lgamma(a + k) - torch.lgamma(a)) / b**k
        return torch.digamma(a) - b.log()

    places = {"init": (1.0, 1.0), "sparse": (0.3, 0.3), "peaked": (10.0, 5.0)}
    return cost_problem(
        Gamma,
        {"square": square(k, dim), "moment": moment(k, dim), "log": log(dim)},
        mean,
        {name: (math.log(a), math.log(b)) for name, (a, b) in places.items()},
        {"cost": cost, "k": float(k), "dim": dim},
        name="gamma_cost",
        source="Figurnov et al. 2018, arXiv:1805.08498; Cong et al. 2019, arXiv:1901.06020",
    )
