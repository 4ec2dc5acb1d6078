"""A Gaussian mixture fitted by an amortised categorical posterior: the smallest variational autoencoder with a discrete latent."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from problems.base import Point, Problem
from problems.families.categorical import Categorical
from problems.objectives import Elbo, ImportanceWeighted, InclusiveKL
from problems.points import stored_points
from problems.settings import at_least, one_of

SEED = 7
SCALE = 1.0
SPREAD = 2.0


def mixture(categories: int = 3, dim: int = 2, data: int = 16, samples: int = 1, objective: str = "elbo") -> Problem:
    """ELBO of a Gaussian mixture: a discrete latent c for each continuous x, q(c | x) = softmax(x W + v).

    p(c) = softmax(w)_c, p(x | c) = N(x; mu_c, I); the data are drawn from such a mixture, its means from N(0, 4 I) and equal
    weights, with a fixed seed. theta: the encoder's W `[F, C]` and then v `[C]`; model: the means `[C, F]` and then w `[C]`. The
    density is written as a network would write it, with the mean x_c' mu: off the support it is quadratic in the one-hot c, so
    that relaxations have a bias to show, and one site with few categories is where summing a category out is cheap.
    samples > 1: the importance-weighted bound of so many draws, at the ELBO's points where none of its own are stored.
    objective=inclusive_kl: sum_c p(c | x) log q(c | x) instead, what wake-phi estimates, with the model held fixed. Exact by
    enumeration of the categories.
    """
    at_least("mixture", 2, categories=categories)
    at_least("mixture", 1, dim=dim, data=data, samples=samples)
    one_of("mixture", ("elbo", "inclusive_kl"), objective=objective)
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

    rng = np.random.default_rng(SEED + 1)
    theta = torch.from_numpy(rng.standard_normal((dim + 1) * categories) / np.sqrt(dim + 1))
    means = torch.from_numpy(rng.standard_normal(categories * dim))
    init = Point(theta, torch.cat([means, torch.zeros(categories, dtype=torch.float64)]))
    settings: dict[str, Any] = {
        "categories": categories,
        "dim": dim,
        "data": data,
        "samples": samples,
        "objective": "elbo",
    }
    points = stored_points("mixture", settings | {"samples": 1}, init) | stored_points("mixture", settings, init)
    bound = Problem(
        name="mixture",
        family=Categorical,
        theta=init.theta,
        f=f,
        objective=Elbo() if samples == 1 else ImportanceWeighted(samples),
        smooth=2,
        relaxed=True,
        degree=2,
        encode=encode,
        model=init.model,
        data=rows,
        points=points,
        settings=settings | {"objective": objective},
        source="Gaussian mixture with seeded data",
    )
    return bound if objective == "elbo" else inclusive(bound)


def inclusive(bound: Problem) -> Problem:
    """The same posterior fitted to the model's by sum_c p(c | x) log q(c | x), the model fixed as it is at each point."""
    assert bound.model is not None
    fixed = bound.model

    def f(x: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
        return bound.value(x, fixed.to(x), data)

    points = {"init": Point(bound.theta), "mid": Point(bound.theta / 2)}
    return replace(bound, f=f, objective=InclusiveKL(), model=None, points=points)


def draws(categories: int, dim: int, data: int) -> tuple[torch.Tensor, torch.Tensor]:
    """x `[N, F]` and its component `[N]`: means N(0, SPREAD^2 I), equal weights, scale SCALE, one fixed seed."""
    rng = np.random.default_rng(SEED)
    means = SPREAD * rng.standard_normal((categories, dim))
    component = rng.integers(categories, size=data)
    x = means[component] + SCALE * rng.standard_normal((data, dim))
    return torch.from_numpy(x), torch.from_numpy(component)
