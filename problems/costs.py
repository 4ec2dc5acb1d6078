"""The frame of the problems of scalar costs: E sum_d c(x_d) over independent sites of one family, in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from problems.base import Point, Problem
from problems.settings import at_least, one_of

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family


class Cost(NamedTuple):
    """c of every number of a tensor, and what is known of it; scalar_f: sum_d c(x_d) of one point in plain Python.

    formula: c(x) in symbols. smooth, relaxed, degree: as of a problem's f (`problems.base.Problem`).
    """

    formula: str
    c: Callable[[Tensor], Tensor]
    scalar_f: Callable[[Sequence[float]], float] | None = None
    smooth: int = 2
    relaxed: bool = True
    degree: int | None = None


def cost_problem(
    family: type[Family],
    costs: Mapping[str, Cost],
    mean: Callable[[Tensor], Tensor],
    places: Mapping[str, Sequence[float]],
    settings: Mapping[str, Any],
    name: str,
    source: str,
) -> Problem:
    """E sum_d c(x_d) with c = `costs[cost]`, for the settings cost and dim.

    mean: theta -> E c(x_d) of each site, in torch; the gradient of their sum is the exact one.
    places: parameters of one site for each named point; they are the same at all sites, but for the first of them, which is
    spread from 1/2 below to 1/2 above.
    """
    cost, dim = settings["cost"], settings["dim"]
    one_of(name, tuple(costs), cost=cost)
    at_least(name, 1, dim=dim)
    made = costs[cost]
    axes = tuple(range(-family.event_axes, 0))
    site = "d" if family.event_axes == 1 else "dc"

    def f(x: Tensor) -> Tensor:
        return made.c(x).sum(axes)

    f.__doc__ = f"sum_{site} c(x_{site}), c(x) = {made.formula}."

    def exact(problem: Problem) -> Tensor:
        theta = problem.theta.detach().clone().requires_grad_()
        return torch.autograd.grad(mean(theta).sum(), theta)[0]

    def point(parameters: Sequence[float]) -> Point:
        theta = torch.tensor(parameters, dtype=torch.float64)[:, None].repeat(1, dim)
        if dim > 1:
            theta[0] += torch.linspace(-0.5, 0.5, dim, dtype=torch.float64)
        return Point(theta.T if family.event_axes == 2 else theta if len(parameters) > 1 else theta[0])

    points = {place: point(parameters) for place, parameters in places.items()}
    return Problem(
        name=name,
        family=family,
        theta=points["init"].theta,
        f=f,
        smooth=made.smooth,
        relaxed=made.relaxed,
        degree=made.degree,
        exact=exact,
        scalar_f=made.scalar_f,
        points=points,
        settings=settings,
        source=source,
    )


def square(k: float, dim: int) -> Cost:
    """(x - k)^2."""

    def scalar_f(x: Sequence[float]) -> float:
        total = 0.0
        for d in range(dim):
            total += (x[d] - k) ** 2
        return total

    return Cost(f"(x - {k:g})^2", lambda x: (x - k) ** 2, scalar_f, degree=2)


def moment(k: float, dim: int) -> Cost:
    """x^k, of positive variables."""

    def scalar_f(x: Sequence[float]) -> float:
        total = 0.0
        for d in range(dim):
            total += x[d] ** k
        return total

    return Cost(f"x^{k:g}", lambda x: x**k, scalar_f, relaxed=False, degree=int(k) if float(k).is_integer() else None)


def log(dim: int) -> Cost:
    """log x, of positive variables."""

    def scalar_f(x: Sequence[float]) -> float:
        total = 0.0
        for d in range(dim):
            total += math.log(x[d])
        return total

    return Cost("log x", torch.log, scalar_f, relaxed=False)


def exp(k: float, dim: int) -> Cost:
    """exp(-k x)."""

    def scalar_f(x: Sequence[float]) -> float:
        total = 0.0
        for d in range(dim):
            total += math.exp(-k * x[d])
        return total

    return Cost(f"exp(-{k:g} x)", lambda x: torch.exp(-k * x), scalar_f)


def cos(k: float, dim: int) -> Cost:
    """cos k x."""

    def scalar_f(x: Sequence[float]) -> float:
        total = 0.0
        for d in range(dim):
            total += math.cos(k * x[d])
        return total

    return Cost(f"cos {k:g} x", lambda x: torch.cos(k * x), scalar_f)


def bump(k: float, dim: int) -> Cost:
    """exp(-k x^2)."""

    def scalar_f(x: Sequence[float]) -> float:
        total = 0.0
        for d in range(dim):
            total += math.exp(-k * x[d] * x[d])
        return total

    return Cost(f"exp(-{k:g} x^2)", lambda x: torch.exp(-k * x * x), scalar_f)


def step(k: float, dim: int) -> Cost:
    """1[x > k]."""

    def scalar_f(x: Sequence[float]) -> float:
        total = 0.0
        for d in range(dim):
            total += 1.0 if x[d] > k else 0.0
        return total

    return Cost(f"1[x > {k:g}]", lambda x: (x > k).to(x), scalar_f, smooth=0)
