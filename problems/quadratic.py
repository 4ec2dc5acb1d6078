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
from problems.lanes import Kit, LaneModel
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
        """x' A x + c' x, the one-hots of categories end to end."""
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

    def lanes(kit: Kit) -> LaneModel:
        return by_slopes(kit, A_array, c_array, values)

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
        lanes=lanes,
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


def by_slopes(kit: Kit, A: np.ndarray, c: np.ndarray, values: int) -> LaneModel:
    """f = 1/2 (h + c)' x over lanes, h = 2 A x + c its gradient, A symmetric. With site d of x moved by delta f is

    f(x) + delta' (h_d + A_dd delta): one row of room for each number of h, one for f(x), and one for the row of h at work.
    """
    n, L, C, R = len(c), kit.L, values, kit.real
    zero, one, half = R(0), R(1), R(0.5)
    sites = n // C
    G = max(k for k in range(1, max(16 // C, 1) + 1) if sites % k == 0)  # sites added at a time, in registers
    A_real, twice_A, linear = (v.astype(R) for v in (A, 2 * A, c))
    at_f, at_work = n, n + 1

    @kit.jit
    def row_of_bits(x, p):  # type: ignore[no-untyped-def]
        return x[p]

    @kit.jit
    def row_of_one_hot(x, p):  # type: ignore[no-untyped-def]
        return x[p // C, p % C]

    row = row_of_bits if C == 1 else row_of_one_hot

    @kit.jit
    def number_of_bits(x, s, i, l):  # type: ignore[no-untyped-def]
        return x[s, l]

    @kit.jit
    def number_of_one_hot(x, s, i, l):  # type: ignore[no-untyped-def]
        return x[s, i, l]

    number = number_of_bits if C == 1 else number_of_one_hot

    @kit.jit
    def slope(out, x, p):  # type: ignore[no-untyped-def]
        """out = h_p."""
        out[:] = linear[p]
        for g in range(sites // G):
            for l in range(L):
                total = out[l]
                for s in range(G):
                    for i in range(C):
                        total += twice_A[p, (g * G + s) * C + i] * number(x, g * G + s, i, l)
                out[l] = total

    @kit.jit
    def f_at_once(out, x, c):  # type: ignore[no-untyped-def]
        for l in range(L):
            total = zero
            for s in range(sites):
                for i in range(C):
                    inner = linear[s * C + i]
                    for q in range(sites):
                        for k in range(C):
                            inner += A_real[s * C + i, q * C + k] * number(x, q, k, l)
                    total += inner * number(x, s, i, l)
            out[l] = total

    @kit.jit
    def f_by_rows(out, x, c):  # type: ignore[no-untyped-def]
        h = c.room[at_work]
        out[:] = zero
        for p in range(n):
            slope(h, x, p)
            x_p = row(x, p)
            for l in range(L):
                out[l] += half * (h[l] + linear[p]) * x_p[l]

    f = f_at_once if n <= 8 else f_by_rows  # as many numbers as stay in registers

    @kit.jit
    def df(out, x, c):  # type: ignore[no-untyped-def]
        for p in range(n):
            slope(row(out, p), x, p)

    @kit.jit
    def begin(x, c):  # type: ignore[no-untyped-def]
        f_x = c.room[at_f]
        f_x[:] = zero
        for p in range(n):
            h, x_p = c.room[p], row(x, p)
            slope(h, x, p)
            for l in range(L):
                f_x[l] += half * (h[l] + linear[p]) * x_p[l]

    @kit.jit
    def moved_bit(out, x, d, v, c):  # type: ignore[no-untyped-def]
        for l in range(L):
            delta = v[l] - x[d, l]
            out[l] = c.room[at_f, l] + delta * (c.room[d, l] + A_real[d, d] * delta)

    @kit.jit
    def moved_one_hot(out, x, d, v, c):  # type: ignore[no-untyped-def]
        for l in range(L):
            total = c.room[at_f, l]
            for i in range(C):
                inner = c.room[d * C + i, l]
                for k in range(C):
                    inner += A_real[d * C + i, d * C + k] * ((one if v[l] == R(k) else zero) - x[d, k, l])
                total += inner * ((one if v[l] == R(i) else zero) - x[d, i, l])
            out[l] = total

    return LaneModel(f, df, begin=begin, moved=moved_bit if C == 1 else moved_one_hot, rooms=n + 2)
