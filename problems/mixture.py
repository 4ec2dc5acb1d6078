"""A Gaussian mixture fitted by an amortised categorical posterior: the smallest variational autoencoder with a discrete latent."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from problems.base import Point, Problem
from problems.families.categorical import Categorical
from problems.lanes import Kit, LaneModel
from problems.objectives import OBJECTIVES, InclusiveKL, chosen
from problems.points import stored_points
from problems.settings import at_least, one_of

SEED = 7
SCALE = 1.0
SPREAD = 2.0


def mixture(
    categories: int = 3, dim: int = 2, data: int = 16, samples: int = 1, objective: str = "elbo", alpha: float = 0.5
) -> Problem:
    """ELBO of a Gaussian mixture: a discrete latent c for each continuous x, q(c | x) = softmax(x W + v).

    p(c) = softmax(w)_c, p(x | c) = N(x; mu_c, I); the data are drawn from such a mixture, its means from N(0, 4 I) and equal
    weights, with a fixed seed. theta: the encoder's W `[F, C]` and then v `[C]`; model: the means `[C, F]` and then w `[C]`. The
    density is written as a network would write it, with the mean x_c' mu: off the support it is quadratic in the one-hot c, so
    that relaxations have a bias to show, and one site with few categories is where summing a category out is cheap.
    samples > 1: the importance-weighted bound of so many draws, at the ELBO's points where none of its own are stored.
    objective: renyi, the bound of order alpha of so many draws; log_marginal, log p(x) itself, in which q has no part;
    thermodynamic, its integral along the path from q to p; inclusive_kl, sum_c p(c | x) log q(c | x), what wake-phi estimates, with
    the model held fixed. Exact by enumeration of the categories.
    """
    at_least("mixture", 2, categories=categories)
    at_least("mixture", 1, dim=dim, data=data, samples=samples)
    one_of("mixture", OBJECTIVES, objective=objective)
    rows, _ = draws(categories, dim, data)

    def f(x: torch.Tensor, data: torch.Tensor, model: torch.Tensor) -> torch.Tensor:
        """log p(c) + log p(data | c): x `[..., B, 1, C]`, data `[(R,) B, F]` -> `[..., B]`."""
        c = x.squeeze(-2)
        means, w = model[: categories * dim].reshape(categories, dim), model[categories * dim :]
        error = data - c @ means
        return c @ w.log_softmax(-1) - 0.5 * (error * error).sum(-1) - 0.5 * dim * math.log(2 * math.pi)

    def encode(theta: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
        W, v = theta[: dim * categories].reshape(dim, categories), theta[dim * categories :]
        return (data @ W + v)[..., None, :]

    init = Point(*map(torch.from_numpy, start(categories, dim)))
    settings: dict[str, Any] = {
        "categories": categories,
        "dim": dim,
        "data": data,
        "samples": samples,
        "objective": objective,
        "alpha": alpha,
    }
    elbo = settings | {"objective": "elbo", "alpha": 0.5}
    points = stored_points("mixture", elbo | {"samples": 1}, init) | stored_points("mixture", elbo, init)
    bound = Problem(
        name="mixture",
        family=Categorical,
        theta=init.theta,
        f=f,
        objective=chosen("elbo" if objective == "inclusive_kl" else objective, samples, alpha),
        smooth=2,
        relaxed=True,
        degree=2,
        encode=encode,
        model=init.model,
        data=rows,
        lanes=in_lanes(categories, dim),
        points=points,
        settings=settings,
        source="Gaussian mixture with seeded data",
    )
    return inclusive(bound, in_lanes(categories, dim, fixed=True)) if objective == "inclusive_kl" else bound


def inclusive(bound: Problem, lanes: Callable[[Kit], LaneModel]) -> Problem:
    """The same posterior fitted to the model's by sum_c p(c | x) log q(c | x), the model fixed as it is at each point."""
    assert bound.model is not None
    fixed = bound.model

    def f(x: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
        return bound.value(x, fixed.to(x), data)

    points = {"init": Point(bound.theta), "mid": Point(bound.theta / 2)}
    return replace(bound, f=f, objective=InclusiveKL(), model=None, lanes=lanes, points=points)


def in_lanes(categories: int, dim: int, fixed: bool = False) -> Callable[[Kit], LaneModel]:
    """f over lanes; with e = data - c' mu, df/dc_i = log p(i) + mu_i . e, df/dmu_i = c_i e, df/dw_i = c_i - p(i) sum_j c_j.

    fixed: the model is the one that the problem starts at.
    """

    def lanes(kit: Kit) -> LaneModel:
        C, F, L, S, R, exp, log = categories, dim, kit.L, kit.S, kit.real, kit.exp, kit.log
        W = C * F  # place of w in the model
        ZERO, HALF, LOG_NORM = R(0), R(0.5), R(-0.5 * dim * math.log(2 * math.pi))

        @kit.jit
        def of_model(c, i):  # type: ignore[no-untyped-def]
            return c.model[i]

        @kit.jit
        def of_table(c, i):  # type: ignore[no-untyped-def]
            return c.table[0, i]

        model = of_table if fixed else of_model

        @kit.jit
        def log_sum(c):  # type: ignore[no-untyped-def]
            """log sum_i e^{w_i}."""
            most, total = model(c, W), ZERO
            for i in range(1, C):
                most = max(most, model(c, W + i))
            for i in range(C):
                total += exp(model(c, W + i) - most)
            return most + log(total)

        @kit.jit
        def error(e, x, j, c):  # type: ignore[no-untyped-def]
            """e = (data - c' mu)_j."""
            for l in range(L):
                e[l] = c.row[j, S * l]
                for i in range(C):
                    e[l] -= x[0, i, l] * model(c, i * F + j)

        @kit.jit
        def f(out, x, c):  # type: ignore[no-untyped-def]
            e, norm = c.room[0], log_sum(c)
            out[:] = LOG_NORM
            for i in range(C):
                for l in range(L):
                    out[l] += x[0, i, l] * (model(c, W + i) - norm)
            for j in range(F):
                error(e, x, j, c)
                for l in range(L):
                    out[l] -= HALF * e[l] * e[l]

        @kit.jit
        def df(out, x, c):  # type: ignore[no-untyped-def]
            e, norm = c.room[0], log_sum(c)
            for i in range(C):
                out[0, i, :] = model(c, W + i) - norm
            for j in range(F):
                error(e, x, j, c)
                for i in range(C):
                    for l in range(L):
                        out[0, i, l] += e[l] * model(c, i * F + j)

        @kit.jit
        def credit(m, x, w, c):  # type: ignore[no-untyped-def]
            e, norm = c.room[0], log_sum(c)
            for j in range(F):
                error(e, x, j, c)
                for i in range(C):
                    for l in range(L):
                        m[i * F + j, l] += w[l] * x[0, i, l] * e[l]
            e[:] = ZERO
            for i in range(C):
                for l in range(L):
                    e[l] += x[0, i, l]
            for i in range(C):
                p = exp(model(c, W + i) - norm)
                for l in range(L):
                    m[W + i, l] += w[l] * (x[0, i, l] - p * e[l])

        table = start(categories, dim)[1][None] if fixed else None
        return LaneModel(f, df, None if fixed else credit, table=table, rooms=1)

    return lanes


def start(categories: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """theta and model at `init`, from the fixed seed: the means are drawn, w is nil."""
    rng = np.random.default_rng(SEED + 1)
    theta = rng.standard_normal((dim + 1) * categories) / np.sqrt(dim + 1)
    return theta, np.concatenate([rng.standard_normal(categories * dim), np.zeros(categories)])


def draws(categories: int, dim: int, data: int) -> tuple[torch.Tensor, torch.Tensor]:
    """x `[N, F]` and its component `[N]`: means N(0, SPREAD^2 I), equal weights, scale SCALE, one fixed seed."""
    rng = np.random.default_rng(SEED)
    means = SPREAD * rng.standard_normal((categories, dim))
    component = rng.integers(categories, size=data)
    x = means[component] + SCALE * rng.standard_normal((data, dim))
    return torch.from_numpy(x), torch.from_numpy(component)
