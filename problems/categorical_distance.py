"""The synthetic task of IndeCateR: how far independent categories are from a target, as numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from problems.base import Point, Problem
from problems.families.categorical import Categorical
from problems.lanes import Kit, LaneModel
from problems.settings import at_least, one_of

SEED = 2311


def categorical_distance(dim: int = 12, categories: int = 3, form: str = "value") -> Problem:
    """E |X - b|_1 over D independent categories of C values, X_d in 0 ... C - 1, b drawn from the same space.

    The paper's sizes are (dim, categories) = (12, 3), (6, 10) and (3, 100). x_d is one-hot, X_d = sum_c c x_dc. f is a sum over the
    sites: what varies one site at a time (IndeCateR, local expectations) has no variance at all, whereas a score function pays
    for the noise of the other sites, and for its few visits of a category where C is large. form=value continues f off the support
    as |sum_c c x_dc - b_d|, as the authors do: convex, so that relaxations have a bias, and bent just where X_d = b_d, where its
    slope is taken to be nil. form=table continues the same values linearly, sum_c |c - b_d| x_dc: straight-through has no bias.
    Closed form, site by site: (diag p - p p') h, h_c = |c - b_d|. b and the start come from a fixed seed.
    Points: `init` (logits of N(0, 1), as the authors'), `mid` and `converged` (those, with b_d raised to probability 1/2 and 9/10).
    De Smet, Sansone & Zuidberg Dos Martires, NeurIPS 2023, arXiv:2311.12569.
    """
    at_least("categorical_distance", 1, dim=dim)
    at_least("categorical_distance", 2, categories=categories)
    one_of("categorical_distance", ("value", "table"), form=form)
    by_value = form == "value"
    target, start = draws(dim, categories)
    costs = np.abs(np.arange(categories) - target[:, None]).astype(float)
    b, table, values = torch.from_numpy(target), torch.from_numpy(costs), torch.arange(categories, dtype=torch.float64)

    def distance(x: torch.Tensor) -> torch.Tensor:
        """sum_d |sum_c c x_dc - b_d|."""
        return (x @ values.to(x) - b.to(x)).abs().sum(-1)

    def tabulated(x: torch.Tensor) -> torch.Tensor:
        """sum_d sum_c |c - b_d| x_dc."""
        return (x * table.to(x)).sum((-2, -1))

    def scalar_distance(x: Sequence[Sequence[float]]) -> float:
        total = 0.0
        for d in range(dim):
            value = 0.0
            for c in range(categories):
                value += c * x[d][c]
            total += abs(value - target[d])
        return total

    def scalar_tabulated(x: Sequence[Sequence[float]]) -> float:
        total = 0.0
        for d in range(dim):
            for c in range(categories):
                total += costs[d, c] * x[d][c]
        return total

    def exact(problem: Problem) -> torch.Tensor:
        p = torch.softmax(problem.theta, -1)
        return p * (table - (p * table).sum(-1, keepdim=True))

    init = torch.from_numpy(start)
    points = {
        "init": Point(init),
        "mid": Point(raised(init, b, 0.5)),
        "converged": Point(raised(init, b, 0.9)),
    }
    return Problem(
        name="categorical_distance",
        family=Categorical,
        theta=init,
        f=distance if by_value else tabulated,
        smooth=1 if by_value else 2,
        relaxed=True,
        degree=None if by_value else 1,
        exact=exact,
        scalar_f=scalar_distance if by_value else scalar_tabulated,
        lanes=in_lanes(target, categories) if by_value else None,
        points=points,
        settings={"dim": dim, "categories": categories, "form": form},
        source="De Smet et al. 2023, arXiv:2311.12569",
    )


def draws(dim: int, categories: int) -> tuple[np.ndarray, np.ndarray]:
    """b `[D]`, uniform over the values, and the logits at `init` `[D, C]`, N(0, 1), from the fixed seed."""
    rng = np.random.default_rng(SEED)
    return rng.integers(categories, size=dim).astype(float), rng.standard_normal((dim, categories))


def raised(theta: torch.Tensor, b: torch.Tensor, probability: float) -> torch.Tensor:
    """The logits with that of b_d put to where b_d has this probability, the others' ratios as they are."""
    here = torch.nn.functional.one_hot(b.long(), theta.shape[-1]).bool()
    others = theta.masked_fill(here, -torch.inf).logsumexp(-1, keepdim=True)
    return torch.where(here, others + np.log(probability / (1 - probability)), theta)


def in_lanes(target: np.ndarray, categories: int) -> Callable[[Kit], LaneModel]:
    """sum_d |v_d - b_d| over lanes, v_d = sum_c c x_dc, df/dx_dc = c sign(v_d - b_d); with one site changed, one term is."""

    def lanes(kit: Kit) -> LaneModel:
        D, C, L, R, b = len(target), categories, kit.L, kit.real, target.astype(kit.real)
        ZERO, ONE = R(0), R(1)

        @kit.jit
        def gap(u, x, d):  # type: ignore[no-untyped-def]
            """u = v_d - b_d."""
            u[:] = -b[d]
            for i in range(1, C):
                for l in range(L):
                    u[l] += R(i) * x[d, i, l]

        @kit.jit
        def f(out, x, c):  # type: ignore[no-untyped-def]
            u = c.room[0]
            out[:] = ZERO
            for d in range(D):
                gap(u, x, d)
                for l in range(L):
                    out[l] += abs(u[l])

        @kit.jit
        def df(out, x, c):  # type: ignore[no-untyped-def]
            u = c.room[0]
            for d in range(D):
                gap(u, x, d)
                for l in range(L):
                    u[l] = (ONE if u[l] > ZERO else ZERO) - (ONE if u[l] < ZERO else ZERO)
                for i in range(C):
                    for l in range(L):
                        out[d, i, l] = R(i) * u[l]

        @kit.jit
        def begin(x, c):  # type: ignore[no-untyped-def]
            f(c.room[1], x, c)

        @kit.jit
        def moved(out, x, d, v, c):  # type: ignore[no-untyped-def]
            u = c.room[0]
            gap(u, x, d)
            for l in range(L):
                out[l] = c.room[1, l] + abs(v[l] - b[d]) - abs(u[l])

        return LaneModel(f, df, begin=begin, moved=moved, rooms=2)

    return lanes
