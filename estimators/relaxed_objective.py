"""What relaxed estimators are unbiased for: the gradient of E f(y), y a soft point of perturbed logits, by quadrature.

Only the density of the perturbed logits is differentiated, never the path through y, so that nothing is shared with the estimators.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import logsigmoid, pad

from estimators.base import size_of
from estimators.relaxation import FAMILIES
from problems.truth import by_datum, in_double

if TYPE_CHECKING:
    from torch import Tensor

    from problems.base import Problem

FINEST = {1: 2**-9, 2: 2**-4}  # the step of the finest rule, by the number of differences


def relaxed_gradient(problem: Problem, point: Callable[[Tensor], Tensor], tolerance: float = 1e-8) -> Tensor | None:
    """The gradient `[P]` of E f(y), or E [f(y) - log q(y)] with log q's own theta held fixed; the model's follows theta's.

    point: z `[..., *event] -> y`, z = theta + logistic noise for bits, theta + Gumbel noise for categories, up to a shift.
    The trapezoid rule over the differences of z, which converges geometrically where y is analytic, is refined until two rules
    agree to `tolerance` of the gradient. None where that does not come about, or a datum has more than two such differences.
    """
    if problem.family_name not in FAMILIES:
        return None
    D, *C = size_of(problem).theta
    dims = D * (C[0] - 1 if C else 1)
    if dims not in FINEST:
        return None
    problem, step = in_double(problem), 0.5
    reach = 10 - math.log(tolerance)  # e^-reach of the mass of a difference of perturbed logits lies beyond
    coarse = by_rule(problem, point, dims, step, reach)
    while step > FINEST[dims]:
        step /= 2
        fine = by_rule(problem, point, dims, step, reach)
        if float((fine - coarse).norm()) <= tolerance * float(fine.norm()):
            return fine
        coarse = fine
    return None


def by_rule(problem: Problem, point: Callable[[Tensor], Tensor], dims: int, step: float, reach: float) -> Tensor:
    """By the rule of this step, as far as `reach` from theta."""
    axis = torch.arange(-reach, reach + step, step, dtype=torch.float64)
    t = torch.cartesian_prod(*[axis] * dims).reshape(-1, dims)

    def L(theta: Tensor, model: Tensor | None, data: Tensor | None) -> Tensor:
        sites = problem.site_parameters(theta, data)
        z, log_density = perturbed_logits(sites, t if data is None else t[:, None], problem.family_name == "bernoulli")
        return step**dims * log_density.exp() * integrand(problem, sites, point(z), model, data)

    return by_datum(problem, L)


def integrand(problem: Problem, sites: Tensor, x: Tensor, model: Tensor | None, data: Tensor | None) -> Tensor:
    """f, or f - log q at the sites' parameters held fixed, as estimators are given it."""
    fx = problem.value(x, model, data)
    if problem.parts is not None:
        fx = fx.sum(-1)
    return fx - problem.bind(sites.detach(), data).log_prob(x) if problem.objective.ratio else fx


def perturbed_logits(theta: Tensor, t: Tensor, bits: bool) -> tuple[Tensor, Tensor]:
    """z at the displacements t `[N, (1,) dims]` from theta, held fixed, and its log density as a function of theta.

    Of a bit that is the logistic density; of the differences z_c - z_C of categories
    (C-1)! prod_c e^{l_c - z_c} / (sum_c e^{l_c - z_c})^C.
    """
    if bits:
        z = theta.detach() + t
        return z, (logsigmoid(z - theta) + logsigmoid(theta - z)).sum(-1)
    *_, D, C = theta.shape
    below = pad(t.unflatten(-1, (D, C - 1)), (0, 1))
    z = theta.detach() + below
    gap = theta - z
    log = gap.sum(-1) - C * gap.logsumexp(-1) + torch.lgamma(torch.tensor(float(C), dtype=theta.dtype))
    return z, log.sum(-1)
