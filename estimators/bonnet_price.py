"""Bonnet's and Price's theorems: the gradient of f for the means of Normal variables, its second derivatives for their scales."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from estimators.base import Ask, Estimator
from problems.settings import at_least

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.normal import Normal


def draw(q: Normal, noise: Tensor) -> Tensor:
    """x_k = mu + sigma eps_k; x: [K, ..., D]."""
    return q.sample(noise)


def combine(q: Normal, dfx: Tensor, hfx: Tensor) -> Tensor:
    """g_mu = 1/K sum_k grad f(x_k), g_log_sigma = 1/K sum_k diag H(x_k) sigma^2: one sigma is that of d log sigma."""
    curvature = hfx.diagonal(dim1=-2, dim2=-1)
    return torch.stack([dfx.mean(0), curvature.mean(0) * q.sigma**2], -2)


def bonnet_price(samples: int = 1) -> Estimator:
    """Bonnet and Price: dE f/dmu = E grad f and dE f/dsigma_d = sigma_d E H_dd, the Hessian in the place of a path.

    For factorised Normal variables with (mu, log sigma); assumes f twice differentiable. Unbiased for Expectation and Elbo, where
    H is that of f - log q, so that the entropy's part of it is exact. The gradient in mu is that of `pathwise`; that in log sigma
    has no variance where f is quadratic. K evaluations, gradients and Hessians of f.
    Bonnet 1964; Price 1958; Rezende, Mohamed & Wierstra 2014, arXiv:1401.4082, section 3.
    """
    at_least("bonnet_price", 1, samples=samples)
    return Estimator(
        "bonnet_price",
        [Ask.SAMPLE | Ask.GRADIENT | Ask.HESSIAN] * samples,
        draw,
        combine,
        ["normal"],
        kernel="estimators.kernels.bonnet_price:bonnet_price",
        settings={"samples": samples},
        source="arXiv:1401.4082",
    )
