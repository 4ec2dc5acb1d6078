"""G-REP: a transformation that takes most of theta out of the noise, and a score term for what is left of it there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from estimators.base import Ask, Estimator, across
from problems.settings import at_least

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.gamma import Gamma


def draw(q: Gamma, noise: Tensor) -> Tensor:
    """x_k ~ q, independent; x: [K, ..., D]."""
    return q.sample(noise)


def standardised(q: Gamma, x: Tensor) -> tuple[Tensor, Tensor]:
    """m = d log x / d (log a, log b) with eps = (log x - E log x) / s held fixed, and d log s / d (log a, log b).

    E log x = psi(a) - log b and s^2 = var log x = psi'(a).
    """
    a = q.a
    variance = torch.polygamma(1, a)
    d_log_s = 0.5 * a * torch.polygamma(2, a) / variance
    deviation = x.log() - (torch.digamma(a) - q.theta[..., 1, :])  # s eps
    m = torch.stack([(a * variance).expand(x.shape) + deviation * d_log_s, -torch.ones_like(x)], -2)
    return m, torch.stack([d_log_s, torch.zeros_like(a)], -2)


def generalised_reparameterisation(samples: int = 1) -> Estimator:
    """G-REP: the path of the standardised logarithm, whose law still depends on theta, and a score term that mends it.

    For factorised Gamma variables; assumes f differentiable. Unbiased for Expectation and Elbo (the path derivative of f - log q,
    as `pathwise`). The term in f's value is nil for the rates, and small where the logarithm is nearly Normal, at large
    concentrations; it makes the variance depend on a constant added to f. K evaluations and gradients of f.
    Ruiz, Titsias & Blei, NeurIPS 2016, arXiv:1610.02287.
    """
    at_least("generalised_reparameterisation", 1, samples=samples)

    def combine(q: Gamma, x: Tensor, fx: Tensor, dfx: Tensor) -> Tensor:
        """g = 1/K sum_k [f'(x_k) h(x_k) + f(x_k) (d log q / dx h + d log q / dtheta + u)], x = T(eps; theta),

        h = dT/dtheta = x m and u = d log|dT/deps| / dtheta = m + d log s / dtheta, dT/deps being x s.
        """
        m, d_log_s = standardised(q, x)
        by_x = (q.a - q.b * x).unsqueeze(-2)  # x d log q / dx + 1
        correction = by_x * m + q.local(x) + d_log_s
        along = (x * dfx).unsqueeze(-2) * m
        return (along + across(fx, correction) * correction).mean(0)

    return Estimator(
        "generalised_reparameterisation",
        [Ask.SAMPLE | Ask.GRADIENT] * samples,
        draw,
        combine,
        ["gamma"],
        settings={"samples": samples},
        source="arXiv:1610.02287",
    )
