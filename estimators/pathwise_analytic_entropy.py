"""The pathwise gradient of f alone, and the gradient of q's entropy in closed form."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from estimators.base import Ask, Estimator
from estimators.pathwise import draw
from problems.settings import at_least

if TYPE_CHECKING:
    from torch import Tensor


def of_normal(q: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """H = log sigma + 1/2 log 2 pi e."""
    return (q.mu - x) / q.sigma**2, torch.stack([torch.zeros_like(q.mu), torch.ones_like(q.mu)], -2)


def of_gamma(q: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """H = a - log b + log Gamma(a) + (1 - a) psi(a)."""
    a, b = q.a, q.b
    return (a - 1) / x - b, torch.stack([a + a * (1 - a) * torch.polygamma(1, a), -torch.ones_like(b)], -2)


def of_beta(q: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """H = log B(a, b) - (a - 1) psi(a) - (b - 1) psi(b) + (a + b - 2) psi(a + b)."""
    a, b = q.a, q.b
    both = (a + b - 2) * torch.polygamma(1, a + b)
    d_a, d_b = (v * (both - (v - 1) * torch.polygamma(1, v)) for v in (a, b))
    return (a - 1) / x - (b - 1) / (1 - x), torch.stack([d_a, d_b], -2)


def of_dirichlet(q: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """H = sum_c log Gamma(alpha_c) - log Gamma(A) + (A - C) psi(A) - sum_c (alpha_c - 1) psi(alpha_c), A = sum_c alpha_c."""
    alpha, A = q.alpha, q.total
    shared = (A - alpha.shape[-1]) * torch.polygamma(1, A)
    return (alpha - 1) / x, alpha * (shared - (alpha - 1) * torch.polygamma(1, alpha))


def of_von_mises(q: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """H = log 2 pi I_0(kappa) - kappa A, A = I_1 / I_0 and A' = 1 - A / kappa - A^2."""
    kappa, A = q.kappa, q.resultant
    return -kappa * (x - q.mu).sin(), torch.stack([torch.zeros_like(A), kappa * (A - kappa * (1 - A * A))], -2)


def of_weibull(q: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """H = -(log rate) / shape, and what does not depend on the rate."""
    slope = (q.shape - 1) / x - q.rate * q.shape * x ** (q.shape - 1)
    return slope, torch.full_like(q.theta, -1 / q.shape)


ENTROPIES: dict[str, Callable[[Any, Tensor], tuple[Tensor, Tensor]]] = {
    "normal": of_normal,
    "gamma": of_gamma,
    "beta": of_beta,
    "dirichlet": of_dirichlet,
    "von_mises": of_von_mises,
    "weibull": of_weibull,
}


def pathwise_analytic_entropy(samples: int = 1) -> Estimator:
    """The pathwise gradient of f = log p(data, x), and the gradient of q's entropy in closed form.

    Assumes f continuous and differentiable almost everywhere. Of the three pathwise gradients of the bound this has no noise of
    log q, and no variance where f is flat; where q is the posterior, `pathwise`, the path derivative of f - log q, has none,
    and this one varies as `pathwise_total` does. The prior's part of f is not taken out of it, so that it is not the analytic
    KL. Unbiased for Elbo; K evaluations and gradients of f.
    Kingma & Welling 2014, arXiv:1312.6114, section 3; compared by Roeder et al. 2017, arXiv:1703.09194.
    """
    at_least("pathwise_analytic_entropy", 1, samples=samples)

    def combine(q: Any, x: Tensor, dfx: Tensor, share: float) -> Tensor:
        """g = 1/K sum_k (dx_k/dtheta)' grad f(x_k) + grad H, grad f = grad [f - log q] + grad log q."""
        slope, of_entropy = ENTROPIES[q.name](q, x)
        return q.path(x, (dfx + share * slope) / samples) + share * of_entropy

    return Estimator(
        "pathwise_analytic_entropy",
        [Ask.SAMPLE | Ask.GRADIENT] * samples,
        draw,
        combine,
        list(ENTROPIES),
        {"Elbo": "unbiased"},
        settings={"samples": samples},
        source="arXiv:1312.6114",
    )
