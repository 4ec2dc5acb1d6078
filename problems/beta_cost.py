"""Moments and logarithms of Beta variables, which have two ends."""

from __future__ import annotations

import math

import torch

from problems.base import Problem
from problems.costs import cost_problem, log, moment, square
from problems.families.beta import Beta


def beta_cost(cost: str = "square", k: float = 0.4, dim: int = 1) -> Problem:
    """E sum_d c(x_d), x_d ~ Beta(a_d, b_d), with c(x) = (x - k)^2, x^k or log x.

    theta = (log a, log b). The interval's ends are where estimators part: at `ends` (a = b = 0.5) most of the mass is there, the
    score is large and the path flat; at `peaked` (a = 20, b = 10) the law is nearly Normal and the path best. A path must be
    implicit; a rejection sampler's, or that of logit x standardised, has a correction that is large at `ends`.
    Closed forms, s = a + b: a (a + 1) / (s (s + 1)) - 2 k a / s + k^2; B(a + k, b) / B(a, b); psi(a) - psi(s).
    Figurnov, Mohamed & Mnih 2018, arXiv:1805.08498; Ruiz, Titsias & Blei 2016, arXiv:1610.02287.
    """
    if cost == "moment" and k <= 0:
        raise ValueError(f"beta_cost[cost=moment,k={k}]: x^k needs a positive k to have a mean for every concentration")

    def mean(theta: torch.Tensor) -> torch.Tensor:
        a, b = theta.exp()
        s = a + b
        if cost == "square":
            return a * (a + 1) / (s * (s + 1)) - 2 * k * a / s + k**2
        if cost == "moment":
            return torch.exp(torch.lgamma(a + k) - torch.lgamma(a) + torch.lgamma(s) - torch.lgamma(s + k))
        return torch.digamma(a) - torch.digamma(s)

    places = {"init": (1.0, 1.0), "ends": (0.5, 0.5), "peaked": (20.0, 10.0)}
    return cost_problem(
        Beta,
        {"square": square(k, dim), "moment": moment(k, dim), "log": log(dim)},
        mean,
        {name: (math.log(a), math.log(b)) for name, (a, b) in places.items()},
        {"cost": cost, "k": float(k), "dim": dim},
        name="beta_cost",
        source="Figurnov et al. 2018, arXiv:1805.08498",
    )
