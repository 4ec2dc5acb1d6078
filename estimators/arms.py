"""ARMS: REINFORCE on samples that are jointly antithetic by a Dirichlet copula, with leave-one-out baselines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from estimators.base import Estimator, Noise

if TYPE_CHECKING:
    from torch import Tensor


def others(noise: Tensor) -> Tensor:
    """sum_{j != k} e_j for each k, added up without e_k, so that a small sum beside a large e_k keeps its digits."""
    K = len(noise)
    return torch.tensordot(1 - torch.eye(K).to(noise), noise, 1)


def root(theta: Tensor, samples: int) -> Tensor:
    """m^{1/(K-1)}, m = min(p, 1 - p) = sigmoid(-|theta|)."""
    return (-theta.abs()).sigmoid().pow(1 / (samples - 1))


def draw(theta: Tensor, noise: Tensor) -> Tensor:
    """b_k = 1[u_k < p] where p < 1/2, else 1[1 - u_k < p]; u_k = (1 - d_k)^{K-1}, d = e / sum_j e_j; x: [K, ..., D].

    d ~ Dirichlet(1, ..., 1), so that u_k is uniform, and few u_k are small together. The rarer bit is drawn where u_k < m, which
    is where sum_{j != k} e_j < m^{1/(K-1)} sum_j e_j.
    """
    rare = others(noise) < root(theta, len(noise)) * noise.sum(0)
    return torch.where(theta < 0, rare, ~rare).to(theta)


def debias(theta: Tensor, samples: int) -> Tensor:
    """1 / (1 - rho_d) = p (1 - p) / (p - P(b_kd = b_jd = 1)), rho_d the correlation of two samples' bits.

    P(u_k < m, u_j < m) = J(m) = max(2 m^{1/(K-1)} - 1, 0)^{K-1}, and p - P(b_kd = b_jd = 1) = m - J(m) on either side of 1/2.
    Divided by m, so that no p is too small: (1 - m) / (1 - max(2 - m^{-1/(K-1)}, 0)^{K-1}).
    """
    both = (2 - 1 / root(theta, samples)).clamp(min=0).pow(samples - 1)
    return theta.abs().sigmoid() / (1 - both)


def combine(theta: Tensor, x: Tensor, fx: Tensor) -> Tensor:
    """g_d = 1/(1 - rho_d) 1/(K-1) sum_k (f_k - fbar) (b_kd - p_d)."""
    K = len(fx)
    return debias(theta, K) / (K - 1) * ((fx - fx.mean(0))[..., None] * (x - theta.sigmoid())).sum(0)


def arms(samples: int = 4) -> Estimator:
    """ARMS for factorised Bernoulli variables with logits theta: K samples, any two of them antithetic in every coordinate.

    Unbiased for Expectation and Elbo; K >= 2 evaluations of f, no gradient of f. Of two samples it is DisARM in law; beside
    DisARM on K / 2 independent pairs every sample is weighed against all the others. The copula is the Dirichlet one (ARMS-D).
    Dimitriev & Zhou, ICML 2021, arXiv:2105.14141.
    """
    if samples < 2:
        raise ValueError(f"arms[samples={samples}]: samples are antithetic to one another, so there must be at least 2")
    return Estimator(
        "arms",
        samples,
        draw,
        combine,
        ["bernoulli"],
        noise=[Noise("exponential", (samples,))],
        kernel="estimators.kernels.antithetic:arms",
        settings={"samples": samples},
        source="arXiv:2105.14141",
    )
