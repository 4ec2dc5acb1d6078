"""RAM, reparameterise and marginalise: each site of a Chain summed over its values, what follows run again with its noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from estimators.base import Estimator
from estimators.intervention import each_set, sites
from estimators.local_expectation import FAMILIES, draws_and_others, noise_of_draws, others, over_values
from problems.settings import at_least

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family


def ram(samples: int = 1) -> Estimator:
    """RAM for layers of bits or categories: a site summed over its values, and what follows run again with the noise it had.

    Nothing is assumed of f. Unbiased for Expectation and Elbo; K (1 + D (C - 1)) evaluations of f, C the values of a site, no
    gradient of f; the model's gradient is that at the K draws. It is the score function's mean over each site given the noise of
    the others, so that in a parameter that belongs to one site it never has more variance than the score function, whatever the
    baseline made of that noise (in one that several sites share it may). Of sites that do not depend on one another it is
    `local_expectation`. Tokui & Sato, ICML 2017, arXiv:1611.01239.
    """
    at_least("ram", 1, samples=samples)

    def draw(q: Family, noise: Tensor) -> Tensor:
        """z_k = z(eps_k), then for every other value v of a site, and for every site, z(eps_k) with z_d = v set by hand."""
        z = q.sample(noise)
        return torch.cat([z, each_set(q, z, noise, others(q, z)).flatten(0, 1)])

    def combine(q: Family, x: Tensor, fx: Tensor) -> Tensor:
        """g_d = 1/K sum_k sum_v (f(z(eps_k) with z_d = v) - f(z_k)) grad q_d(v | before), pulled back to the weights."""
        z = x[:samples]
        return q.pull(z, over_values(sites(q, z), z, fx))

    return Estimator(
        "ram",
        lambda size: draws_and_others(samples, size),
        draw,
        combine,
        [f"chain of {name}" for name in FAMILIES],
        noise=lambda size: noise_of_draws(samples, size),
        settings={"samples": samples},
        source="arXiv:1611.01239",
    )
