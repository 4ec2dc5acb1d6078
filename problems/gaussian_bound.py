"""E log sum_k exp(-s y_k) over independent noncentral chi-square y_k: what a bound of several draws of Gaussians comes to."""

from __future__ import annotations

import math

import numpy as np

TAIL = 40.0
ORDER = 20


def slope(noncentrality: float, D: int, K: int, nodes: int, rate: float = 1 / 6) -> float:
    """The derivative in the noncentrality lam, by one quadrature inside another, of `nodes` points each; rate: s > 0.

    V = exp(-s y) has the Laplace transform phi(t) = E exp(-t V), and log s = int_0^inf (exp(-t) - exp(-t s)) dt / t turns the
    expectation over K draws into E log sum_k V_k = int (exp(-t) - phi(t)^K) dt / t. With t = exp(tau), and d p_D / d lam =
    (p_{D+2} - p_D) / 2 for the densities p_D of y,

        d/dlam E log sum_k V_k = -int K phi(t)^(K-1) (phi_{D+2}(t) - phi_D(t)) / 2 dtau.

    The inner integral is a Gauss-Legendre sum in r = sqrt(y), which is within 10 of sqrt(D + lam) but for exp(-TAIL) of its mass;
    the outer one is a trapezoid sum, whose error is exponentially small as its integrand falls off exponentially on both sides.
    Both sum 1 - phi, so that rounding does not grow with K.
    """
    r, width = legendre(max(0.0, math.sqrt(D + noncentrality) - 10), math.sqrt(D + 2 + noncentrality) + 10, nodes)
    tau = _tau(noncentrality, D, nodes, rate)
    kernel = -np.expm1(-np.exp(tau[:, None] - rate * r * r))
    rest, rest_above = (kernel @ (width * density(r, noncentrality, degrees)) for degrees in (D, D + 2))
    power = np.exp((K - 1) * np.log1p(-np.minimum(rest, 1 - 1e-15)))
    return float(-(tau[1] - tau[0]) * np.sum(K * power * (rest - rest_above) / 2))


def _tau(noncentrality: float, D: int, nodes: int, rate: float) -> np.ndarray:
    """From where t E V = exp(-TAIL) to where t V > TAIL but for exp(-TAIL) of the mass (Birge's bound on the tail of y)."""
    log_mean = -D / 2 * math.log1p(2 * rate) - noncentrality * rate / (1 + 2 * rate)
    largest = D + 2 + noncentrality + 2 * math.sqrt(TAIL * (D + 2 + 2 * noncentrality)) + 2 * TAIL
    return np.linspace(-log_mean - TAIL, largest * rate + math.log(TAIL), nodes)


def density(s: np.ndarray, noncentrality: float, D: int) -> np.ndarray:
    """Of s = |N(0, I_D) + a|, |a|^2 = lam: s (s / sqrt lam)^nu exp(-(s^2 + lam) / 2) I_nu(s sqrt lam), nu = D/2 - 1."""
    from scipy.special import gammaln, ive

    nu, a = D / 2 - 1, math.sqrt(max(noncentrality, 1e-200))
    z = a * s
    scaled = ive(nu, z)
    with np.errstate(divide="ignore"):
        log_bessel = np.where(scaled > 1e-280, np.log(scaled), nu * np.log(z / 2) - gammaln(nu + 1) - z)
    return np.asarray(np.exp((nu + 1) * np.log(s) - nu * math.log(a) - 0.5 * (s - a) ** 2 + log_bessel))


def legendre(low: float, high: float, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of Gauss-Legendre rules of ORDER points on equal panels of [low, high], about `nodes` in all."""
    x, w = np.polynomial.legendre.leggauss(ORDER)
    panels = -(-nodes // ORDER)
    width = (high - low) / panels
    left = low + width * np.arange(panels)
    return (left[:, None] + width * (x + 1) / 2).reshape(-1), np.tile(w * width / 2, panels)
