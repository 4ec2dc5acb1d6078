"""Hard Concrete: a bit's Concrete relaxation stretched past 0 and 1 and clamped, so that it is often exactly either."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from estimators.base import Ask, Claim, Estimator
from estimators.relaxation import check_temperature, perturbed
from estimators.relaxed_objective import relaxed_gradient

if TYPE_CHECKING:
    from torch import Tensor

    from problems.base import Problem
    from problems.families.base import Family


def hard_concrete(beta: float = 0.6666666666666666, gamma: float = -0.1, zeta: float = 1.1) -> Estimator:
    """Hard Concrete gates: binary Concrete at temperature beta (2/3), stretched to (gamma, zeta) and clamped to [0, 1].

    For bits. Assumes f differentiable and defined between the points of its support. Without a stretch (gamma=0, zeta=1) it is
    gumbel_softmax. For Elbo log q is continued linearly between the points. Biased: the gradient of the relaxed objective E f(y),
    unbiased for that; the model's gradient is that of f(y) as well. One evaluation and gradient of f.
    Louizos, Welling & Kingma 2018, arXiv:1712.01312.
    """
    check_temperature("hard_concrete", beta, "beta")
    if not (-math.inf < gamma <= 0 and 1 <= zeta < math.inf):
        raise ValueError(f"hard_concrete[gamma={gamma},zeta={zeta}]: the stretch must hold [0, 1] and be finite")

    def stretched(s: Tensor) -> Tensor:
        return s * (zeta - gamma) + gamma

    def draw(q: Family, noise: Tensor) -> Tensor:
        """y = min(1, max(0, s (zeta - gamma) + gamma)), s = sigmoid((theta - logit u) / beta); y: [1, ..., D]."""
        return stretched((perturbed(q, noise) / beta).sigmoid()).clamp(0, 1)

    def combine(q: Family, noise: Tensor, dfx: Tensor) -> Tensor:
        """g = (zeta - gamma) / beta s (1 - s) f'(y), 0 where y is clamped."""
        z = perturbed(q, noise[0]) / beta
        s = z.sigmoid()
        free = (stretched(s) >= 0) & (stretched(s) <= 1)
        return torch.where(free, (zeta - gamma) / beta * s * (-z).sigmoid() * dfx[0], 0)

    def value(fx: Tensor) -> Tensor:
        """L is estimated by the relaxed objective."""
        return fx[0]

    def target(problem: Problem) -> Tensor | None:
        """The kinks where y is clamped leave the quadrature fewer digits."""
        return relaxed_gradient(problem, lambda z: stretched((z / beta).sigmoid()).clamp(0, 1), tolerance=2e-3)

    claim = Claim("biased", target=target, of="the stretched and clamped relaxed objective E f(y)")
    return Estimator(
        "hard_concrete",
        [Ask.RELAXED | Ask.GRADIENT],
        draw,
        combine,
        ["bernoulli"],
        {"Expectation": claim, "Elbo": claim},
        value=value,
        settings={"beta": beta, "gamma": gamma, "zeta": zeta},
        source="arXiv:1712.01312",
    )
