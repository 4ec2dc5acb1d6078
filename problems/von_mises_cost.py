"""Costs of von Mises variables: angles, on a circle without ends."""

from __future__ import annotations

import math

import torch

from problems.base import Problem
from problems.costs import Cost, cost_problem
from problems.families.von_mises import VonMises


def von_mises_cost(cost: str = "cos", k: float = 0.0, dim: int = 1) -> Problem:
    """E sum_d c(x_d), x_d ~ von Mises(mu_d, kappa_d), with c(x) = cos(x - k) or exp(cos(x - k)), called cos and exp.

    theta = (mu, log kappa). The location has a path without a correction only because c does not jump where the circle is cut; the
    concentration has none but the implicit one, and rejection, with a wrapped Cauchy beneath, has a correction. At `flat`
    (kappa = 0.1) the score is small and the path long; at `peaked` (kappa = 50) it is the other way round.
    Closed forms: A(kappa) cos(mu - k), A = I_1 / I_0; I_0(sqrt(kappa^2 + 1 + 2 kappa cos(mu - k))) / I_0(kappa).
    Figurnov, Mohamed & Mnih 2018, arXiv:1805.08498.
    """

    def mean(theta: torch.Tensor) -> torch.Tensor:
        from_target, kappa = (theta[0] - k).cos(), theta[1].exp()
        i0e, i1e = torch.special.i0e, torch.special.i1e
        if cost == "cos":
            return i1e(kappa) / i0e(kappa) * from_target
        joint = (kappa**2 + 1 + 2 * kappa * from_target).sqrt()
        return i0e(joint) / i0e(kappa) * (joint - kappa).exp()

    places = {"init": (1.0, 1.0), "flat": (1.0, 0.1), "peaked": (1.0, 50.0)}
    return cost_problem(
        VonMises,
        {
            "cos": Cost(f"cos(x - {k:g})", lambda x: (x - k).cos()),
            "exp": Cost(f"exp cos(x - {k:g})", lambda x: (x - k).cos().exp()),
        },
        mean,
        {name: (mu, math.log(kappa)) for name, (mu, kappa) in places.items()},
        {"cost": cost, "k": float(k), "dim": dim},
        name="von_mises_cost",
        source="Figurnov et al. 2018, arXiv:1805.08498",
    )
