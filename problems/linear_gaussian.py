"""A linear Gaussian model with an amortised proposal of the wrong scale: where importance-weighted bounds are studied."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from problems.base import Point, Problem
from problems.families.normal import Normal
from problems.gaussian_bound import slope
from problems.lanes import Kit, LaneModel
from problems.objectives import OBJECTIVES, InclusiveKL, chosen
from problems.settings import at_least, one_of
from problems.truth import Truth, by_quadrature, exactly

SEED = 1802
VARIANCE = 2 / 3


def linear_gaussian(
    dim: int = 20, samples: int = 1, data: int = 4, objective: str = "elbo", alpha: float = 0.5
) -> Problem:
    """ELBO, or for samples > 1 the importance-weighted bound, of z ~ N(mu, I), x | z ~ N(z, I), q = N(A x + b, (2/3) I).

    theta: A `[D, D]` row by row and then b; model: mu. The data are drawn from the model at a seeded mu. q can never be the
    posterior N((x + mu) / 2, I / 2), so that the bound stays loose: as K grows the signal of the encoder's gradient vanishes faster
    than its noise for reparameterised gradients, and not for doubly reparameterised ones. Points: `init` (all zero), `mid` (half
    way to the optimum A = I / 2, b = mu / 2, mu the mean of the data), `converged` (the optimum plus N(0, .01^2) in each number, as
    in both papers). Exact for every K (`exact`). objective: renyi, the bound of order alpha < 1 of so many draws; log_marginal, log
    p(x) itself, in which q has no part; thermodynamic, its integral along the path from q to p; inclusive_kl, E log q(z | x) over
    the posterior, with mu held fixed at its optimum.
    Rainforth et al. 2018, arXiv:1802.04537; Tucker et al. 2019, arXiv:1810.04152.
    """
    at_least("linear_gaussian", 1, dim=dim, samples=samples, data=data)
    one_of("linear_gaussian", OBJECTIVES, objective=objective)
    if objective == "renyi" and alpha >= 1:
        raise ValueError(f"linear_gaussian[alpha={alpha}]: alpha must be below 1, where the bound is known exactly")
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
    settings: dict[str, Any] = {"dim": dim, "samples": samples, "data": data, "objective": objective, "alpha": alpha}
    bound = Problem(
        name="linear_gaussian",
        family=Normal,
        theta=points["init"].theta,
        f=f,
        objective=chosen("elbo" if objective == "inclusive_kl" else objective, samples, alpha),
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
    return inclusive(bound) if objective == "inclusive_kl" else bound


def inclusive(bound: Problem) -> Problem:
    """The same proposal fitted to the posterior by E log q(z | x) over it, mu fixed at the mean of the data."""
    assert bound.data is not None
    fixed = bound.data.mean(0)

    def f(x: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
        return bound.value(x, fixed.to(x), data)

    def exact(problem: Problem) -> Truth:
        """dL/dm = (E z - m) / (2/3), E z = (x + mu) / 2."""
        x, m = known(problem)
        return exactly(pulled(x, ((x + fixed) / 2 - m) / VARIANCE))

    points = {name: Point(point.theta) for name, point in bound.points.items()}
    lanes = in_lanes(len(fixed), fixed.numpy())
    return replace(bound, f=f, objective=InclusiveKL(), model=None, exact=exact, lanes=lanes, points=points)


def in_lanes(dim: int, fixed: np.ndarray | None = None) -> Callable[[Kit], LaneModel]:
    """f over lanes; df/dz = mu + x - 2 z; df/dmu = z - mu. fixed: mu, where it is no model."""

    def lanes(kit: Kit) -> LaneModel:
        D, L, S, R = dim, kit.L, kit.S, kit.real
        T = max(t for t in range(1, 9) if D % t == 0)  # sites whose sum is kept in registers
        LOG_NORM, ZERO, HALF, TWO = R(-dim * math.log(2 * math.pi)), R(0), R(0.5), R(2)

        @kit.jit
        def of_model(c, d):  # type: ignore[no-untyped-def]
            return c.model[d]

        @kit.jit
        def of_table(c, d):  # type: ignore[no-untyped-def]
            return c.table[0, d]

        mu = of_model if fixed is None else of_table

        @kit.jit
        def f(out, x, c):  # type: ignore[no-untyped-def]
            out[:] = LOG_NORM
            for tile in range(D // T):
                for l in range(L):
                    total = ZERO
                    for d in range(tile * T, (tile + 1) * T):
                        prior, likelihood = x[d, l] - mu(c, d), c.row[d, S * l] - x[d, l]
                        total += prior * prior + likelihood * likelihood
                    out[l] -= HALF * total

        @kit.jit
        def df(out, x, c):  # type: ignore[no-untyped-def]
            for d in range(D):
                for l in range(L):
                    out[d, l] = mu(c, d) + c.row[d, S * l] - TWO * x[d, l]

        @kit.jit
        def credit(m, x, w, c):  # type: ignore[no-untyped-def]
            for d in range(D):
                for l in range(L):
                    m[d, l] += w[l] * (x[d, l] - mu(c, d))

        @kit.jit
        def hessian(h, x, c):  # type: ignore[no-untyped-def]
            h[: D * D] = ZERO
            for d in range(D):
                h[d * D + d, :] = -TWO

        if fixed is None:
            return LaneModel(f, df, credit, hessian=hessian)
        return LaneModel(f, df, hessian=hessian, table=fixed[None])

    return lanes


def known(problem: Problem) -> tuple[torch.Tensor, torch.Tensor]:
    """x and m = A x + b: `[N, D]` each."""
    assert problem.data is not None
    x = problem.data
    D = x.shape[1]
    return x, x @ problem.theta[: D * D].reshape(D, D).T + problem.theta[D * D :]


def pulled(x: torch.Tensor, d_m: torch.Tensor) -> torch.Tensor:
    """The gradient in A and b from that in m, `[N, D]`."""
    return torch.cat([(d_m.T @ x).reshape(-1), d_m.sum(0)])


def exact(problem: Problem) -> Truth:
    """The gradient of the objective, for any K and D.

    log p(x) is that of N(mu, 2 I), in which q has no part. For the thermodynamic bound see `thermodynamic`. For a bound of K draws
    it comes from one number per datum: with m = A x + b and c = 2 (mu + x) - 3 m, log w(z) = C - |z - c|^2 / 4, so that |z - c|^2
    = (2/3) y with y noncentral chi-square of D degrees and noncentrality lam = 6 |d|^2, d = mu + x - 2 m, and L_K = C +
    1/(1 - alpha) E log 1/K sum_k exp(-(1 - alpha) y_k / 6), alpha = 0 but for Renyi's. With g the derivative of that in lam,

        dL/dm = -3 (1 + 8 g) d,    dL/dmu = mu + 2 x - 3 m + 12 g d.

    K = 1: g = -1/6, dL/dm = d and dL/dmu = m - mu. alpha = 0, K -> infinity: g = -1/8, dL/dm = 0 and dL/dmu = (x - mu) / 2.
    """
    assert problem.model is not None
    (x, m), mu, objective = known(problem), problem.model, problem.objective
    D, K, alpha = x.shape[1], objective.samples, objective.alpha
    if objective.name == "LogMarginal":
        return exactly(torch.cat([0 * problem.theta, ((x - mu) / 2).sum(0)]))
    if objective.name == "Thermodynamic":
        m, mu = (t.clone().requires_grad_() for t in (m, mu))
        d_m, d_mu = torch.autograd.grad(thermodynamic(x, m, mu, objective.partition), (m, mu))
        return exactly(torch.cat([pulled(x, d_m), d_mu]))
    d = mu + x - 2 * m
    lam = 6 * (d * d).sum(-1)

    def gradient(g: torch.Tensor) -> torch.Tensor:
        d_m = -3 * (1 + 8 * g[:, None]) * d
        d_mu = mu + 2 * x - 3 * m + 12 * g[:, None] * d
        return torch.cat([pulled(x, d_m), d_mu.sum(0)])

    def slopes(nodes: int) -> torch.Tensor:
        found = [slope(float(v), D, K, nodes, (1 - alpha) / 6) for v in lam]
        return torch.tensor(found, dtype=torch.float64) / (1 - alpha)

    if K == 1:
        return exactly(gradient(torch.full_like(lam, -1 / 6)))
    return by_quadrature(lambda nodes: gradient(slopes(nodes)), nodes=200 + 40 * math.ceil(float(lam.max() + D) ** 0.5))


def thermodynamic(
    x: torch.Tensor, m: torch.Tensor, mu: torch.Tensor, partition: tuple[tuple[float, float], ...]
) -> torch.Tensor:
    """sum_j width_j E log w over N(a, v I) ~ q^(1-b) p^b: 1/v = (1 - b) 3/2 + 2 b, a = v [(1 - b) 3/2 m + b (x + mu)]."""
    L, D = torch.zeros(()).to(m), x.shape[1]
    for beta, width in partition:
        v = 1 / ((1 - beta) / VARIANCE + 2 * beta)
        a = v * ((1 - beta) / VARIANCE * m + beta * (x + mu))
        squares = (a - mu).square() + (x - a).square() - (a - m).square() / VARIANCE + (2 - 1 / VARIANCE) * v
        log_w = -0.5 * squares.sum(-1) - 0.5 * D * math.log(2 * math.pi / VARIANCE)
        L = L + width * log_w.sum()
    return L


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
