"""Adapters for code that people already have: a surrogate loss for autograd, or a function that returns gradients.

Such a member is handed a counting f and a generator seeded for each block of replicates: its cells resume and repeat, but they do
not share the noise of the others and are not paired with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from estimators.base import UNBIASED, Claim, Estimator

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["from_gradients", "from_surrogate"]


def from_gradients(
    name: str,
    fn: Callable[[Tensor, Any, Any, int], Tensor],
    family: Sequence[str] | None = None,
    claims: Mapping[str, str | Claim] = UNBIASED,
    settings: Mapping[str, Any] | None = None,
    source: str = "",
) -> Estimator:
    """`fn(theta, f, generator, replicates) -> [R, P]`: one gradient for each of `replicates` independent replicates.

    f: points `[..., *event] -> [...]`, the integrand of the problem's objective (f, or f - log q with theta held fixed); every
    point that it is handed is counted. generator: a torch.Generator, the only source of randomness that repeats.
    """

    def gradients(theta: Tensor, f: Any, generator: Any, replicates: int) -> Tensor:
        return fn(theta, f, generator, replicates)

    return Estimator(name, gradients=gradients, family=family, claims=claims, settings=settings or {}, source=source)


def from_surrogate(
    name: str,
    loss: Callable[[Tensor, Any, Any], Tensor],
    family: Sequence[str] | None = None,
    claims: Mapping[str, str | Claim] = UNBIASED,
    settings: Mapping[str, Any] | None = None,
    source: str = "",
) -> Estimator:
    """`loss(theta, f, generator) -> [scalar]`: autograd of it with respect to theta is one gradient (ascent direction).

    It is written for one replicate, as papers' code is; replicates come by torch.func.vmap of torch.func.grad, so that every
    random number must be drawn with `generator`, and no value may steer Python's control flow.
    """

    def gradients(theta: Tensor, f: Any, generator: Any, replicates: int) -> Tensor:
        import torch

        f.times = replicates

        def surrogate(parameters: Tensor, _replicate: Tensor) -> Tensor:
            return loss(parameters, f, generator).squeeze()

        mapped = torch.func.vmap(torch.func.grad(surrogate), in_dims=(None, 0), randomness="different")
        found: Tensor = mapped(theta, torch.zeros(replicates))
        return found.reshape(replicates, -1)

    return Estimator(name, gradients=gradients, family=family, claims=claims, settings=settings or {}, source=source)
