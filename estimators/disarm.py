"""DisARM: REINFORCE on an antithetic pair, with the augmenting noise integrated out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from estimators.base import Estimator, Noise

if TYPE_CHECKING:
    from torch import Tensor


def draw(theta: Tensor, noise: Tensor) -> Tensor:
    """b = 1[1 - u < p] and its antithetic partner b~ = 1[u < p], one uniform per coordinate; x: [2, ..., D]."""
    p = theta.sigmoid()
    return torch.stack([1 - noise < p, noise < p]).to(theta)


def combine(theta: Tensor, x: Tensor, fx: Tensor) -> Tensor:
    """g_d = 1/2 (f(b) - f(b~)) (-1)^{b~_d} 1[b_d != b~_d] sigmoid(|theta_d|)."""
    b, b_tilde = x
    sign = b - b_tilde  # (-1)^{b~} where they differ, else 0
    return 0.5 * (fx[0] - fx[1])[..., None] * sign * theta.abs().sigmoid()


def disarm() -> Estimator:
    """DisARM / U2G for factorised Bernoulli variables with logits theta.

    Unbiased for Expectation and Elbo; two evaluations of f, no gradient of f; never more variance than ARM.
    Dong, Mnih & Tucker, NeurIPS 2020, arXiv:2006.10680; found independently as U2G (Yin et al. 2020, arXiv:2006.06448).
    """
    return Estimator("disarm", 2, draw, combine, ["bernoulli"], noise=[Noise("uniform")], source="arXiv:2006.10680, eq. 7")
