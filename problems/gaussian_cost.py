"""Three scalar costs of a Normal variable, on which score, pathwise and measure-valued gradients change places."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from problems.base import Problem
from problems.costs import bump, cos, cost_problem, square
from problems.families.normal import Normal
from problems.lanes import LaneModel

if TYPE_CHECKING:
    from problems.lanes import Kit


def gaussian_cost(cost: str = "square", k: float = 2.0, dim: int = 1) -> Problem:
    """E sum_d c(x_d), x_d ~ N(mu_d, sigma_d^2), with c(x) = (x - k)^2, exp(-k x^2) or cos k x.

    theta = (mu, log sigma). No estimator of the three classes is best everywhere: pathwise wins where c is smooth on the scale of
    sigma, the score function and the measure-valued gradient where c varies fast or is flat (cos and exp with a large k), and
    the points change sigma. Closed forms, v = sigma^2: (mu - k)^2 + v;  w^(-1/2) exp(-k mu^2 / w), w = 1 + 2 k v;
    cos(k mu) exp(-k^2 v / 2).
    Mohamed, Rosca, Figurnov & Mnih, JMLR 2020, arXiv:1906.10652, section 3.
    """
    if cost == "exp" and k <= 0:
        raise ValueError(
            f"gaussian_cost[cost=exp,k={k}]: exp(-k x^2) needs a positive k to have a mean for every sigma"
        )

    def mean(theta: torch.Tensor) -> torch.Tensor:
        mu, v = theta[0], (2 * theta[1]).exp()
        if cost == "square":
            return (mu - k) ** 2 + v
        if cost == "exp":
            w = 1 + 2 * k * v
            return w**-0.5 * torch.exp(-k * mu**2 / w)
        return torch.cos(k * mu) * torch.exp(-0.5 * k**2 * v)

    places = {"init": (1.0, 1.0), "narrow": (1.0, 0.1), "wide": (1.0, 1.5)}
    problem = cost_problem(
        Normal,
        {"square": square(k, dim), "exp": bump(k, dim), "cos": cos(k, dim)},
        mean,
        {name: (mu, math.log(sigma)) for name, (mu, sigma) in places.items()},
        {"cost": cost, "k": float(k), "dim": dim},
        name="gaussian_cost",
        source="Mohamed et al. 2020, arXiv:1906.10652, section 3",
    )
    return replace(problem, lanes=lane_cost(cost, float(k), dim))


def lane_cost(cost: str, k: float, dim: int) -> Callable[[Kit], LaneModel]:
    """f over lanes: the sum of c(x_d), with c' and c'' by hand."""

    def lanes(kit: Kit) -> LaneModel:
        R, L, exp_, sincos = kit.real, kit.L, kit.exp, kit.sincos_turns
        ZERO, TWO, K, TWO_K, KK, TURNS = R(0), R(2), R(k), R(2 * k), R(k * k), R(k / (2 * math.pi))

        @kit.jit
        def square(x):  # type: ignore[no-untyped-def]
            y = x - K
            return y * y, TWO * y, TWO

        @kit.jit
        def exp(x):  # type: ignore[no-untyped-def]
            y = exp_(-K * x * x)
            return y, -TWO_K * x * y, (TWO_K * x * x * TWO_K - TWO_K) * y

        @kit.jit
        def cos(x):  # type: ignore[no-untyped-def]
            s, y = sincos(TURNS * x)
            return y, -K * s, -KK * y

        c_and_slopes = square if cost == "square" else exp if cost == "exp" else cos

        @kit.jit
        def f(out, x, c):  # type: ignore[no-untyped-def]
            out[:] = ZERO
            for d in range(dim):
                for l in range(L):
                    out[l] += c_and_slopes(x[d, l])[0]

        @kit.jit
        def df(out, x, c):  # type: ignore[no-untyped-def]
            for d in range(dim):
                for l in range(L):
                    out[d, l] = c_and_slopes(x[d, l])[1]

        @kit.jit
        def moved(out, x, d, v, c):  # type: ignore[no-untyped-def]
            """The cost of the point begun at, that of x_d taken off and that of v put to it."""
            for l in range(L):
                out[l] = c.room[0, l] + (c_and_slopes(v[l])[0] - c_and_slopes(x[d, l])[0])

        @kit.jit
        def begin(x, c):  # type: ignore[no-untyped-def]
            f(c.room[0], x, c)

        @kit.jit
        def hessian(h, x, c):  # type: ignore[no-untyped-def]
            h[: dim * dim] = ZERO
            for d in range(dim):
                for l in range(L):
                    h[d * dim + d, l] = c_and_slopes(x[d, l])[2]

        return LaneModel(f, df, begin=begin, moved=moved, rooms=1, hessian=hessian)

    return lanes
