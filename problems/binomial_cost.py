"""Costs of binomial variables: counts with an end, of which the Bernoulli variable is the smallest."""

from __future__ import annotations

import math

import torch

from problems.base import Problem
from problems.costs import cost_problem, exp, square
from problems.families.binomial import Binomial
from problems.settings import at_least


def binomial_cost(cost: str = "square", k: float = 2.0, dim: int = 1, trials: int = 10) -> Problem:
    """E sum_d c(x_d), x_d ~ Binomial(n, p_d) for n trials, with c(x) = (x - k)^2 or exp(-k x).

    theta is the logit of p. n trials are n bits of one shared logit that f sees the sum of: what a weak derivative does with two
    evaluations of f, a bit at a time, stands beside differences f(x + 1) - f(x) weighted by n - x and beside the score.
    The support is small enough to be listed. Closed forms: n p (1 - p) + (n p - k)^2; (1 - p + p exp(-k))^n.
    Cong et al. 2019, arXiv:1901.06020; Arya et al. 2022, arXiv:2210.08572.
    """
    at_least("binomial_cost", 1, trials=trials)

    def mean(theta: torch.Tensor) -> torch.Tensor:
        p, m = theta.sigmoid(), trials * theta.sigmoid()
        return m * (1 - p) + (m - k) ** 2 if cost == "square" else (1 - p + p * math.exp(-k)) ** trials

    return cost_problem(
        Binomial(trials),
        {"square": square(k, dim), "exp": exp(k, dim)},
        mean,
        {name: [math.log(p / (1 - p))] for name, p in {"init": 0.5, "rare": 0.05, "common": 0.9}.items()},
        {"cost": cost, "k": float(k), "dim": dim, "trials": trials},
        name="binomial_cost",
        source="Cong et al. 2019, arXiv:1901.06020; Arya et al. 2022, arXiv:2210.08572",
    )
