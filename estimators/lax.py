"""LAX and DLAX: REINFORCE with a learned function of the reparameterised variable as control variate; f may be a black box."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from estimators.base import Estimator, across
from estimators.conditional_relaxation import free
from estimators.learning import slope
from estimators.pathwise import FAMILIES, draw
from estimators.relax import surrogate
from estimators.relaxation import FAMILIES as RELAXED
from estimators.surrogate import learned, network

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family


def lax(hidden: int = 10, steps: int = 300, lr: float = 0.01) -> Estimator:
    """LAX: REINFORCE less a learned network of the sample, whose gradient is added back pathwise.

    Any q that has a path derivative, but of angles; nothing is assumed of f. The network has one layer of `hidden` tanh units on
    x and sees no data. Unbiased for Expectation and Elbo, for any weights; they are learned by descending the variance (Adam), but
    for the output's offset, which starts at a mean of f. 1 evaluation of f, no gradient.
    Grathwohl, Choi, Wu, Roeder & Duvenaud 2018, arXiv:1711.00123.
    """

    def combine(q: Family, x: Tensor, fx: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """g = [f(x) - c(x)] grad log q(x) + (dx/dtheta)' c'(x)."""
        c, dc = slope(lambda x: network(state, x.flatten(-q.event_axes)), x)
        return q.score(x, fx - c) + q.path(x, dc)

    return Estimator(
        "lax",
        1,
        draw,
        combine,
        [name for name in FAMILIES if name != "von_mises"],  # a network of x is no function of the angle
        learning=learned("lax", hidden, steps, lr),
        kernel="estimators.kernels.lax:lax",
        settings={"hidden": hidden, "steps": steps, "lr": lr},
        source="arXiv:1711.00123",
    )


def relaxed_score(q: Family, z: Tensor) -> Tensor:
    """grad_l log q(z) of the relaxed z: 2 sigmoid(z - l) - 1 of the logistic, 1 - exp(l - z) of the Gumbel distribution."""
    return 2 * (z - q.theta).sigmoid() - 1 if q.name == "bernoulli" else 1 - (q.theta - z).exp()


def dlax(hidden: int = 10, steps: int = 300, lr: float = 0.01) -> Estimator:
    """DLAX: LAX of bits and categories, by the score of the relaxed variable that is rounded to the sample.

    Nothing is assumed of f. The network has one layer of `hidden` tanh units on 2 soft(z) - 1 and sees no data. Unbiased for
    Expectation and Elbo, for any weights, learned as those of LAX. The scores of b and of z differ, so that even a constant f
    leaves variance; RELAX, whose control variate is conditioned on b, mends that. 1 evaluation of f, no gradient.
    Grathwohl, Choi, Wu, Roeder & Duvenaud 2018, arXiv:1711.00123.
    """

    def combine(q: Family, noise: Tensor, x: Tensor, fx: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """g = f(b) grad log q(b) - c(z) grad log q(z) + d/dl c(z)."""
        z = free(q, noise[0])
        c, dc = slope(surrogate(q, state), z)
        score = relaxed_score(q, z)
        return q.score(x, fx) - across(c, score) * score + dc

    return Estimator(
        "dlax",
        1,
        draw,
        combine,
        RELAXED,
        learning=learned("dlax", hidden, steps, lr),
        kernel="estimators.kernels.lax:dlax",
        settings={"hidden": hidden, "steps": steps, "lr": lr},
        source="arXiv:1711.00123",
    )
