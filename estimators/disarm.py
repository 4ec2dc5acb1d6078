"""DisARM: REINFORCE on antithetic pairs, with the augmenting noise integrated out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from estimators.base import Estimator, Noise

if TYPE_CHECKING:
    from torch import Tensor


def draw(theta: Tensor, noise: Tensor) -> Tensor:
    """m antithetic pairs, the b first: b = 1[1 - u < p], b~ = 1[u < p], one uniform per coordinate; x: [2 m, ..., D]."""
    p = theta.sigmoid()
    return torch.cat([1 - noise < p, noise < p]).to(theta)


def combine(theta: Tensor, x: Tensor, fx: Tensor) -> Tensor:
    """g_d = mean over pairs of 1/2 (f(b) - f(b~)) (-1)^{b~_d} 1[b_d != b~_d] sigmoid(|theta_d|)."""
    (b, b_tilde), (f_b, f_tilde) = x.chunk(2), fx.chunk(2)
    sign = b - b_tilde  # (-1)^{b~} where they differ, else 0
    return (0.5 * (f_b - f_tilde)[..., None] * sign * theta.abs().sigmoid()).mean(0)


def pairs(name: str, samples: int) -> int:
    """m = samples / 2. Raises ValueError where that is not a whole number of pairs."""
    if samples < 2 or samples % 2:
        raise ValueError(f"{name}[samples={samples}]: samples come in antithetic pairs, so their number must be even")
    return samples // 2


def disarm(samples: int = 2) -> Estimator:
    """DisARM / U2G for factorised Bernoulli variables with logits theta, averaged over samples / 2 antithetic pairs.

    Unbiased for Expectation and Elbo; `samples` evaluations of f, no gradient of f; never more variance than ARM.
    Dong, Mnih & Tucker, NeurIPS 2020, arXiv:2006.10680; found independently as U2G (Yin et al. 2020, arXiv:2006.06448).
    """
    m = pairs("disarm", samples)
    return Estimator(
        "disarm",
        samples,
        draw,
        combine,
        ["bernoulli"],
        noise=[Noise("uniform", (m,))],
        kernel="estimators.kernels.antithetic:disarm",
        settings={"samples": samples},
        source="arXiv:2006.10680, eq. 7",
    )
