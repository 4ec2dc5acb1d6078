"""RSVI: the path through an accepted proposal of a rejection sampler, and a score term for the acceptance."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from estimators.base import Ask, Estimator, Noise, across
from problems.settings import at_least

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.gamma import Gamma

PROPOSALS = 7  # a proposal is refused with a chance of at most 0.0483, at alpha = 1; 0.0483^7 < 1e-9


class Path(NamedTuple):
    """x `[K, ..., D]`, d log x / d log a along the path of the accepted eps, and d log pi(eps) / d log a, pi its density."""

    x: Tensor
    slope: Tensor
    score: Tensor


def accepted(alpha: Tensor, eps: Tensor, u: Tensor) -> Tensor:
    """The first of the proposals eps ~ N(0, 1) that Marsaglia and Tsang accept, alpha >= 1: `[PROPOSALS, ...] -> [...]`.

    log u < eps^2 / 2 + d (1 - v^3 + log v^3), v = 1 + eps / sqrt(9 d) > 0, d = alpha - 1/3. Where none is accepted, with a chance
    below 1e-9, it is eps = 0, which no u refuses.
    """
    d = alpha - 1 / 3
    v = 1 + eps / (9 * d).sqrt()
    log_v = v.clamp(min=torch.finfo(v.dtype).tiny).log()
    passes = (v > 0) & (u.log() < 0.5 * eps**2 + d * (1 - v**3 + 3 * log_v))
    first = passes.to(u).argmax(0, keepdim=True)
    return torch.where(passes.any(0), eps.gather(0, first)[0], 0.0)


def path_of(q: Gamma, noise: tuple[Tensor, Tensor, Tensor]) -> Path:
    """x = h(eps; alpha) prod_i u_i^{1 / (a + i)} / b, i = 0 .. B - 1, alpha = a + B; h = d v^3, pi = Gamma(h; alpha, 1) dh/deps."""
    proposals, chances, u = noise
    a, log_u = q.a, u.log()
    alpha, i = a + len(u), torch.arange(len(u)).to(u).reshape(-1, *[1] * (u.ndim - 1))
    d = alpha - 1 / 3
    eps = accepted(alpha, proposals, chances)
    v = 1 + eps / (9 * d).sqrt()
    log_h = d.log() + 3 * v.log()
    by_v = (v - 1) / v  # -2 d (dv / dalpha) / v
    dlog_h = (1 - 1.5 * by_v) / d
    score = log_h - torch.digamma(alpha) + (alpha - 1 - log_h.exp()) * dlog_h + (0.5 - by_v) / d
    log_y = log_h + (log_u / (a + i)).sum(0)
    x = log_y.exp().clamp(min=torch.finfo(u.dtype).tiny) / q.b
    return Path(x, a * (dlog_h - (log_u / (a + i) ** 2).sum(0)), a * score)


def draw(q: Gamma, noise: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """x_k ~ q by rejection; x: [K, ..., D]."""
    return path_of(q, noise).x


def combine(q: Gamma, noise: tuple[Tensor, Tensor, Tensor], fx: Tensor, dfx: Tensor) -> Tensor:
    """g = 1/K sum_k [f'(x_k) dx_k/dtheta + f(x_k) d log pi(eps_k) / dtheta]; pi / N(0, 1) is q / r in the paper's letters."""
    x, slope, score = path_of(q, noise)
    along = torch.stack([slope, -torch.ones_like(x)], -2) * (x * dfx).unsqueeze(-2)
    correction = torch.stack([score, torch.zeros_like(x)], -2)
    return (along + across(fx, correction) * correction).mean(0)


def rejection_reparameterisation(samples: int = 1, augmentation: int = 1) -> Estimator:
    """RSVI: the path through the accepted proposal of Marsaglia and Tsang, and a score term for its being accepted.

    For factorised Gamma variables; assumes f differentiable. x is drawn at the concentration a + B, B the augmentation, where
    almost every proposal is accepted, and brought back by B uniforms: the score term, which depends on f's value and on any
    constant added to it, falls with B. Unbiased for Expectation and Elbo (the path derivative of f - log q, as `pathwise`); K
    evaluations and gradients of f. Of 7 proposals none is accepted with a chance below 1e-9; then their mode stands for it.
    Naesseth, Ruiz, Linderman & Blei, AISTATS 2017, arXiv:1610.05683; Marsaglia & Tsang 2000.
    """
    at_least("rejection_reparameterisation", 1, samples=samples, augmentation=augmentation)
    return Estimator(
        "rejection_reparameterisation",
        [Ask.SAMPLE | Ask.GRADIENT] * samples,
        draw,
        combine,
        ["gamma"],
        noise=[
            Noise("normal", (PROPOSALS, samples)),
            Noise("uniform", (PROPOSALS, samples)),
            Noise("uniform", (augmentation, samples)),
        ],
        settings={"samples": samples, "augmentation": augmentation},
        source="arXiv:1610.05683",
    )
