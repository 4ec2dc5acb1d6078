"""RSVI: the path through an accepted proposal of a rejection sampler, and a score term for its acceptance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from estimators.base import Ask, Estimator, Noise, Size, across
from problems.settings import at_least

if TYPE_CHECKING:
    from torch import Tensor

PROPOSALS = 7  # a proposal is refused with a chance of at most 0.0483, at alpha = 1; 0.0483^7 < 1e-9


class Path(NamedTuple):
    """log y of Gamma(a, 1), d log y / d log a along the path of the accepted eps, and d log pi(eps) / d log a, pi its density."""

    log_y: Tensor
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


def path_of(a: Tensor, noise: tuple[Tensor, Tensor, Tensor]) -> Path:
    """y = h(eps; alpha) prod_i u_i^{1 / (a + i)}, i = 0 .. B - 1, alpha = a + B; h = d v^3, pi = Gamma(h; alpha, 1) dh/deps."""
    proposals, chances, u = noise
    log_u = u.log()
    alpha, i = a + len(u), torch.arange(len(u)).to(u).reshape(-1, *[1] * (u.ndim - 1))
    d = alpha - 1 / 3
    eps = accepted(alpha, proposals, chances)
    v = 1 + eps / (9 * d).sqrt()
    log_h = d.log() + 3 * v.log()
    by_v = (v - 1) / v  # -2 d (dv / dalpha) / v
    dlog_h = (1 - 1.5 * by_v) / d
    score = log_h - torch.digamma(alpha) + (alpha - 1 - log_h.exp()) * dlog_h + (0.5 - by_v) / d
    return Path(log_h + (log_u / (a + i)).sum(0), a * (dlog_h - (log_u / (a + i) ** 2).sum(0)), a * score)


def concentrations(q: Any) -> Tensor:
    """Of the Gamma variables that x is made of: `[(B,) D]`, `[(B,) 2, D]` of Beta or `[(B,) D, C]` of Dirichlet variables."""
    return q.a if q.name == "gamma" else q.theta.exp()


def made_of(q: Any, log_y: Tensor) -> Tensor:
    """x = y / b; y_a / (y_a + y_b); y / sum y; kept inside the support as the families keep it."""
    kind = torch.finfo(log_y.dtype)
    if q.name == "gamma":
        return log_y.exp().clamp(min=kind.tiny) / q.b
    x = log_y.softmax(-1) if q.name == "dirichlet" else (log_y[..., 0, :] - log_y[..., 1, :]).sigmoid()
    return x.clamp(min=kind.tiny, max=1 - kind.eps / 2)


def by_log_y(q: Any, x: Tensor, dfx: Tensor) -> Tensor:
    """df / d log y: x f'; +-x (1 - x) f'; x (f' - x.f')."""
    if q.name == "beta":
        of_a = x * (1 - x) * dfx
        return torch.stack([of_a, -of_a], -2)
    return x * (dfx - (x * dfx).sum(-1, keepdim=True)) if q.name == "dirichlet" else x * dfx


def draw(q: Any, noise: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """x_k ~ q of Gamma variables drawn by rejection; x: [K, ..., *event]."""
    return made_of(q, path_of(concentrations(q), noise).log_y)


def combine(q: Any, noise: tuple[Tensor, Tensor, Tensor], x: Tensor, fx: Tensor, dfx: Tensor) -> Tensor:
    """g = 1/K sum_k [f'(x_k) dx_k/dtheta + f(x_k) d log pi(eps_k) / dtheta]; pi / N(0, 1) is q / r in the paper's letters.

    The rate of a Gamma variable has the path alone, dx/dlog b = -x.
    """
    path, along = path_of(concentrations(q), noise), by_log_y(q, x, dfx)
    g = (along * path.slope + across(fx, path.score) * path.score).mean(0)
    return torch.stack([g, -along.mean(0)], -2) if q.name == "gamma" else g


def proposals_and_chances(samples: int, augmentation: int, size: Size) -> list[Noise]:
    """Of every concentration: 7 proposals and the uniforms that accept them, and the uniforms of the augmentation."""
    event = size.event if size.family.name == "gamma" else size.theta
    return [
        Noise("normal", (PROPOSALS, samples), event),
        Noise("uniform", (PROPOSALS, samples), event),
        Noise("uniform", (augmentation, samples), event),
    ]


def rejection_reparameterisation(samples: int = 1, augmentation: int = 1) -> Estimator:
    """RSVI: the path through the accepted proposal of Marsaglia and Tsang, and a score term for its being accepted.

    For factorised Gamma variables, and for Beta and Dirichlet variables, which are made of them; assumes f differentiable. They
    are drawn at concentrations a + B, B the augmentation, where almost every proposal is accepted, and brought back by B uniforms:
    the score term, which depends on f's value and on any constant added to it, falls with B. Unbiased for Expectation and Elbo
    (the path derivative of f - log q, as `pathwise`); K evaluations and gradients of f. Of 7 proposals none is accepted with a
    chance below 1e-9; then their mode stands for it.
    Naesseth, Ruiz, Linderman & Blei, AISTATS 2017, arXiv:1610.05683; Marsaglia & Tsang 2000.
    """
    at_least("rejection_reparameterisation", 1, samples=samples, augmentation=augmentation)
    return Estimator(
        "rejection_reparameterisation",
        [Ask.SAMPLE | Ask.GRADIENT] * samples,
        draw,
        combine,
        ["gamma", "beta", "dirichlet"],
        noise=lambda size: proposals_and_chances(samples, augmentation, size),
        settings={"samples": samples, "augmentation": augmentation},
        source="arXiv:1610.05683",
    )
