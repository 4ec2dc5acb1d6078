"""Gumbel-entmax: Gumbel-Softmax with a projection that reaches the corners in place of the softmax."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from estimators.base import Ask, Claim, Estimator
from estimators.relaxation import FAMILIES, check_temperature, perturbed
from estimators.relaxed_objective import relaxed_gradient
from problems.settings import one_of

if TYPE_CHECKING:
    from torch import Tensor

    from problems.base import Problem
    from problems.families.base import Family

ALPHAS = (1.0, 1.5, 2.0)


def entmax(z: Tensor, alpha: float) -> Tensor:
    """p = [(alpha - 1) z - tau]_+^{1/(alpha - 1)} of sum 1: the softmax, 1.5-entmax or sparsemax of the last axis, exactly.

    tau is that of the largest support whose smallest entry it leaves positive. Peters et al. 2019, arXiv:1905.05702; Martins &
    Astudillo 2016, arXiv:1602.02068.
    """
    if alpha == 1:
        return z.softmax(-1)
    s = (alpha - 1) * (z - z.amax(-1, keepdim=True))
    ordered = s.sort(-1, descending=True).values
    n = torch.arange(1, z.shape[-1] + 1).to(z)
    mean = ordered.cumsum(-1) / n
    if alpha == 2:
        tau = mean - 1 / n
    else:
        spread = ordered.square().cumsum(-1) - n * mean.square()
        tau = mean - ((1 - spread) / n).clamp(min=0).sqrt()
    support = (tau < ordered).sum(-1, keepdim=True)
    return (s - tau.gather(-1, support - 1)).clamp(min=0) ** (1 / (alpha - 1))


def entmax_jacobian(p: Tensor, g: Tensor, alpha: float) -> Tensor:
    """(diag s - s s' / sum s) g, s = p^{2 - alpha} on the support of p."""
    s = torch.where(p > 0, p ** (2 - alpha), 0)
    return s * (g - (s * g).sum(-1, keepdim=True) / s.sum(-1, keepdim=True))


def of_pairs(q: Family, z: Tensor) -> Tensor:
    """The logits of categories; a bit's with the 0 of its second category."""
    return torch.stack([z, torch.zeros_like(z)], -1) if q.name == "bernoulli" else z


def gumbel_entmax(temperature: float = 1.0, alpha: float = 1.5) -> Estimator:
    """Gumbel-entmax (alpha=2: Gumbel-sparsemax): pathwise through a relaxed sample that may be a corner.

    Assumes f differentiable and defined between the points of its support. A point with but one entry has no slope; alpha=1 is
    gumbel_softmax. For Elbo log q is continued linearly between the points. Biased: the gradient of the relaxed objective E f(y),
    unbiased for that; the model's gradient is that of f(y) as well. One evaluation and gradient of f.
    Paulus, Choi, Tarlow, Krause & Maddison 2020, arXiv:2006.08063, appendix.
    """
    check_temperature("gumbel_entmax", temperature)
    one_of("gumbel_entmax", ALPHAS, alpha=alpha)

    def draw(q: Family, noise: Tensor) -> Tensor:
        """y = entmax((theta + G) / tau); of a bit the first entry, beside a logit of 0; y: [1, ..., *event]."""
        y = entmax(of_pairs(q, perturbed(q, noise) / temperature), alpha)
        return y[..., 0] if q.name == "bernoulli" else y

    def combine(q: Family, x: Tensor, dfx: Tensor) -> Tensor:
        """g = 1/tau J(y) grad f(y)."""
        if q.name != "bernoulli":
            return 1 / temperature * entmax_jacobian(x[0], dfx[0], alpha)
        pair = torch.stack([x[0], 1 - x[0]], -1)
        return 1 / temperature * entmax_jacobian(pair, of_pairs(q, dfx[0]), alpha)[..., 0]

    def value(fx: Tensor) -> Tensor:
        """L is estimated by the relaxed objective."""
        return fx[0]

    def target(problem: Problem) -> Tensor | None:
        """y by Newton's method for the threshold; its kinks leave the quadrature fewer digits."""
        bits = problem.family_name == "bernoulli"

        def point(z: Tensor) -> Tensor:
            pairs = torch.stack([z, torch.zeros_like(z)], -1) if bits else z
            y = by_newton(pairs / temperature, alpha) if alpha > 1 else (pairs / temperature).softmax(-1)
            return y[..., 0] if bits else y

        return relaxed_gradient(problem, point, tolerance=2e-3)

    claim = Claim("biased", target=target, of="the relaxed objective E f(y)")
    return Estimator(
        "gumbel_entmax",
        [Ask.RELAXED | Ask.GRADIENT],
        draw,
        combine,
        FAMILIES,
        {"Expectation": claim, "Elbo": claim},
        value=value,
        settings={"temperature": temperature, "alpha": alpha},
        source="arXiv:2006.08063",
    )


def by_newton(z: Tensor, alpha: float) -> Tensor:
    """The entmax of z for alpha 1.5 or 2, its threshold the root of a convex function, which Newton's method nears from below."""
    s, power = (alpha - 1) * z, 1 / (alpha - 1)
    tau = s.amax(-1, keepdim=True) - 1
    for _ in range(max(z.shape[-1], 8)):
        r = (s - tau).clamp(min=0)
        slope = power * torch.where(r > 0, r ** (power - 1), 0).sum(-1, keepdim=True)
        tau = tau + ((r**power).sum(-1, keepdim=True) - 1) / slope
    return (s - tau).clamp(min=0) ** power
