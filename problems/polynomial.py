"""The polynomial programming of ReinMax: a power of the distance of random bits, written as categories of two, to .45."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from problems.base import Point, Problem
from problems.families.base import Family
from problems.families.bernoulli import Bernoulli
from problems.families.categorical import Categorical
from problems.settings import at_least, one_of

TARGET = 0.45


def polynomial(dim: int = 128, p: float = 2.0, family: str = "categorical") -> Problem:
    """E (1/L) sum_i |z_i - .45|^p over L independent bits, one-hot of two categories each; p = 1.5, 2 or 3 in the paper.

    family=categorical, as in the paper: theta `[L, 2]`, z_i = x_i1, the first entry of the one-hot x_i. family=bernoulli: theta
    `[L]`, z_i the bit itself, of the same law at the same points. On the support every f of one bit is linear, so that the p
    differ there in the scale Delta = .55^p - .45^p alone; they are told apart by the slopes. Straight-through estimators of second
    order (ReinMax) put (f'(0) + f'(1)) / 2 in Delta's place: exact at p = 2, half of it at 1.5 and twice it at 3. Plain
    straight-through weighs the slopes by the probabilities of 0 and 1: the same at theta = 0, of the wrong sign at `converged`.
    What asks for f's values alone has no bias at any p. At p < 2 there is no second derivative at z = .45. The gradient of the
    log odds of z_i = 1 is var(z_i) Delta / L, in closed form.
    Points: `init` (theta = 0; the paper starts within .01 of it), `mid` and `converged` (log odds around -1/2 and -3, spread over
    2, equal and opposite logits for the two categories). Liu, Dong, Liu, Yu & Gao 2023, arXiv:2304.08612.
    """
    at_least("polynomial", 1, dim=dim)
    one_of("polynomial", ("categorical", "bernoulli"), family=family)
    if not 1 < p < float("inf"):
        raise ValueError(f"polynomial[p={p}]: p must be finite and above 1, where f has a derivative")
    as_bits = family == "bernoulli"

    def f(x: torch.Tensor) -> torch.Tensor:
        """(1/L) sum_i |z_i - .45|^p, z_i the bit, or the first entry of a one-hot x_i."""
        z = x if as_bits else x[..., 0]
        return ((z - TARGET).abs() ** p).mean(-1)

    def bits_f(x: Sequence[float]) -> float:
        total = 0.0
        for i in range(dim):
            total += abs(x[i] - TARGET) ** p
        return total / dim

    def one_hot_f(x: Sequence[Sequence[float]]) -> float:
        total = 0.0
        for i in range(dim):
            total += abs(x[i][0] - TARGET) ** p
        return total / dim

    def exact(problem: Problem) -> torch.Tensor:
        theta = problem.theta
        log_odds = theta if as_bits else theta[:, 0] - theta[:, 1]
        slope = torch.sigmoid(log_odds) * torch.sigmoid(-log_odds) * ((1 - TARGET) ** p - TARGET**p) / dim
        return slope if as_bits else torch.stack([slope, -slope], -1)

    def point(log_odds: torch.Tensor) -> Point:
        return Point(log_odds if as_bits else torch.stack([log_odds / 2, -log_odds / 2], -1))

    spread = torch.linspace(-1, 1, dim, dtype=torch.float64) if dim > 1 else torch.tensor([0.5], dtype=torch.float64)
    points = {"init": point(torch.zeros_like(spread)), "mid": point(spread - 0.5), "converged": point(spread - 3.0)}
    bound: type[Family] = Bernoulli if as_bits else Categorical
    return Problem(
        name="polynomial",
        family=bound,
        theta=points["init"].theta,
        f=f,
        smooth=2 if p >= 2 else 1,
        relaxed=True,
        degree=2 if p == 2 else None,
        exact=exact,
        scalar_f=bits_f if as_bits else one_hot_f,
        points=points,
        settings={"dim": dim, "p": float(p), "family": family},
        source="Liu et al. 2023, arXiv:2304.08612",
    )
