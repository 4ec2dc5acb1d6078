"""ARMS: REINFORCE on samples that are jointly antithetic by a copula, with leave-one-out baselines."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from estimators.base import Estimator, Noise
from problems.settings import one_of

if TYPE_CHECKING:
    from torch import Tensor

NODES, WEIGHTS = np.polynomial.legendre.leggauss(48)
FARTHEST = 37.0  # standard deviations, beyond which a probability leaves float64


class Copula(NamedTuple):
    """A joint law of K uniforms u_k, few of which are small together; m = min(p, 1 - p).

    kind: of its noise. rare(theta, noise): 1[u_k < m], `[K, ..., D]`. apart(theta, K): P(u_j >= m | u_k < m), `[..., D]`.
    """

    kind: str
    rare: Callable[[Tensor, Tensor], Tensor]
    apart: Callable[[Tensor, int], Tensor]


def others(noise: Tensor) -> Tensor:
    """sum_{j != k} e_j for each k, added up without e_k, so that a small sum beside a large e_k keeps its digits."""
    K = len(noise)
    return torch.tensordot(1 - torch.eye(K).to(noise), noise, 1)


def root(theta: Tensor, samples: int) -> Tensor:
    """m^{1/(K-1)}, m = min(p, 1 - p) = sigmoid(-|theta|)."""
    return (-theta.abs()).sigmoid().pow(1 / (samples - 1))


def rare_by_dirichlet(theta: Tensor, noise: Tensor) -> Tensor:
    """u_k = (1 - d_k)^{K-1} < m, d = e / sum_j e_j ~ Dirichlet(1, ..., 1): where sum_{j != k} e_j < m^{1/(K-1)} sum_j e_j."""
    return others(noise) < root(theta, len(noise)) * noise.sum(0)


def apart_by_dirichlet(theta: Tensor, samples: int) -> Tensor:
    """1 - J(m) / m, J(m) = P(u_k < m, u_j < m) = max(2 m^{1/(K-1)} - 1, 0)^{K-1}; divided by m term by term."""
    return 1 - (2 - 1 / root(theta, samples)).clamp(min=0).pow(samples - 1)


def rare_by_gaussian(theta: Tensor, noise: Tensor) -> Tensor:
    """u_k = Phi(g_k) < m, g_k = (eps_k - mean of eps) / sqrt(1 - 1/K), of which two have the correlation -1 / (K - 1)."""
    g = (noise - noise.mean(0)) / math.sqrt(1 - 1 / len(noise))
    return g < torch.special.ndtri((-theta.abs()).sigmoid())


def apart_by_gaussian(theta: Tensor, samples: int) -> Tensor:
    """P(g_j >= h | g_k < h) = 2 T(h, a) / m, h = Phi^{-1}(m), T Owen's function, a^2 = (1 - rho) / (1 + rho) = K / (K - 2).

    T(h, a) = 1 / (2 pi) int_0^{atan a} exp(-h^2 / (2 cos^2 t)) dt and m = 1/2 exp(-h^2 / 2) erfcx(|h| / sqrt 2), so that it is
    2 / (pi erfcx(|h| / sqrt 2)) int_0^{atan a} exp(-h^2 tan^2 t / 2) dt: by Gauss-Legendre, as far as the integrand reaches.
    """
    if samples == 2:
        return torch.ones_like(theta)
    h = torch.special.ndtri((-theta.abs()).sigmoid()).abs().clamp(max=FARTHEST)
    last = (9 / h).clamp(max=math.atan(math.sqrt(samples / (samples - 2))))
    nodes, weights = (torch.from_numpy(a).to(theta).reshape(-1, *[1] * theta.ndim) for a in (NODES, WEIGHTS))
    t = last * (1 + nodes) / 2
    integral = last / 2 * (weights * (-0.5 * (h * t.tan()).square()).exp()).sum(0)
    return 2 / math.pi * integral / torch.special.erfcx(h / math.sqrt(2))


COPULAS = {
    "dirichlet": Copula("exponential", rare_by_dirichlet, apart_by_dirichlet),
    "gaussian": Copula("normal", rare_by_gaussian, apart_by_gaussian),
}


def debias(theta: Tensor, samples: int, copula: Copula) -> Tensor:
    """1 / (1 - rho_d) = p (1 - p) / (p - P(b_kd = b_jd = 1)), rho_d the correlation of two samples' bits.

    On either side of 1/2 the denominator is m - P(u_k < m, u_j < m) = m P(u_j >= m | u_k < m): divided by m, no p is too small.
    """
    return theta.abs().sigmoid() / copula.apart(theta, samples)


def arms(samples: int = 4, copula: str = "dirichlet") -> Estimator:
    """ARMS for factorised Bernoulli variables with logits theta: K samples, any two of them antithetic in every coordinate.

    Unbiased for Expectation and Elbo; K >= 2 evaluations of f, no gradient of f. Of two samples it is DisARM in law; beside
    DisARM on K / 2 independent pairs every sample is weighed against all the others. copula: dirichlet (ARMS-D), or gaussian of
    equal correlations -1 / (K - 1) (ARMS-N). Dimitriev & Zhou, ICML 2021, arXiv:2105.14141.
    """
    one_of("arms", tuple(COPULAS), copula=copula)
    if samples < 2:
        raise ValueError(f"arms[samples={samples}]: samples are antithetic to one another, so there must be at least 2")
    law = COPULAS[copula]

    def draw(theta: Tensor, noise: Tensor) -> Tensor:
        """b_k = 1[u_k < p] where p < 1/2, else 1[1 - u_k < p]: the rarer bit is drawn where u_k < m; x: [K, ..., D]."""
        rare = law.rare(theta, noise)
        return torch.where(theta < 0, rare, ~rare).to(theta)

    def combine(theta: Tensor, x: Tensor, fx: Tensor) -> Tensor:
        """g_d = 1/(1 - rho_d) 1/(K-1) sum_k (f_k - fbar) (b_kd - p_d)."""
        K = len(fx)
        return debias(theta, K, law) / (K - 1) * ((fx - fx.mean(0))[..., None] * (x - theta.sigmoid())).sum(0)

    return Estimator(
        "arms",
        samples,
        draw,
        combine,
        ["bernoulli"],
        noise=[Noise(law.kind, (samples,))],
        kernel="estimators.kernels.antithetic:arms" if copula == "dirichlet" else None,
        settings={"samples": samples, "copula": copula},
        source="arXiv:2105.14141",
    )
