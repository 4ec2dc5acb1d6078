"""What perturbed optimisers are unbiased for: the gradient of E f(z), z the most probable point of perturbed logits.

By enumeration of z, the chance of each an integral over the least of its perturbed logits, differentiated by autograd.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from estimators.relaxed_objective import integrand
from problems.truth import by_datum, in_double, terms

if TYPE_CHECKING:
    from torch import Tensor

    from problems.base import Problem


def smoothed_gradient(problem: Problem, perturbation: str, scale: float) -> Tensor | None:
    """The gradient `[P]` of E f(z), or E [f(z) - log q(z)] with log q's own theta held fixed; the model's follows theta's.

    z is the most probable point of theta + scale noise, the noise normal or Gumbel; None where there are too many z.
    """
    if terms(problem) is None or problem.family_name not in ("bernoulli", "categorical", "subset"):
        return None
    problem = in_double(problem)

    def L(theta: Tensor, model: Tensor | None, data: Tensor | None) -> Tensor:
        sites = problem.site_parameters(theta, data)
        z = problem.bind(sites, data).support()
        z = z if data is None else z[:, None]
        return chance(problem.family_name, z, sites / scale, perturbation) * integrand(problem, sites, z, model, data)

    return by_datum(problem, L)


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
