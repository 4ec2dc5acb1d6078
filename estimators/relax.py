"""RELAX: REBAR with a learned function of the relaxed variable in the place of f, so that f may be a black box."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from estimators.base import Estimator
from estimators.conditional_relaxation import conditioned, free
from estimators.learning import slope
from estimators.rebar import twice
from estimators.relaxation import FAMILIES, soft
from estimators.surrogate import learned, network

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family


def draw(q: Family, noise: tuple[Tensor, Tensor]) -> Tensor:
    """b = H(z); x: [1, ..., *event]."""
    return q.sample(noise[0])[None]


def surrogate(q: Family, state: Mapping[str, Tensor]) -> Callable[[Tensor], Tensor]:
    """c(z), the network of 2 soft(z) - 1."""
    return lambda z: network(state, (2 * soft(q, z) - 1).flatten(-q.event_axes))


def combine(q: Family, noise: tuple[Tensor, Tensor], x: Tensor, fx: Tensor, state: Mapping[str, Tensor]) -> Tensor:
    """g = [f(b) - c(z~)] grad log q(b) + d/dl c(z) - d/dl c(z~); z~ moves with l through its law given b too."""
    u, v = noise
    c = surrogate(q, state)
    z_tilde, pull = conditioned(q, x[0], v)
    c_tilde, dc_tilde = slope(c, z_tilde)
    _, dc = slope(c, free(q, u))
    return q.score(x, fx - c_tilde[None]) + dc - pull(dc_tilde)


def relax(hidden: int = 10, steps: int = 300, lr: float = 0.01) -> Estimator:
    """RELAX: REINFORCE with a learned network of the relaxed variable as control variate.

    The network has one layer of `hidden` tanh units on 2 soft(z) - 1 and sees no data. Nothing is assumed of f. Unbiased for
    Expectation and Elbo, for any weights; they are learned by descending the variance (Adam), but for the output's offset, which
    starts at a mean of f. 1 evaluation of f, no gradient.
    Grathwohl, Choi, Wu, Roeder & Duvenaud 2018, arXiv:1711.00123.
    """
    return Estimator(
        "relax",
        1,
        draw,
        combine,
        FAMILIES,
        noise=twice,
        learning=learned("relax", hidden, steps, lr),
        kernel="estimators.kernels.rebar:relax",
        settings={"hidden": hidden, "steps": steps, "lr": lr},
        source="arXiv:1711.00123",
    )
