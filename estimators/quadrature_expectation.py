"""Local expectation gradients of Normal variables: each site integrated by a Gauss-Hermite rule, the others as they were drawn."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from estimators.base import Ask, Claim, Estimator, Noise, Size
from estimators.replaced import replaced
from problems.settings import at_least

if TYPE_CHECKING:
    from torch import Tensor

    from problems.base import Problem
    from problems.families.normal import Normal


MOST_NODES = 256


@lru_cache(maxsize=16)
def gauss_hermite(nodes: int) -> tuple[Tensor, Tensor]:
    """eps_i and w_i with sum_i w_i p(eps_i) = E p(eps), eps ~ N(0, 1), for every polynomial p of a degree below 2 nodes."""
    eps, w = np.polynomial.hermite_e.hermegauss(nodes)
    return torch.from_numpy(eps), torch.from_numpy(w / w.sum())


def quadrature_expectation(nodes: int = 8, samples: int = 1) -> Estimator:
    """Local expectation gradients of Normal variables, the expectation over each site by Gauss-Hermite quadrature.

    Nothing is assumed of f but that it is smooth on the scale of sigma. The only variance is that of the other sites: none where f
    is a sum over the sites. Biased by the error of the rule for Expectation and Elbo, unless f is a polynomial of degree at most
    2 nodes - 3 (for Elbo log q, of degree 2, counts too); K D nodes evaluations of f, no gradient of f. The model's
    gradient is that at the nodes. Titsias & Lazaro-Gredilla, NeurIPS 2015, arXiv:1503.01494.
    """
    at_least("quadrature_expectation", 2, nodes=nodes)
    at_least("quadrature_expectation", 1, samples=samples)
    if nodes > MOST_NODES:
        raise ValueError(
            f"quadrature_expectation[nodes={nodes}]: nodes must be at most {MOST_NODES}, for the weights of more overflow"
        )

    def exact(problem: Problem) -> bool:
        """The score has degree 2, and the rule is exact below 2 nodes."""
        degree = problem.degree
        return degree is not None and max(degree, 2 * problem.objective.ratio) + 2 < 2 * nodes

    def points(size: Size) -> list[Ask]:
        return [Ask.VALUE] * nodes * size.D * samples

    def draw(q: Normal, noise: Tensor) -> Tensor:
        """z_k ~ q, and for every node and site z_k with mu_d + sigma_d eps_i there; x: [nodes D K, ..., D]."""
        z = q.sample(noise)
        eps = gauss_hermite(nodes)[0].to(z).reshape(-1, *[1] * z.ndim)
        return replaced(z, (q.mu + q.sigma * eps).expand(-1, *z.shape)).flatten(0, 1)

    def by_node(fx: Tensor) -> Tensor:
        """w_i f of site d and sample k: [nodes, K, ..., D]."""
        f = fx.unflatten(0, (nodes, -1, samples)).movedim(1, -1)
        return gauss_hermite(nodes)[1].to(f).reshape(-1, *[1] * (f.ndim - 1)) * f

    def combine(q: Normal, fx: Tensor) -> Tensor:
        """g_d = 1/K sum_k sum_i w_i f(z_k with mu_d + sigma_d eps_i) (eps_i / sigma_d, eps_i^2 - 1)."""
        f = by_node(fx).mean(1)
        eps = gauss_hermite(nodes)[0].to(f).reshape(-1, *[1] * (f.ndim - 1))
        return torch.stack([(f * eps).sum(0) / q.sigma, (f * (eps**2 - 1)).sum(0)], -2)

    def value(fx: Tensor) -> Tensor:
        """L = mean over d and k of sum_i w_i f(z_k with mu_d + sigma_d eps_i)."""
        return by_node(fx).sum(0).mean((0, -1))

    claim = Claim(
        "biased", unless=exact, because=f"f, and for Elbo log q, is a polynomial of degree at most {2 * nodes - 3}"
    )
    return Estimator(
        "quadrature_expectation",
        points,
        draw,
        combine,
        ["normal"],
        {"Expectation": claim, "Elbo": claim},
        [Noise("normal", (samples,))],
        value=value,
        kernel="estimators.kernels.quadrature_expectation:quadrature_expectation",
        settings={"nodes": nodes, "samples": samples},
        source="arXiv:1503.01494",
    )
