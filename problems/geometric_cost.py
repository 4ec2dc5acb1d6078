"""Costs of geometric variables: counts whose law is broad at every mean."""

from __future__ import annotations

import math

import torch

from problems.base import Problem
from problems.costs import cost_problem, exp, square
from problems.families.geometric import Geometric


def geometric_cost(cost: str = "square", k: float = 2.0, dim: int = 1) -> Problem:
    """E sum_d c(x_d), x_d ~ Geometric(p_d) on 0, 1, ..., with c(x) = (x - k)^2 or exp(-k x).

    theta is the logit of p. The standard deviation is never below the mean m = (1 - p) / p, unlike that of a Poisson variable:
    scores and weak derivatives, which compare x with points far from it, are told apart from differences f(x + 1) - f(x), whose
    weight grows with x. `rare` (p = 0.05, m = 19) has the longer tail, and `common` (p = 0.9) hardly ever leaves 0.
    Closed forms: m (1 + m) + (m - k)^2; p / (1 - (1 - p) exp(-k)).
    Cong et al. 2019, arXiv:1901.06020; Arya et al. 2022, arXiv:2210.08572.
    """

    def mean(theta: torch.Tensor) -> torch.Tensor:
        p, m = theta.sigmoid(), torch.exp(-theta)
        return m * (1 + m) + (m - k) ** 2 if cost == "square" else p / (1 - (1 - p) * math.exp(-k))

    return cost_problem(
        Geometric,
        {"square": square(k, dim), "exp": exp(k, dim)},
        mean,
        {name: [math.log(p / (1 - p))] for name, p in {"init": 0.5, "rare": 0.05, "common": 0.9}.items()},
        {"cost": cost, "k": float(k), "dim": dim},
        name="geometric_cost",
        source="Cong et al. 2019, arXiv:1901.06020; Arya et al. 2022, arXiv:2210.08572",
    )
