"""The toy of REBAR and its successors: how far random bits are from a target close to one half."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from problems.base import Point, Problem
from problems.families.bernoulli import Bernoulli
from problems.lanes import Kit, LaneModel
from problems.settings import at_least, one_of


def bernoulli_toy(dim: int = 6, target: float = 0.45, form: str = "mean") -> Problem:
    """E (1/D) sum_d (b_d - t)^2 over D independent bits; with form=sum, without the 1/D.

    The target t near 1/2 makes the gradient small beside the noise of a score function, so that baselines and couplings are told
    apart; with D = 200 one datum's noise is spread over many coordinates. Exact gradient p (1 - p) (1 - 2 t) / D per logit.
    Tucker et al. 2017, arXiv:1703.07370; Grathwohl et al. 2018; Titsias & Shi 2022.
    """
    at_least("bernoulli_toy", 1, dim=dim)
    one_of("bernoulli_toy", ("mean", "sum"), form=form)
    scale = 1 / dim if form == "mean" else 1.0

    def f(x: torch.Tensor) -> torch.Tensor:
        return scale * ((x - target) ** 2).sum(-1)

    f.__doc__ = f"{'sum_d' if form == 'sum' else '(1/D) sum_d'} (x_d - {target:g})^2."

    def scalar_f(x: Sequence[float]) -> float:
        total = 0.0
        for d in range(dim):
            total += (x[d] - target) ** 2
        return scale * total

    def lanes(kit: Kit) -> LaneModel:
        return squares(kit, dim, target, scale)

    def exact(problem: Problem) -> torch.Tensor:
        p = 1 / (1 + torch.exp(-problem.theta))
        return scale * p * (1 - p) * ((1 - target) ** 2 - target**2)

    spread = torch.linspace(-1, 1, dim, dtype=torch.float64) if dim > 1 else torch.tensor([0.5], dtype=torch.float64)
    points = {
        "init": Point(torch.zeros(dim, dtype=torch.float64)),
        "mid": Point(spread - 0.5),
        "converged": Point(spread - 3.0),
    }
    return Problem(
        name="bernoulli_toy",
        family=Bernoulli,
        theta=points["init"].theta,
        f=f,
        smooth=2,
        relaxed=True,
        degree=2,
        exact=exact,
        scalar_f=scalar_f,
        lanes=lanes,
        points=points,
        settings={"dim": dim, "target": float(target), "form": form},
        source="Tucker et al. 2017, arXiv:1703.07370",
    )


def squares(kit: Kit, dim: int, target: float, scale: float) -> LaneModel:
    """scale sum_d (x_d - t)^2 over lanes; with one bit changed, one term is."""
    L, t, s, two_s, zero = kit.L, kit.real(target), kit.real(scale), kit.real(2 * scale), kit.real(0)
    T = max(n for n in range(1, 9) if dim % n == 0)  # terms added at once, between a load and a store of the sum

    @kit.jit
    def f(out, x, c):  # type: ignore[no-untyped-def]
        out[:] = zero
        for tile in range(dim // T):
            for l in range(L):
                total = out[l]
                for d in range(T):
                    y = x[tile * T + d, l] - t
                    total += y * y
                out[l] = total
        for l in range(L):
            out[l] = s * out[l]

    @kit.jit
    def df(out, x, c):  # type: ignore[no-untyped-def]
        for d in range(dim):
            for l in range(L):
                out[d, l] = two_s * (x[d, l] - t)

    @kit.jit
    def begin(x, c):  # type: ignore[no-untyped-def]
        f(c.room[0], x, c)

    @kit.jit
    def moved(out, x, d, v, c):  # type: ignore[no-untyped-def]
        for l in range(L):
            old, new = x[d, l] - t, v[l] - t
            out[l] = c.room[0, l] + s * (new * new - old * old)

    return LaneModel(f, df, begin=begin, moved=moved, rooms=1)
