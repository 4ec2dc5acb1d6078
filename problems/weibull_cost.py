"""Costs of Weibull variables of a fixed shape, one of which jumps."""

from __future__ import annotations

import math

import torch

from problems.base import Problem
from problems.costs import cost_problem, log, moment, square, step
from problems.families.weibull import Weibull
from problems.settings import positive


def weibull_cost(cost: str = "square", k: float = 1.0, dim: int = 1, shape: float = 1.5) -> Problem:
    """E sum_d c(x_d), P(x_d > t) = exp(-r_d t^shape), with c(x) = (x - k)^2, x^k, log x or 1[x > k].

    theta = log r; shape=1 is the exponential law. The costs are called square, moment, log and step. A Weibull variable has a
    plain path, x = (E / r)^(1/shape), so that scores and weak derivatives are compared with it; `step` has no slope, and there
    they are left alone. At `slow` (r = 0.1) nearly all x are above k = 1, at `fast` (r = 4) hardly any.
    Closed forms, G(j) = Gamma(1 + j / shape) r^(-j / shape): G(2) - 2 k G(1) + k^2; G(k); -(0.5772 + log r) / shape;
    exp(-r k^shape). Mohamed et al. 2020, arXiv:1906.10652, table 1.
    """
    if cost in ("moment", "step") and k <= 0:
        raise ValueError(f"weibull_cost[cost={cost},k={k}]: k must be positive")
    positive("weibull_cost", shape=shape)

    def mean(theta: torch.Tensor) -> torch.Tensor:
        def G(j: float) -> torch.Tensor:
            return math.gamma(1 + j / shape) * torch.exp(-j / shape * theta)

        if cost == "square":
            return G(2) - 2 * k * G(1) + k**2
        if cost == "moment":
            return G(k)
        return -theta / shape if cost == "log" else torch.exp(-(k**shape) * theta.exp())

    return cost_problem(
        Weibull(float(shape)),
        {"square": square(k, dim), "moment": moment(k, dim), "log": log(dim), "step": step(k, dim)},
        mean,
        {name: [math.log(rate)] for name, rate in {"init": 1.0, "slow": 0.1, "fast": 4.0}.items()},
        {"cost": cost, "k": float(k), "dim": dim, "shape": float(shape)},
        name="weibull_cost",
        source="Mohamed et al. 2020, arXiv:1906.10652",
    )
