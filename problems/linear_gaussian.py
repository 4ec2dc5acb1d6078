"""A linear Gaussian model with an amortised proposal of the wrong scale: where importance-weighted bounds are studied."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from problems.base import Point, Problem
from problems.families.normal import Normal
from problems.gaussian_bound import slope
from problems.lanes import Kit, LaneModel
from problems.objectives import Elbo, ImportanceWeighted
from problems.settings import at_least
from problems.truth import Truth, by_quadrature, exactly

SEED = 1802
VARIANCE = 2 / 3


def linear_gaussian(dim: int = 20, samples: int = 1, data: int = 4) -> Problem:
    """ELBO, or for samples > 1 the importance-weighted bound, of z ~ N(mu, I), x | z ~ N(z, I), q = N(A x + b, (2/3) I).

    theta: A `[D, D]` row by row and then b; model: mu. The data are drawn from the model at a seeded mu. q can never be the
    posterior N((x + mu) / 2, I / 2), so that the bound stays loose: as K grows the signal of the encoder's gradient vanishes faster
    than its noise for reparameterised gradients, and not for doubly reparameterised ones. Points: `init` (all zero), `mid` (half
    way to the optimum A = I / 2, b = mu / 2, mu the mean of the data), `converged` (the optimum plus N(0, .01^2) in each number, as
    in both papers). Exact for every K (`exact`).
    Rainforth et al. 2018, arXiv:1802.04537; Tucker et al. 2019, arXiv:1810.04152.
    """
    at_least("linear_gaussian", 1, dim=dim, samples=samples, data=data)
    rows = draws(dim, data)

    def f(x: torch.Tensor, data: torch.Tensor, model: torch.Tensor) -> torch.Tensor:
        """log N(z; mu, I) + log N(data; z, I)."""
        prior, likelihood = x - model, data - x
        return -0.5 * (prior * prior + likelihood * likelihood).sum(-1) - dim * math.log(2 * math.pi)

    def encode(theta: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
        A, b = theta[: dim * dim].reshape(dim, dim), theta[dim * dim :]
        mean = data @ A.T + b
        return torch.stack([mean, torch.full_like(mean, 0.5 * math.log(VARIANCE))], -2)

    points = places(dim, rows)
    settings: dict[str, Any] = {"dim": dim, "samples": samples, "data": data}
    return Problem(
        name="linear_gaussian",
        family=Normal,
        theta=points["init"].theta,
        f=f,
        objective=Elbo() if samples == 1 else ImportanceWeighted(samples),
        smooth=2,
        relaxed=True,
        degree=2,
        encode=encode,
        model=points["init"].model,
        data=rows,
        exact=exact,
        lanes=in_lanes(dim),
        points=points,
        settings=settings,
        source="Rainforth et al. 2018, arXiv:1802.04537; Tucker et al. 2019, arXiv:1810.04152",
    )


def in_lanes(dim: int) -> Callable[[Kit], LaneModel]:
    """f over lanes; df/dz = mu + x - 2 z; df/dmu = z - mu."""

    def lanes(kit: Kit) -> LaneModel:
        D, L, S, R = dim, kit.L, kit.S, kit.real
        T = max(t for t in range(1, 9) if D % t == 0)  # sites whose sum is kept in registers
        LOG_NORM, ZERO, HALF, TWO = R(-dim * math.log(2 * math.pi)), R(0), R(0.5), R(2)

        @kit.jit
        def f(out, x, c):  # type: ignore[no-untyped-def]
            out[:] = LOG_NORM
            for tile in range(D // T):
                for l in range(L):
                    total = ZERO
                    for d in range(tile * T, (tile + 1) * T):
                        prior, likelihood = x[d, l] - c.model[d], c.row[d, S * l] - x[d, l]
                        total += prior * prior + likelihood * likelihood
                    out[l] -= HALF * total

        @kit.jit
        def df(out, x, c):  # type: ignore[no-untyped-def]
            for d in range(D):
                for l in range(L):
                    out[d, l] = c.model[d] + c.row[d, S * l] - TWO * x[d, l]

        @kit.jit
        def credit(m, x, w, c):  # type: ignore[no-untyped-def]
            for d in range(D):
                for l in range(L):
                    m[d, l] += w[l] * (x[d, l] - c.model[d])

        @kit.jit
        def hessian(h, x, c):  # type: ignore[no-untyped-def]
            h[: D * D] = ZERO
            for d in range(D):
                h[d * D + d, :] = -TWO

        return LaneModel(f, df, credit, hessian=hessian)

    return lanes


def exact(problem: Problem) -> Truth:
    """The gradient of L_K for any K and D, from one number per datum.

    With m = A x + b and c = 2 (mu + x) - 3 m, log w(z) = C - |z - c|^2 / 4, so that |z - c|^2 = (2/3) y with y noncentral
    chi-square of D degrees and noncentrality lam = 6 |d|^2, d = mu + x - 2 m, and L_K = C + E log 1/K sum_k exp(-y_k / 6).
    With g the derivative of that expectation in lam,

        dL/dm = -3 (1 + 8 g) d,    dL/dmu = mu + 2 x - 3 m + 12 g d.

    K = 1: g = -1/6, dL/dm = d and dL/dmu = m - mu. K -> infinity: g = -1/8, dL/dm = 0 and dL/dmu = (x - mu) / 2.
    """
    assert problem.data is not None
    assert problem.model is not None
    x, mu, (_, D) = problem.data, problem.model, problem.data.shape
    A, b = problem.theta[: D * D].reshape(D, D), problem.theta[D * D :]
    m = x @ A.T + b
    d = mu + x - 2 * m
    lam = 6 * (d * d).sum(-1)
    K = problem.objective.samples

    def gradient(g: torch.Tensor) -> torch.Tensor:
        d_m = -3 * (1 + 8 * g[:, None]) * d
        d_mu = mu + 2 * x - 3 * m + 12 * g[:, None] * d
        return torch.cat([(d_m.T @ x).reshape(-1), d_m.sum(0), d_mu.sum(0)])

    def slopes(nodes: int) -> torch.Tensor:
        return torch.tensor([slope(float(v), D, K, nodes) for v in lam], dtype=torch.float64)

    if K == 1:
        return exactly(gradient(torch.full_like(lam, -1 / 6)))
    return by_quadrature(lambda nodes: gradient(slopes(nodes)), nodes=200 + 40 * math.ceil(float(lam.max() + D) ** 0.5))


def places(dim: int, rows: torch.Tensor) -> dict[str, Point]:
    """Zero, half the optimum, and the optimum plus N(0, .01^2) from the fixed seed."""
    mu = rows.mean(0)
    theta = torch.cat([0.5 * torch.eye(dim, dtype=torch.float64).reshape(-1), 0.5 * mu])
    rng = np.random.default_rng(SEED + 1)
    off = [0.01 * torch.from_numpy(rng.standard_normal(len(t))) for t in (theta, mu)]
    return {
        "init": Point(0 * theta, 0 * mu),
        "mid": Point(theta / 2, mu / 2),
        "converged": Point(theta + off[0], mu + off[1]),
    }


def draws(dim: int, data: int) -> torch.Tensor:
    """x `[N, D]` ~ N(mu, 2 I), mu ~ N(0, I), from the fixed seed."""
    rng = np.random.default_rng(SEED)
    mu = rng.standard_normal(dim)
    return torch.from_numpy(mu + math.sqrt(2) * rng.standard_normal((data, dim)))
