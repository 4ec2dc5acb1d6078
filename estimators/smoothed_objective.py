"""What perturbed optimisers are unbiased for: the gradient of E f(z), z the most probable point of perturbed logits.

By enumeration of z, the chance of each an integral over the least of its perturbed logits, differentiated by autograd.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from problems.truth import terms

if TYPE_CHECKING:
    from torch import Tensor

    from problems.base import Problem


def smoothed_gradient(problem: Problem, perturbation: str, scale: float) -> Tensor | None:
    """The gradient `[P]` of E f(z), or E [f(z) - log q(z)] with log q's own theta held fixed; the model's follows theta's.

    z is the most probable point of theta + scale noise, the noise normal or Gumbel; None where there are too many z.
    """
    if terms(problem) is None or problem.family_name not in ("bernoulli", "categorical", "subset"):
        return None
    leaves = [t.detach().double().clone().requires_grad_() for t in (problem.theta, problem.model) if t is not None]
    total = [torch.zeros_like(leaf) for leaf in leaves]
    for row in range(max(problem.rows, 1)):
        data = None if problem.data is None else problem.data[row : row + 1]
        theta = problem.site_parameters(leaves[0], data)
        q: Any = problem.bind(theta.detach(), data)
        z = q.support()
        z = z if data is None else z[:, None]
        fz = problem.value(z, leaves[1] if problem.model is not None else None, data)
        if problem.parts is not None:
            fz = fz.sum(-1)
        if problem.objective.ratio:
            fz = fz - q.log_prob(z)
        L = (chance(problem.family_name, z, theta / scale, perturbation) * fz).sum()
        for sum_, g in zip(total, torch.autograd.grad(L, leaves, allow_unused=True), strict=True):
            if g is not None:
                sum_ += g
    return torch.cat([g.reshape(-1) for g in total])


def chance(family: str, z: Tensor, theta: Tensor, perturbation: str) -> Tensor:
    """Of every z `[S, (B,) *event]`, that it is the most probable point of theta + noise."""
    if family == "bernoulli":
        towards = (2 * z - 1) * theta
        return (torch.special.ndtr(towards) if perturbation == "normal" else towards.sigmoid()).prod(-1)
    if family == "subset":
        return chance_of_largest(z, theta, perturbation)
    C = theta.shape[-1]
    each = [chance_of_largest(one, theta, perturbation) for one in torch.eye(C, dtype=theta.dtype)]
    return (z * torch.stack(each, -1)).sum(-1).prod(-1)


def chance_of_largest(chosen: Tensor, theta: Tensor, perturbation: str) -> Tensor:
    """That the chosen are all above the others, chosen `[..., D]` of 0. and 1.: `[...]`.

    sum_i in chosen of the integral of the density of i at t, the other chosen above t and the others below.
    """
    low, high = float(theta.detach().min()) - 12, float(theta.detach().max()) + 42
    t = torch.arange(low, high, 1 / 16, dtype=theta.dtype)
    log_density, log_below, log_above = law(perturbation, t - theta[..., None])
    one = chosen[..., None]
    together = (one * log_above + (1 - one) * log_below).sum(-2, keepdim=True)
    return (one * (log_density - log_above + together).exp()).sum((-2, -1)) / 16


def law(perturbation: str, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logarithms of the noise's density, distribution function and its complement."""
    if perturbation == "normal":
        return -0.5 * t * t - 0.5 * math.log(2 * math.pi), torch.special.log_ndtr(t), torch.special.log_ndtr(-t)
    below = -(-t).exp()
    return below - t, below, (-below.expm1()).log()
