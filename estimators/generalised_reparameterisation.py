"""G-REP: a transformation that takes most of theta out of the noise, and a score term for what is left of it there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from estimators.base import Ask, Estimator, across
from problems.settings import at_least

if TYPE_CHECKING:
    from torch import Tensor


class Standardised(NamedTuple):
    """t = log x or logit x, eps = (t - E t) / s: dx/dt, d log q(t) / dt, dt/dtheta with eps held fixed, and d log s / dtheta."""

    slope: Tensor
    by_t: Tensor
    along: Tensor
    d_log_s: Tensor


def draw(q: Any, noise: Tensor) -> Tensor:
    """x_k ~ q, independent; x: [K, ..., D]."""
    return q.sample(noise)


def of_gamma(q: Any, x: Tensor) -> Standardised:
    """t = log x: E t = psi(a) - log b, s^2 = psi'(a)."""
    a = q.a
    variance = torch.polygamma(1, a)
    d_log_s = 0.5 * a * torch.polygamma(2, a) / variance
    off = x.log() - (torch.digamma(a) - q.theta[..., 1, :])
    along = torch.stack([a * variance + off * d_log_s, -torch.ones_like(x)], -2)
    return Standardised(x, a - q.b * x, along, torch.stack([d_log_s, torch.zeros_like(a)], -2))


def of_beta(q: Any, x: Tensor) -> Standardised:
    """t = logit x: E t = psi(a) - psi(b), s^2 = psi'(a) + psi'(b)."""
    a, b = q.a, q.b
    of_a, of_b = torch.polygamma(1, a), torch.polygamma(1, b)
    d_log_s = (
        0.5 * torch.stack([a * torch.polygamma(2, a), b * torch.polygamma(2, b)], -2) / (of_a + of_b).unsqueeze(-2)
    )
    off = x.log() - (-x).log1p() - (torch.digamma(a) - torch.digamma(b))
    along = torch.stack([a * of_a, -b * of_b], -2) + off.unsqueeze(-2) * d_log_s
    return Standardised(x * (1 - x), a * (1 - x) - b * x, along, d_log_s)


FAMILIES = {"gamma": of_gamma, "beta": of_beta}


def generalised_reparameterisation(samples: int = 1) -> Estimator:
    """G-REP: the path of the standardised logarithm or logit, whose law still depends on theta, and a score term that mends it.

    For factorised Gamma (logarithm) and Beta (logit) variables; assumes f differentiable. Unbiased for Expectation and Elbo (the
    path derivative of f - log q, as `pathwise`). The term in f's value is nil for the rates, and small where t is nearly Normal, at
    large concentrations; it makes the variance depend on a constant added to f. K evaluations and gradients of f.
    Ruiz, Titsias & Blei, NeurIPS 2016, arXiv:1610.02287.
    """
    at_least("generalised_reparameterisation", 1, samples=samples)

    def combine(q: Any, x: Tensor, fx: Tensor, dfx: Tensor) -> Tensor:
        """g = 1/K sum_k [f'(x_k) h(x_k) + f(x_k) (d log q / dx h + d log q / dtheta + u)], x = T(eps; theta),

        h = dT/dtheta = dx/dt dt/dtheta, u = d log|dT/deps| / dtheta = d log(dx/dt) / dt dt/dtheta + d log s / dtheta; the terms
        in dt/dtheta together are d log q(t) / dt, q(t) = q(x) dx/dt.
        """
        slope, by_t, along, d_log_s = FAMILIES[q.name](q, x)
        h = slope.unsqueeze(-2) * along
        correction = by_t.unsqueeze(-2) * along + q.local(x) + d_log_s
        return (dfx.unsqueeze(-2) * h + across(fx, correction) * correction).mean(0)

    return Estimator(
        "generalised_reparameterisation",
        [Ask.SAMPLE | Ask.GRADIENT] * samples,
        draw,
        combine,
        list(FAMILIES),
        settings={"samples": samples},
        source="arXiv:1610.02287",
    )
