"""A quadratic of coupled binary or categorical variables (QUBO), with its gradient in closed form at any size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from problems.base import Point, Problem
from problems.families.base import Family
from problems.families.bernoulli import Bernoulli
from problems.families.categorical import Categorical
from problems.settings import at_least, one_of

SEED = 2020


def quadratic(dim: int = 6, family: str = "bernoulli", categories: int = 3) -> Problem:
    """E [x' A x + c' x], x: D bits, or D one-hot vectors of C categories (family=categorical) laid end to end.

    A is symmetric and dense, entries N(0, 1) / sqrt(D) from a fixed seed, c of N(0, 1). Every coordinate is coupled to every
    other, so that the noise of the others dominates a score function's single coordinate: couplings, local expectations and
    learned baselines are told apart. f is of degree two, where ReinMax is unbiased and straight-through is not. The gradient of a
    logit is known at any size, from the means alone. Points: `init` (uniform), `mid` (logits between -1 and 1), `converged`
    (logits of 3 towards a local minimum of f).
    """
    at_least("quadratic", 1, dim=dim)
    one_of("quadratic", ("bernoulli", "categorical"), family=family)
    at_least("quadratic", 2, categories=categories)
    as_bits = family == "bernoulli"
    values = 1 if as_bits else categories
    length = dim * values
    A_array, c_array = coefficients(length, dim)
    A, c = torch.from_numpy(A_array), torch.from_numpy(c_array)

    def f(x: torch.Tensor) -> torch.Tensor:
        x = x if as_bits else x.flatten(-2)
        return ((x @ A.to(x)) * x).sum(-1) + x @ c.to(x)

    def bits_f(x: Sequence[float]) -> float:
        total = 0.0
        for i in range(dim):
            inner = c_array[i]
            for j in range(dim):
                inner += A_array[i, j] * x[j]
            total += inner * x[i]
        return total

    def one_hot_f(x: Sequence[Sequence[float]]) -> float:
        total = 0.0
        for i in range(length):
            inner = c_array[i]
            for j in range(length):
                inner += A_array[i, j] * x[j // values][j % values]
            total += inner * x[i // values][i % values]
        return total

    def exact(problem: Problem) -> torch.Tensor:
        """h = dE f/dp = 2 A_between p + diag A + c, A_between: the entries of A between sites; then through p(theta)."""
        site = torch.arange(length) // values
        between = A * (site[:, None] != site[None])
        p = torch.sigmoid(problem.theta) if as_bits else torch.softmax(problem.theta, -1)
        h = (2 * between @ p.reshape(-1) + A.diagonal() + c).reshape(p.shape)
        return p * (1 - p) * h if as_bits else p * (h - (p * h).sum(-1, keepdim=True))

    shape = (dim,) if as_bits else (dim, values)
    settings: dict[str, Any] = {"dim": dim, "family": family, "categories": categories}
    points = {
        "init": Point(torch.zeros(shape, dtype=torch.float64)),
        "mid": Point(torch.linspace(-1, 1, length, dtype=torch.float64).reshape(shape)),
        "converged": Point(6 * local_minimum(f, shape) - 3),
    }
    bound: type[Family] = Bernoulli if as_bits else Categorical
    return Problem(
        name="quadratic",
        family=bound,
        theta=points["init"].theta,
        f=f,
        smooth=2,
        relaxed=True,
        degree=2,
        exact=exact,
        scalar_f=bits_f if as_bits else one_hot_f,
        points=points,
        settings=settings,
        source="quadratic unconstrained binary optimisation with seeded coefficients",
    )


def coefficients(length: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """A `[n, n]`, symmetric, and c `[n]`, from the fixed seed."""
    rng = np.random.default_rng(SEED)
    G = rng.standard_normal((length, length))
    return (G + G.T) / np.sqrt(2 * dim), rng.standard_normal(length)


def local_minimum(f: Callable[[torch.Tensor], torch.Tensor], shape: tuple[int, ...]) -> torch.Tensor:
    """A point of the support that no change of a single site improves, by sweeps over the sites from the first state."""
    choices = torch.eye(shape[1], dtype=torch.float64) if len(shape) > 1 else torch.tensor([0.0, 1.0]).double()
    x = choices[0].expand(shape).clone()
    previous = None
    while previous is None or not torch.equal(x, previous):
        previous = x.clone()
        for d in range(shape[0]):
            tried = x.expand(len(choices), *shape).clone()
            tried[:, d] = choices
            x = tried[f(tried).argmin()]
    return x
