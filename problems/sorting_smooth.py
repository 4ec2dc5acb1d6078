"""Sorting made smooth by Normal noise: a loss of the order of n numbers, which nothing but its values tells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from problems.base import Point, Problem
from problems.families.normal import Normal
from problems.settings import at_least, one_of
from problems.truth import Truth, by_quadrature, exactly

REACH = 9.0  # standard deviations to which integrals go: beyond are less than 1e-18 of the mass
NODES, MOST_NODES = 160, 400
PER_SCALE = 3  # nodes over the length of the least sigma


class Loss(NamedTuple):
    """A loss of the order of the numbers, its plain form for a given n, and its expectation under theta `[2, n]`."""

    f: Callable[[torch.Tensor], torch.Tensor]
    scalar_f: Callable[[int], Callable[[Sequence[float]], float]]
    mean: Callable[[torch.Tensor, int], torch.Tensor]


def sorting_smooth(dim: int = 3, loss: str = "inversions") -> Problem:
    """Black-box smoothing of sorting: E of a loss of the order of x ~ N(mu, sigma^2), which should rise along its index.

    theta = (mu, log sigma) `[2, n]`, n = dim. loss=inversions: the pairs in the wrong order; loss=ranks: sum_i (rank_i - i)^2;
    loss=order: 0 where all of x is in order, 1 elsewhere, the rarest signal. E f is smooth and f is not: flat but for steps where
    two numbers meet, it has no slope for a pathwise gradient. What is left are scores, with baselines or a learned surrogate;
    measure-valued gradients; draws of a wider law, which see more of the steps at `converged`; and differences of two draws of the
    same noise, which the steps between them make noisy by one over their distance. The order does not change if x is shifted or
    stretched, so that sum_i dL/dmu_i = 0 and sum_i (mu_i dL/dmu_i + dL/dlog sigma_i) = 0: along these directions an estimate is
    noise alone. Points: `init` (means half a sigma apart, each of 0, 2, .. exchanged with the next), `narrow` (the same with sigma
    = 0.2: few steps are seen, and 1 / sigma multiplies the score), `mid` (means in order), `converged` (three sigma apart).
    Exact in closed form (inversions, by pairs) or by quadrature (of up to 40 numbers): ranks given x_i are sums of independent
    bits; P(x_1 < ... < x_n) is n integrals in a row. Berthet et al. 2020, arXiv:2002.08676; Petersen et al. 2024, arXiv:2410.08125.
    """
    at_least("sorting_smooth", 2, dim=dim)
    one_of("sorting_smooth", tuple(LOSSES), loss=loss)
    chosen = LOSSES[loss]

    def exact(problem: Problem) -> Truth:
        def gradient(nodes: int) -> torch.Tensor:
            theta = problem.theta.detach().clone().requires_grad_()
            return torch.autograd.grad(chosen.mean(theta, nodes), theta)[0]

        return exactly(gradient(NODES)) if loss == "inversions" else by_quadrature(gradient, enough(problem.theta))

    steps = torch.arange(dim, dtype=torch.float64)
    exchanged = torch.tensor([i ^ 1 if i ^ 1 < dim else i for i in range(dim)], dtype=torch.float64)
    points = {
        "init": at(0.5 * exchanged, 1.0),
        "narrow": at(0.5 * exchanged, 0.2),
        "mid": at(0.5 * steps, 1.0),
        "converged": at(3 * steps, 1.0),
    }
    return Problem(
        name="sorting_smooth",
        family=Normal,
        theta=points["init"].theta,
        f=chosen.f,
        relaxed=True,
        exact=exact,
        scalar_f=chosen.scalar_f(dim),
        points=points,
        settings={"dim": dim, "loss": loss},
        source="Petersen et al. 2024, arXiv:2410.08125",
    )


def at(mu: torch.Tensor, sigma: float) -> Point:
    """Means about 0, one sigma."""
    return Point(torch.stack([mu - mu.mean(), torch.full_like(mu, sigma).log()]))


def rank(x: torch.Tensor) -> torch.Tensor:
    """How many of the numbers are smaller, `[..., n] -> [..., n]`."""
    return (x[..., None, :] < x[..., None]).to(x).sum(-1)


def inversions(x: torch.Tensor) -> torch.Tensor:
    """f(x) = sum_{i < j} 1[x_i > x_j]."""
    return (x[..., None] > x[..., None, :]).to(x).triu(1).sum((-2, -1))


def of_ranks(x: torch.Tensor) -> torch.Tensor:
    """f(x) = sum_i (rank_i - i)^2, rank_i = sum_j 1[x_j < x_i], i = 0 .. n - 1."""
    return ((rank(x) - torch.arange(x.shape[-1], device=x.device)) ** 2).sum(-1)


def of_order(x: torch.Tensor) -> torch.Tensor:
    """f(x) = 1 - 1[x_1 < x_2 < ... < x_n]."""
    return 1 - (x[..., :-1] < x[..., 1:]).all(-1).to(x)


def plain_inversions(dim: int) -> Callable[[Sequence[float]], float]:
    def scalar_f(x: Sequence[float]) -> float:
        total = 0.0
        for i in range(dim):
            for j in range(i + 1, dim):
                total += 1.0 if x[i] > x[j] else 0.0
        return total

    return scalar_f


def plain_ranks(dim: int) -> Callable[[Sequence[float]], float]:
    def scalar_f(x: Sequence[float]) -> float:
        total = 0.0
        for i in range(dim):
            above = -float(i)
            for j in range(dim):
                above += 1.0 if x[j] < x[i] else 0.0
            total += above * above
        return total

    return scalar_f


def plain_order(dim: int) -> Callable[[Sequence[float]], float]:
    def scalar_f(x: Sequence[float]) -> float:
        wrong = 0.0
        for i in range(dim - 1):
            wrong = 1.0 if x[i] >= x[i + 1] else wrong
        return wrong

    return scalar_f


def mean_inversions(theta: torch.Tensor, nodes: int) -> torch.Tensor:
    """sum_{i < j} Phi((mu_i - mu_j) / sqrt(sigma_i^2 + sigma_j^2))."""
    mu, v = theta[0], (2 * theta[1]).exp()
    gap = (mu[:, None] - mu) / (v[:, None] + v).sqrt()
    return torch.special.ndtr(gap).triu(1).sum()


def mean_of_ranks(theta: torch.Tensor, nodes: int) -> torch.Tensor:
    """sum_i E [(m_i - i)^2 + v_i], m_i and v_i the mean and the variance of rank_i given x_i, of independent bits 1[x_j < x_i]."""
    x, w, _ = rule(theta, nodes)
    density, below = laws(theta, x)
    others = 1 - torch.eye(len(density)).to(theta)
    m, v = others @ below, others @ (below * (1 - below))
    i = torch.arange(len(density))[:, None].to(theta)
    return (density * ((m - i) ** 2 + v) * w).sum()


def mean_of_order(theta: torch.Tensor, nodes: int) -> torch.Tensor:
    """1 - F_n(inf), F_k(t) = P(x_1 < ... < x_k < t) = int_-inf^t N(s; mu_k, sigma_k^2) F_{k-1}(s) ds, F_0 = 1."""
    x, w, Q = rule(theta, nodes)
    density, _ = laws(theta, x)
    F = torch.ones_like(x)
    for k in range(len(density) - 1):
        F = Q @ (density[k] * F)
    return 1 - (w * density[-1] * F).sum()


def laws(theta: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Density and distribution function of each number at the nodes: `[n, nodes]`, both."""
    sigma = theta[1].exp()[:, None]
    eps = (x - theta[0][:, None]) / sigma
    return (-0.5 * eps * eps).exp() / (sigma * np.sqrt(2 * np.pi)), torch.special.ndtr(eps)


def enough(theta: torch.Tensor) -> int:
    """Nodes for all of the mass, at most MOST_NODES, of which `by_quadrature` finds whether they do."""
    low, high = reach(theta)
    return min(max(NODES, int(PER_SCALE * (high - low) / float(theta[1].min().exp()))), MOST_NODES)


def reach(theta: torch.Tensor) -> tuple[float, float]:
    """Between which numbers all of the mass is."""
    mu, r = theta[0].detach(), REACH * theta[1].detach().exp()
    return float((mu - r).min()), float((mu + r).max())


def rule(theta: torch.Tensor, nodes: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gauss-Legendre nodes and weights over all of the mass, and Q `[nodes, nodes]`: (Q y)_i = the integral of y up to node i.

    Q integrates the polynomial through y: sum_k (P_{k+1}(x_i) - P_{k-1}(x_i)) / 2 P_k(x_j) w_j, with P_{-1} = -1 at k = 0.
    """
    low, high = reach(theta)
    x, w = np.polynomial.legendre.leggauss(nodes)
    P = np.polynomial.legendre.legvander(x, nodes)
    before = np.column_stack([-np.ones(nodes), P[:, : nodes - 1]])
    Q = (P[:, 1:] - before) / 2 @ (P[:, :nodes] * w[:, None]).T
    half = (high - low) / 2
    return torch.from_numpy(low + half * (x + 1)), torch.from_numpy(half * w), torch.from_numpy(half * Q)


LOSSES = {
    "inversions": Loss(inversions, plain_inversions, mean_inversions),
    "ranks": Loss(of_ranks, plain_ranks, mean_of_ranks),
    "order": Loss(of_order, plain_order, mean_of_order),
}
