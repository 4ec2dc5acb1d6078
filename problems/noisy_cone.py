"""The noisy cone of programmable variational inference: a posterior that is a ring, under a factorised Normal."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from problems.base import Point, Problem
from problems.families.normal import Normal
from problems.objectives import Elbo
from problems.points import stored_points
from problems.settings import positive
from problems.truth import Truth, by_quadrature, trapezoid

PRIOR = 10.0
FLOOR, SLOPE = 0.1, 0.01
CONSTANT = 2 * math.log(PRIOR) + 1.5 * math.log(2 * math.pi)
NODES, REACH = 200, 10.0  # along each axis, over so many scales on both sides


def noisy_cone(z: float = 5.0) -> Problem:
    """ELBO of x, y ~ N(0, 10), z ~ N(r, .1 + r / 100), r = x^2 + y^2, z = 5 observed, q(x, y) = N(mu, diag sigma^2).

    Second arguments are scales; r is the square of the distance, as in the authors' program. The posterior is a ring of radius
    sqrt z, about .03 wide, and q covers a piece of it: by symmetry one of four, with one axis across the ring. theta = (mu, log
    sigma). f falls by 1,250 from the ring to the origin and by thousands far outside: where q starts, wider than the ring, the
    standard deviation of a gradient is 4.5 times the truth for REINFORCE, 2.6 for RLOO, 1.6 pathwise and 1.1 measure-valued, and
    mu lies on a saddle, where its gradient is nil and training stays long. At `converged` q crosses the ring; of the gradient of
    the mean across it, 3.4, the deviations are 240, 34, 20 and 23 in the same order. By quadrature over the plane, certified
    at two resolutions: f has no pole within sqrt 10 of it.
    Points: `init` (mu = 0, sigma = e: the authors'), `mid`, `converged`.
    Becker, Lew, Wang, Ghavami, Huot, Rinard & Mansinghka 2024 (PLDI), arXiv:2406.15742, figure 2.
    """
    positive("noisy_cone", z=z)

    def f(x: torch.Tensor) -> torch.Tensor:
        """log N(x; 0, 10^2) + log N(y; 0, 10^2) + log N(z; r, (.1 + r / 100)^2), r = x^2 + y^2."""
        r = (x * x).sum(-1)
        scale = FLOOR + SLOPE * r
        error = (z - r) / scale
        return -0.5 * error * error - torch.log(scale) - 0.5 * r / PRIOR**2 - CONSTANT

    def scalar_f(x: Sequence[float]) -> float:
        r = x[0] * x[0] + x[1] * x[1]
        scale = FLOOR + SLOPE * r
        error = (z - r) / scale
        return -0.5 * error * error - math.log(scale) - 0.5 * r / PRIOR**2 - CONSTANT

    def exact(problem: Problem) -> Truth:
        return by_quadrature(lambda nodes: gradient(problem, nodes), NODES)

    init = Point(torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=torch.float64))
    settings = {"z": float(z)}
    return Problem(
        name="noisy_cone",
        family=Normal,
        theta=init.theta,
        f=f,
        objective=Elbo(),
        smooth=2,
        relaxed=True,
        exact=exact,
        scalar_f=scalar_f,
        points=stored_points("noisy_cone", settings, init),
        settings=settings,
        source="Becker et al. 2024, arXiv:2406.15742",
    )


def gradient(problem: Problem, nodes: int) -> torch.Tensor:
    """Of E f + log sigma_x + log sigma_y, E f a trapezoid sum over a grid of `nodes` x `nodes` points of (x - mu) / sigma."""
    theta = problem.theta.detach().clone().requires_grad_()
    grid, weight = trapezoid(2, nodes, REACH)
    mean = (weight * problem.value(theta[0] + theta[1].exp() * grid)).sum()
    return torch.autograd.grad(mean + theta[1].sum(), theta)[0].reshape(-1)
