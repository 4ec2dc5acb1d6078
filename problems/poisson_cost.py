"""Costs of Poisson variables: counts, an infinite support and no path."""

from __future__ import annotations

import math

import torch

from problems.base import Problem
from problems.costs import cost_problem, exp, square
from problems.families.poisson import Poisson


def poisson_cost(cost: str = "square", k: float = 2.0, dim: int = 1) -> Problem:
    """E sum_d c(x_d), x_d ~ Poisson(lambda_d), with c(x) = (x - k)^2 or exp(-k x).

    theta = log lambda. The support has no end, so that nothing can be enumerated, and there is no path: differences f(x + 1) - f(x)
    (weak derivatives, GO, stochastic automatic differentiation) stand against scores. exp depends on little but whether x is
    zero, and the `large` rate makes that a rare event. Closed forms: lambda + (lambda - k)^2; exp(lambda (exp(-k) - 1)).
    Mohamed et al. 2020, arXiv:1906.10652, section 6; Cong et al. 2019, arXiv:1901.06020; Arya et al. 2022, arXiv:2210.08572.
    """

    def mean(theta: torch.Tensor) -> torch.Tensor:
        rate = theta.exp()
        return rate + (rate - k) ** 2 if cost == "square" else torch.exp(rate * (math.exp(-k) - 1))

    return cost_problem(
        Poisson,
        {"square": square(k, dim), "exp": exp(k, dim)},
        mean,
        {name: [math.log(rate)] for name, rate in {"init": 1.0, "small": 0.1, "large": 10.0}.items()},
        {"cost": cost, "k": float(k), "dim": dim},
        name="poisson_cost",
        source="Mohamed et al. 2020, arXiv:1906.10652; Cong et al. 2019, arXiv:1901.06020",
    )
