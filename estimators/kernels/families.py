"""Families in lanes: samplers, scores and path derivatives."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from estimators.kernels import vmath
from estimators.kernels.backend import Backend, Function
from estimators.kernels.base import LaneFamily

if TYPE_CHECKING:
    from torch import Tensor

UNIT = 2.0**-32


def uniform(be: Backend) -> Function:
    """(word + 1/2) 2^-32."""

    @be.jit
    def uniform(word):  # type: ignore[no-untyped-def]
        return (np.float64(word) + 0.5) * UNIT

    return uniform


def bernoulli_parameters(theta: Tensor) -> np.ndarray:
    """p; the number of words below p, as u = (word + 1/2) 2^-32 < p exactly; sigmoid(|theta|)."""
    p = theta.sigmoid().numpy()
    return np.stack([p, np.clip(np.ceil(p * 2.0**32 - 0.5), 0, 2.0**32), theta.abs().sigmoid().numpy()])


def bernoulli(be: Backend, words: Function, D: int, L: int) -> tuple[Function, Function, None]:
    """x_d = 1[u < p_d]; score x - p."""

    @be.jit
    def sample(x, e, par, buf, first, tag, key):  # type: ignore[no-untyped-def]
        for d in range(D):
            words(buf, first, d, tag, key)
            cut = np.uint64(par[1, d])
            for l in range(L):
                x[d, l] = 1.0 if np.uint64(buf[l]) < cut else 0.0

    @be.jit
    def score(g, x, par, w):  # type: ignore[no-untyped-def]
        for d in range(D):
            p = par[0, d]
            for l in range(L):
                g[d, l] += w[l] * (x[d, l] - p)

    return sample, score, None


def normals(be: Backend, words: Function, L: int) -> Function:
    """`normals(out, buf, first, event, tag, key)`: Box-Muller of words (0, 1) and of words (2, 3)."""
    Q = L // 4
    u, log, sincos = uniform(be), vmath.log(be), vmath.sincos_turns(be)

    @be.jit
    def normals(out, buf, first, event, tag, key):  # type: ignore[no-untyped-def]
        words(buf, first, event, tag, key)
        for half in range(2):
            a, b = 2 * half * Q, (2 * half + 1) * Q
            for j in range(Q):
                radius = math.sqrt(-2.0 * log(u(buf[a + j])))
                sine, cosine = sincos(u(buf[b + j]))
                out[a + j] = radius * cosine
                out[b + j] = radius * sine

    return normals


def normal_parameters(theta: Tensor) -> np.ndarray:
    """mu; sigma."""
    return np.stack([theta[0].numpy(), theta[1].exp().numpy()])


def normal(be: Backend, words: Function, D: int, L: int) -> tuple[Function, Function, Function]:
    """x = mu + sigma eps; score (eps / sigma, eps^2 - 1); dx/dmu = 1, dx/dlog sigma = x - mu."""
    draw = normals(be, words, L)

    @be.jit
    def sample(x, e, par, buf, first, tag, key):  # type: ignore[no-untyped-def]
        for d in range(D):
            draw(e[d], buf, first, d, tag, key)
            mu, sigma = par[0, d], par[1, d]
            for l in range(L):
                x[d, l] = mu + sigma * e[d, l]

    @be.jit
    def score(g, x, par, w):  # type: ignore[no-untyped-def]
        for d in range(D):
            mu, sigma = par[0, d], par[1, d]
            for l in range(L):
                eps = (x[d, l] - mu) / sigma
                g[d, l] += w[l] * (eps / sigma)
                g[D + d, l] += w[l] * (eps * eps - 1.0)

    @be.jit
    def path(g, x, par, df):  # type: ignore[no-untyped-def]
        for d in range(D):
            mu = par[0, d]
            for l in range(L):
                g[d, l] += df[d, l]
                g[D + d, l] += df[d, l] * (x[d, l] - mu)

    return sample, score, path


FAMILIES = {
    "bernoulli": LaneFamily(1, 0, bernoulli_parameters, bernoulli),
    "normal": LaneFamily(2, 1, normal_parameters, normal),
}
