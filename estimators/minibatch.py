"""Rows of a minibatch: drawn without replacement, or each with a probability of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from estimators.base import Ask, Estimator, Learning, Noise, across
from problems.settings import at_least, one_of

if TYPE_CHECKING:
    from torch import Tensor

    from estimators.base import Size
    from problems.families.minibatch import MinibatchFamily

EXPECTATION = {"Expectation": "unbiased"}
WEIGHTS = ("norm", "lipschitz", "gradient")


def distinct(order: Tensor, samples: int) -> Tensor:
    """K distinct rows of N, the places of the smallest of N uniforms: `[..., N] -> [K, ...]`."""
    return order.argsort(dim=-1, stable=True)[..., :samples].movedim(-1, 0)


def every_row(size: Size) -> list[Ask]:
    """grad f_i for every datum i, once."""
    return [Ask.GRADIENT] * size.family.rows


def check_rows(name: str, samples: int, size: Size) -> None:
    """Raises ValueError where there are fewer rows than are to be distinct."""
    if samples > size.family.rows:
        raise ValueError(f"{name} draws {samples} distinct rows; there are {size.family.rows}")


def beside(theta: Tensor, generator: torch.Generator, distance: float, rows: int = 1) -> Tensor:
    """Parameters at this distance from theta in directions drawn at random, for each row: `[rows, P]`."""
    off = torch.randn(rows, *theta.shape, generator=generator, dtype=torch.float64)
    return theta + distance * (off / off.norm(dim=-1, keepdim=True)).to(theta)


def minibatch(samples: int = 4) -> Estimator:
    """A minibatch of distinct rows: the mean gradient of K of the N addends, drawn without replacement.

    Assumes f((i, w)) = N f_i(w) differentiable in w. Unbiased for Expectation; the variance is that of K rows with replacement,
    which `pathwise` draws, times the finite population's correction (N - K) / (N - 1): none is left of it at K = N. K evaluations
    and gradients of f. Cochran, "Sampling techniques", 1977, chapter 2; Robbins & Monro 1951.
    """
    at_least("minibatch", 1, samples=samples)

    def points(size: Size) -> list[Ask]:
        check_rows("minibatch", samples, size)
        return [Ask.SAMPLE | Ask.GRADIENT] * samples

    def draw(q: MinibatchFamily, noise: Tensor) -> Tensor:
        """x_k = (i_k, theta), i_1 ... i_K distinct; x: [K, ..., 1 + P]."""
        return q.place(distinct(noise, samples))

    def combine(q: MinibatchFamily, x: Tensor, dfx: Tensor) -> Tensor:
        """g = 1/K sum_k N grad f_{i_k}(theta)."""
        return q.path(x, dfx / samples)

    return Estimator(
        "minibatch",
        points,
        draw,
        combine,
        ["minibatch"],
        EXPECTATION,
        lambda size: [Noise("uniform", (), (size.family.rows,))],
        settings={"samples": samples},
        source="Cochran 1977",
    )


def importance_minibatch(
    samples: int = 4, weights: str = "norm", uniform: float = 0.0, distance: float = 0.1
) -> Estimator:
    """A minibatch by importance: row i with probability p_i, its gradient over N p_i.

    Assumes f((i, w)) = N f_i(w) differentiable in w. weights: p_i in proportion to `norm`, the length |x_i| that the problem tells
    of each datum, a bound of |grad f_i| where the loss has a bounded slope; `lipschitz`, its square, the Lipschitz constant of
    grad f_i of a squared or logistic loss; `gradient`, |grad f_i| itself, learned at parameters `distance` from theta, as of an
    earlier step. At distance 0, without a uniform part, that p has the least variance, ((sum |grad f_i|)^2 - |sum grad f_i|^2) / K.
    uniform: the part of p_i that is 1 / N (1/2 of Needell et al.), which bounds the weights; `gradient` takes some, for a gradient
    that vanishes at the earlier step would never be drawn. Unbiased for Expectation; K evaluations and gradients of f, and of
    `gradient` N once. Zhao & Zhang 2015, arXiv:1401.2753; Needell, Srebro & Ward 2014, arXiv:1310.5715.
    """
    name = "importance_minibatch"
    at_least(name, 1, samples=samples)
    one_of(name, WEIGHTS, weights=weights)
    at_least(name, 0, distance=distance)
    if not 0 <= uniform <= 1:
        raise ValueError(f"{name}[uniform={uniform}]: the uniform part of the probabilities lies between 0 and 1")
    learned = weights == "gradient"
    if learned and uniform == 0:
        raise ValueError(
            f"{name}[weights=gradient,uniform=0]: a datum whose gradient vanished where it was learned would never be drawn"
        )

    def mixed(bound: Tensor) -> Tensor:
        """p_i = u / N + (1 - u) b_i / sum_j b_j."""
        return uniform / len(bound) + (1 - uniform) * bound / bound.sum()

    def init(theta: Tensor, size: Size, generator: torch.Generator) -> dict[str, Tensor]:
        if learned:
            return {"p": theta.new_ones(size.family.rows), "earlier": beside(theta, generator, distance)[0]}
        return {"p": mixed(size.family.norms.double() ** (2 if weights == "lipschitz" else 1))}

    def learn(state: Mapping[str, Tensor], dfx: Tensor) -> dict[str, Tensor]:
        return {"p": mixed(dfx[:, 0].norm(dim=-1)), "earlier": state["earlier"]}

    def at_every_row(q: MinibatchFamily, state: Mapping[str, Tensor]) -> Tensor:
        """(i, w0) for i = 0 ... N - 1; x: [N, 1, 1 + P]."""
        return q.at(state["earlier"]).place(torch.arange(q.rows, device=q.theta.device)[:, None])

    def points(size: Size) -> list[Ask]:
        if not learned and size.family.norms is None:
            raise ValueError(f"{name}[weights={weights}] needs the norms of the data, which this problem does not tell")
        return [Ask.GRADIENT] * samples

    def draw(q: MinibatchFamily, noise: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """x_k = (i_k, theta), i_k = P^-1(u_k) with P_i = p_0 + ... + p_i; x: [K, ..., 1 + P]."""
        P = state["p"].cumsum(-1)
        i = torch.searchsorted(P, noise[..., 0].contiguous() * P[-1])
        return q.place(i.clamp(max=q.rows - 1))

    def over(q: MinibatchFamily, x: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """1 / (K N p_{i_k})."""
        return 1 / (samples * q.rows * state["p"][x[..., 0].long()])

    def combine(q: MinibatchFamily, x: Tensor, dfx: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """g = 1/K sum_k N grad f_{i_k}(theta) / (N p_{i_k})."""
        return q.path(x, across(over(q, x, state), dfx) * dfx)

    def value(q: MinibatchFamily, x: Tensor, fx: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """L = 1/K sum_k f_k / (N p_{i_k})."""
        return (over(q, x, state) * fx).sum(0)

    once = Learning(init, learn, 1, points=every_row, noise=[], draw=at_every_row) if learned else Learning(init)
    return Estimator(
        name,
        points,
        draw,
        combine,
        ["minibatch"],
        EXPECTATION,
        [Noise("uniform", (samples,), (1,))],
        value,
        once,
        settings={"samples": samples, "weights": weights, "uniform": uniform, "distance": distance},
        source="arXiv:1401.2753",
    )
