"""Exact gradients where a category is drawn and f itself draws normal variables: a sum over categories of quadratures."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from problems.truth import Truth, by_datum, exactly, log_probability, of_closed_form

if TYPE_CHECKING:
    from torch import Tensor

    from problems.base import Problem

MOST_LATENTS = 2
REACH = 6.5  # standard deviations: beyond are less than 1e-9 of the mass
STEPS = (0.6, 0.4, 0.25, 0.16, 0.1, 0.07)
TOLERANCE = 1e-5
NEGLIGIBLE = -25.0  # log q: a category less likely than 1e-10 counts for nothing


def by_sums(problem: Problem) -> Truth:
    """The gradient of an ELBO, L = sum_c q(c) (E f(c, eps) - log q(c)) with eps ~ N(0, I), summed over the data.

    E for each datum by trapezoidal rules of ever finer steps, until two differ by at most TOLERANCE of the datum's gradient.
    Raises ArithmeticError where the finest one still does not.
    """
    assert problem.data is not None
    drawn = sum((of_datum(replace(problem, data=row[None], batch=0)) for row in problem.data), torch.zeros(problem.dim))
    return exactly(drawn.double() + of_closed_form(problem), "quadrature")


def of_datum(problem: Problem) -> Tensor:
    """The gradient `[P]` of the one datum that the problem has."""
    coarse, gap = None, math.inf
    for step in STEPS:
        fine = with_rule(problem, step)
        if coarse is not None:
            gap = float((fine - coarse).norm()) / max(float(fine.norm()), 1e-300)
            if gap <= TOLERANCE:
                return fine
        coarse = fine
    raise ArithmeticError(f"{problem.name}: two quadratures of a datum differ by {gap:.1e} of its gradient")


def with_rule(problem: Problem, step: float) -> Tensor:
    """The gradient `[P]` with the rule of one step."""
    (drawn,) = problem.noise
    assert drawn.event is not None
    eps, weight = normal_grid(drawn.event[0], step)

    def L(theta: Tensor, model: Tensor | None, data: Tensor | None) -> Tensor:
        q = problem.bind(problem.site_parameters(theta, data), data)
        support = q.support()[:, None]
        counts = (log_probability(q, support) > NEGLIGIBLE)[:, 0]
        c = support[counts]
        log_q = log_probability(q, c)
        f = problem.value(c[:, None].expand(len(c), len(eps), *c.shape[1:]), model, data, [eps[:, None]])
        return (log_q.exp() * ((weight[:, None] * f).sum(1) - log_q)).sum(0)

    return by_datum(problem, L)


def normal_grid(dims: int, step: float) -> tuple[Tensor, Tensor]:
    """Nodes `[n, dims]` on a grid within REACH of the origin, and weights `[n]` in proportion to N(0, I)."""
    most = int(REACH / step)
    axis = torch.arange(-most, most + 1, dtype=torch.float64) * step
    grid = torch.cartesian_prod(*[axis] * dims).reshape(-1, dims)
    grid = grid[grid.square().sum(-1) <= REACH**2]
    return grid, (-0.5 * grid.square().sum(-1)).softmax(0)
