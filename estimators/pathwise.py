"""Pathwise gradients: the derivative of f carried to theta along the reparameterisation of the sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from estimators.base import Ask, Estimator
from problems.settings import at_least

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family

FAMILIES = ["normal", "gamma", "beta", "dirichlet", "von_mises", "weibull", "chain of normal"]


def draw(q: Family, noise: Tensor) -> Tensor:
    """x_k = T(eps_k; theta), independent; x: [K, ..., *event]."""
    return q.sample(noise)


def pathwise(samples: int = 1) -> Estimator:
    """The reparameterisation gradient (pathwise, SGVB): the path derivative of f; implicit where T has no formula.

    Assumes f continuous and differentiable almost everywhere; of von Mises variables, on the circle. dx/dtheta is that of
    mu + sigma eps for Normal and (eps / rate)^(1/shape) for Weibull variables, and -(dF/dtheta) / q(x) for Gamma, Beta, Dirichlet
    and von Mises variables, where it is known as implicit reparameterisation. For Elbo it is the *path*
    derivative of f - log q, which sticks the landing: the score of q, whose mean is zero, is left out (`pathwise_total`
    keeps it). Of the index of a datum it is the plain minibatch gradient, K rows drawn with replacement. Unbiased for Expectation
    and Elbo; K evaluations and gradients of f.
    Kingma & Welling 2014, arXiv:1312.6114; Rezende et al. 2014, arXiv:1401.4082; Figurnov et al. 2018, arXiv:1805.08498 (implicit);
    Roeder et al. 2017, arXiv:1703.09194 (the path derivative of the ELBO).
    """
    at_least("pathwise", 1, samples=samples)

    def combine(q: Family, x: Tensor, dfx: Tensor) -> Tensor:
        """g = 1/K sum_k (dx_k/dtheta)' grad f(x_k)."""
        return q.path(x, dfx / samples)

    points = [Ask.SAMPLE | Ask.GRADIENT] * samples
    return Estimator(
        "pathwise",
        points,
        draw,
        combine,
        [*FAMILIES, "minibatch"],
        kernel="estimators.kernels.pathwise:pathwise",
        settings={"samples": samples},
        source="arXiv:1312.6114",
    )


def pathwise_total(samples: int = 1) -> Estimator:
    """The total derivative of f - log q: the pathwise gradient less the score, as plain autograd of the ELBO gives it.

    Assumes what `pathwise` does. The score has mean zero but not variance zero, not even where q is exact and the path derivative
    vanishes; far from there the total derivative may well vary less. Unbiased for Elbo; K evaluations and gradients of f.
    Kingma & Welling 2014, arXiv:1312.6114; compared with the path derivative by Roeder et al. 2017, arXiv:1703.09194.
    """
    at_least("pathwise_total", 1, samples=samples)

    def combine(q: Family, x: Tensor, fx: Tensor, dfx: Tensor, share: float) -> Tensor:
        """g = 1/K sum_k (dx_k/dtheta)' grad [f - log q](x_k) - 1/K sum_k grad_theta log q(x_k)."""
        return q.path(x, dfx / samples) - q.score(x, torch.full_like(fx, share / samples))

    points = [Ask.SAMPLE | Ask.GRADIENT] * samples
    claims = {"Elbo": "unbiased"}
    return Estimator(
        "pathwise_total",
        points,
        draw,
        combine,
        FAMILIES,
        claims,
        kernel="estimators.kernels.pathwise:pathwise_total",
        settings={"samples": samples},
        source="arXiv:1312.6114",
    )
