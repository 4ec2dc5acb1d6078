"""Costs of Dirichlet variables: points of the simplex, none of whose entries moves alone."""

from __future__ import annotations

import math

import torch

from problems.base import Problem
from problems.costs import Cost, cost_problem
from problems.families.dirichlet import Dirichlet
from problems.settings import at_least


def dirichlet_cost(cost: str = "square", dim: int = 1, categories: int = 3) -> Problem:
    """E sum_d c(x_d), x_d ~ Dirichlet(alpha_d), with c(x) = |x - t|^2, sum_c t_c log x_c or -sum_c x_c log x_c.

    theta = log alpha, C entries a site; t_c is proportional to 1, 2 ... C. The costs are called square, log and entropy. A path
    moves all entries of a site at once, and which path is taken matters: that of the Gamma variables beneath, or its mean given
    x. At `sparse` (alpha = 0.3) points lie at the corners, where log x has a heavy tail and rejection samplers of small shapes
    need their shape augmented; at `peaked` (alpha = 20 t) the law is nearly Normal.
    Closed forms, sums over c with s = sum alpha and m = alpha / s: m_c (alpha_c + 1) / (s + 1) - 2 t_c m_c + t_c^2;
    t_c (psi(alpha_c) - psi(s)); m_c (psi(s + 1) - psi(alpha_c + 1)).
    Figurnov, Mohamed & Mnih 2018, arXiv:1805.08498; Jankowiak & Obermeyer 2018, arXiv:1806.01851.
    """
    at_least("dirichlet_cost", 2, categories=categories)
    t = torch.arange(1, categories + 1, dtype=torch.float64) / (categories * (categories + 1) / 2)

    def mean(theta: torch.Tensor) -> torch.Tensor:
        alpha = theta.exp()
        s = alpha.sum(-1, keepdim=True)
        m = alpha / s
        if cost == "square":
            return m * (alpha + 1) / (s + 1) - 2 * t * m + t**2
        if cost == "log":
            return t * (torch.digamma(alpha) - torch.digamma(s))
        return m * (torch.digamma(s + 1) - torch.digamma(alpha + 1))

    places = {"init": [0.0] * categories, "sparse": [math.log(0.3)] * categories, "peaked": (20 * t).log().tolist()}
    return cost_problem(
        Dirichlet,
        {
            "square": Cost("(x - t_c)^2", lambda x: (x - t.to(x)) ** 2, degree=2),
            "log": Cost("t_c log x", lambda x: t.to(x) * x.log(), relaxed=False),
            "entropy": Cost("-x log x", lambda x: -x * x.log(), relaxed=False),
        },
        mean,
        places,
        {"cost": cost, "dim": dim, "categories": categories},
        name="dirichlet_cost",
        source="Figurnov et al. 2018, arXiv:1805.08498; Jankowiak & Obermeyer 2018, arXiv:1806.01851",
    )
