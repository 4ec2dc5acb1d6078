"""The delta method: f expanded to second order at the mean as control variate, for the score function and the pathwise gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from estimators.base import Ask, Estimator, Noise, across

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.normal import Normal

RIDGE = 1e-3


def draw(q: Normal, noise: Tensor) -> Tensor:
    """x_k ~ q, the fresh samples last among them, and the mean mu; x: [K + fresh + 1, ..., D]."""
    samples = q.sample(noise)
    return torch.cat([samples, q.mu.expand_as(samples[:1])])


def times(H: Tensor, d: Tensor) -> Tensor:
    """H d; H: [..., D, D], d: [K, ..., D]."""
    return (H @ d[..., None])[..., 0]


def gradient_of_expansion(q: Normal, slope: Tensor, H: Tensor) -> Tensor:
    """d E[fq] / d (mu, log sigma) = (gamma, diag(H) sigma^2), fq the expansion of f at mu held fixed."""
    return torch.stack([slope, H.diagonal(dim1=-2, dim2=-1) * q.sigma**2], -2)


def regressed(A: Tensor, B: Tensor) -> Tensor:
    """a = sum_i cov(A_i, B_i) / (sum_i var(B_i) + 1e-3) over the parameters i; A, B: [fresh, ..., 2, D] -> [..., 1, 1]."""
    dA, dB = A - A.mean(0), B - B.mean(0)
    covariance, variance = (dA * dB).mean(0), (dB * dB).mean(0)
    return covariance.sum((-2, -1), keepdim=True) / (variance.sum((-2, -1), keepdim=True) + RIDGE)


def check(name: str, samples: int, fresh: int, least: int) -> None:
    """Raises ValueError where there are too few samples of either kind."""
    if samples < 1:
        raise ValueError(f"{name}[samples={samples}]: at least one sample is needed")
    if fresh < least or fresh == 1:
        raise ValueError(
            f"{name}[fresh={fresh}]: the coefficient is regressed on the fresh samples, at least 2 of them"
        )


def delta_method(samples: int = 1, fresh: int = 25) -> Estimator:
    """Score function less f's quadratic expansion at the mean, whose gradient is added back exactly: the delta method.

    For factorised Normal variables with (mu, log sigma); assumes f twice differentiable. Unbiased for Expectation and Elbo: the
    coefficient of the control variate is regressed on `fresh` other samples, for each gradient anew. K + fresh + 1 evaluations of
    f, 1 gradient and 1 Hessian. Paisley, Blei & Jordan 2012, arXiv:1206.6430; Mohamed et al. 2020, arXiv:1906.10652, section 7.
    """
    check("delta_method", samples, fresh, 2)

    def combine(q: Normal, x: Tensor, fx: Tensor, dfx: Tensor, hfx: Tensor) -> Tensor:
        """g = 1/K sum_k [f(x_k) - a fq(x_k)] grad log q(x_k) + a grad E[fq],
        fq(x) = f(mu) + gamma.(x - mu) + 1/2 (x - mu)' H (x - mu)."""
        points, slope, H = x[:-1], dfx[-1], hfx[-1]
        d = points - q.mu
        f_quadratic = fx[-1] + (slope * d).sum(-1) + 0.5 * (d * times(H, d)).sum(-1)
        s = q.local(points)
        A, B = across(fx[:-1], s) * s, across(f_quadratic, s) * s
        a = regressed(A[samples:], B[samples:])
        return (A[:samples] - a * B[:samples]).mean(0) + a * gradient_of_expansion(q, slope, H)

    return Estimator(
        "delta_method",
        [Ask.SAMPLE] * samples + [Ask.VALUE] * fresh + [Ask.VALUE | Ask.GRADIENT | Ask.HESSIAN],
        draw,
        combine,
        ["normal"],
        noise=[Noise("normal", (samples + fresh,))],
        settings={"samples": samples, "fresh": fresh},
        kernel="estimators.kernels.delta_method:delta_method",
        source="arXiv:1206.6430",
    )


def delta_pathwise(samples: int = 1, fresh: int = 0) -> Estimator:
    """Pathwise gradient less that of f's quadratic expansion at the mean, whose mean is added back: RV-RGE, full Hessian.

    For factorised Normal variables with (mu, log sigma); assumes f twice differentiable. Unbiased for Expectation and Elbo (there
    the path derivative, log q's parameters held fixed), for any coefficient: 1 with fresh=0, as published, else regressed on
    `fresh` other samples, for each gradient anew. K + fresh + 1 evaluations and gradients of f, 1 Hessian.
    Miller, Foti, D'Amour & Adams 2017, arXiv:1705.07880.
    """
    check("delta_pathwise", samples, fresh, 0)

    def combine(q: Normal, x: Tensor, dfx: Tensor, hfx: Tensor) -> Tensor:
        """g_mu = 1/K sum_k [f'(x_k) - a (gamma + H (x_k - mu))] + a gamma,
        g_log_sigma = 1/K sum_k (x_k - mu) [f'(x_k) - a (gamma + H (x_k - mu))] + a diag(H) sigma^2."""
        points, slope, H = x[:-1], dfx[-1], hfx[-1]
        d = points - q.mu
        df_quadratic = slope + times(H, d)
        A, B = (torch.stack([df, d * df], -2) for df in (dfx[:-1], df_quadratic))
        a = regressed(A[samples:], B[samples:]) if fresh else 1.0
        return (A[:samples] - a * B[:samples]).mean(0) + a * gradient_of_expansion(q, slope, H)

    return Estimator(
        "delta_pathwise",
        [Ask.SAMPLE | Ask.GRADIENT] * samples
        + [Ask.VALUE | Ask.GRADIENT] * fresh
        + [Ask.VALUE | Ask.GRADIENT | Ask.HESSIAN],
        draw,
        combine,
        ["normal"],
        noise=[Noise("normal", (samples + fresh,))],
        settings={"samples": samples, "fresh": fresh},
        kernel="estimators.kernels.delta_method:delta_pathwise",
        source="arXiv:1705.07880",
    )
