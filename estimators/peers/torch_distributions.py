"""torch.distributions: the pathwise derivative of `rsample`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import distributions

from estimators.base import Ask, Estimator

if TYPE_CHECKING:
    from torch import Tensor

    from estimators.base import Size

REPARAMETERISED = ["normal", "gamma", "beta", "dirichlet"]


def distribution(family: str, theta: Tensor) -> distributions.Distribution:
    """The distribution of the whole point `[*event]` at site parameters `[..., *site]`, as torch.distributions writes it."""
    if family == "dirichlet":
        return distributions.Independent(distributions.Dirichlet(theta.exp()), 1)
    a, b = theta.unbind(-2)
    if family == "normal":
        return distributions.Independent(distributions.Normal(a, b.exp()), 1)
    kind = distributions.Gamma if family == "gamma" else distributions.Beta
    return distributions.Independent(kind(a.exp(), b.exp()), 1)


def pathwise_where_it_can(size: Size) -> list[Ask]:
    """A gradient of f where the family is reparameterised."""
    return [Ask.SAMPLE | Ask.GRADIENT if size.family.name in REPARAMETERISED else Ask.SAMPLE]


def seeded(generator: Any) -> int:
    """A seed for a library that keeps generators of its own."""
    return int(torch.randint(2**31 - 1, (), generator=generator))


def torch_rsample() -> Estimator:
    """torch.distributions' rsample: the pathwise derivative by autograd, a row of the batch for each replicate.

    Assumes f differentiable. Unbiased for Expectation and Elbo; 1 evaluation of f, 1 gradient. For Gamma, Beta and Dirichlet
    variables torch's own approximations of the implicit derivative (Jankowiak & Obermeyer 2018, arXiv:1806.01851).
    """

    def gradients(theta: Tensor, q: Any, f: Any, generator: Any, replicates: int) -> Tensor:
        rows = theta.expand(replicates, *theta.shape).clone().requires_grad_()
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(seeded(generator))
            x = distribution(q.name, rows).rsample()
            (found,) = torch.autograd.grad(f(x).sum(), rows)
        return found

    return Estimator(
        "torch_rsample",
        pathwise_where_it_can,
        gradients=gradients,
        family=REPARAMETERISED,
        source="torch.distributions",
    )
