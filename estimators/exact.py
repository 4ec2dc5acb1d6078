"""The exact gradient, by summing over the support."""

from __future__ import annotations

from typing import TYPE_CHECKING

from estimators.base import Ask, Estimator, Noise, Size
from estimators.enumeration import spread

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family


def every_state(size: Size) -> list[Ask]:
    """f at every point of the support."""
    assert size.states is not None
    return [Ask.VALUE] * size.states


def draw(q: Family, noise: Tensor) -> Tensor:
    """Every point of the support, the same for all replicates (the noise only says how many there are); x: [S, ..., *event]."""
    support = q.support()
    return spread(support, noise.ndim).expand(-1, *noise.shape, *support.shape[1:])


def combine(q: Family, x: Tensor, fx: Tensor) -> Tensor:
    """g = sum_x q(x) f(x) grad log q(x)."""
    return q.score(x, q.log_prob(x).exp() * fx)


def value(q: Family, x: Tensor, fx: Tensor) -> Tensor:
    """L = sum_x q(x) f(x)."""
    return (q.log_prob(x).exp() * fx).sum(0)


def exact(states: int = 128) -> Estimator:
    """Exact enumeration: the sum over every point of a finite support.

    For any finite family of at most `states` points; no variance and no bias, for Expectation and Elbo; S evaluations of f.
    Sum over z of f(z) grad q(z), as TraceEnum_ELBO of Pyro and Expect of Storchastic.
    """
    if states < 1:
        raise ValueError(f"exact[states={states}]: the largest support to enumerate must be at least 1")
    return Estimator(
        "exact",
        every_state,
        draw,
        combine,
        noise=[Noise("uniform", event=())],
        value=value,
        states=states,
        kernel="estimators.kernels.exact:exact",
        settings={"states": states},
    )
