"""Families in lanes: samplers, scores, densities and path derivatives."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from estimators.kernels import vmath
from estimators.kernels.backend import Backend, Function
from estimators.kernels.base import FamilyLanes, LaneFamily, Shape
from estimators.kernels.philox import UNIT, normals, uniform
from estimators.kernels.tally import tile_of

if TYPE_CHECKING:
    from torch import Tensor

HALF_WORD = 2.0**16  # a count of words is kept as two numbers below it, which float32 holds as well
P, CUT_HIGH, CUT_LOW, SURE, LOGIT, LOG_NORM = range(6)  # rows of a Bernoulli's parameters
MU, SIGMA, LOG_SIGMA, INVERSE = range(4)  # of a Normal's
THETA, PROBABILITY, LOG_P = range(3)  # of a categorical's


def words_below(p: np.ndarray, single: bool) -> np.ndarray:
    """The number of words for which u < p, u as the torch form of that precision computes it."""
    if not single:
        return np.clip(np.ceil(p * 2.0**32 - 0.5), 0, 2.0**32)
    low, high = np.zeros(p.shape), np.full(p.shape, 2.0**32)
    for _ in range(33):  # bisection: u grows with the word
        middle = np.floor((low + high) / 2)
        below = np.minimum(((middle + 0.5) * UNIT).astype(np.float32), np.float32(1 - 2.0**-24)) < p.astype(np.float32)
        open_ = low < high
        low, high = np.where(open_ & below, middle + 1, low), np.where(open_ & ~below, middle, high)
    return low


def bernoulli_parameters(theta: Tensor) -> np.ndarray:
    """p; the number of words below p, in two halves; sigmoid(|theta|); theta; log(1 + e^theta): `[..., 6, D]`."""
    import torch

    p = theta.sigmoid().double().numpy()
    cut = words_below(p, theta.dtype == torch.float32)
    norm = torch.nn.functional.softplus(theta).double().numpy()
    sure = theta.abs().sigmoid().double().numpy()
    return np.stack([p, cut // HALF_WORD, cut % HALF_WORD, sure, theta.double().numpy(), norm], -2)


def cut_of(be: Backend, S: int) -> Function:
    """`cut(par, d, l)`: the number of words below p_d."""
    HALF = np.uint64(HALF_WORD)

    @be.jit
    def cut(par, d, l):  # type: ignore[no-untyped-def]
        return np.uint64(par[CUT_HIGH, d, S * l]) * HALF + np.uint64(par[CUT_LOW, d, S * l])

    return cut


def bernoulli(be: Backend, words: Function, shape: Shape, L: int, S: int) -> FamilyLanes:
    """x_d = 1[u < p_d]; score x - p; log q(x) = x theta - log(1 + e^theta)."""
    D, R, cut = shape.D, be.real, cut_of(be, S)
    ZERO, ONE = R(0), R(1)

    @be.jit
    def sample(x, e, tag, c):  # type: ignore[no-untyped-def]
        for d in range(D):
            words(c.buf, d, tag, c)
            shared = cut(c.par, d, 0)
            for l in range(L):
                x[d, l] = ONE if np.uint64(c.buf[l]) < (cut(c.par, d, l) if S else shared) else ZERO

    @be.jit
    def score(g, x, w, c):  # type: ignore[no-untyped-def]
        for d in range(D):
            for l in range(L):
                g[d, l] += w[l] * (x[d, l] - c.par[P, d, S * l])

    def scores(K: int) -> Function:
        @be.jit
        def scores(g, x, w, c):  # type: ignore[no-untyped-def]
            for d in range(D):
                for l in range(L):
                    total, p = ZERO, c.par[P, d, S * l]
                    for k in range(K):
                        total += w[k, l] * (x[k, d, l] - p)
                    g[d, l] = total

        return scores

    @be.jit
    def log_prob(out, x, c):  # type: ignore[no-untyped-def]
        out[:] = ZERO
        for d in range(D):
            for l in range(L):
                out[l] += x[d, l] * c.par[LOGIT, d, S * l] - c.par[LOG_NORM, d, S * l]

    @be.jit
    def slope(v, x, c):  # type: ignore[no-untyped-def]
        for d in range(D):
            for l in range(L):
                v[d, l] -= c.par[LOGIT, d, S * l]

    return FamilyLanes(sample, score, scores, log_prob, slope)


def categorical_parameters(theta: Tensor) -> np.ndarray:
    """theta; p; log p: `[..., 3, D, C]`."""
    rows = [theta, theta.softmax(-1), theta.log_softmax(-1)]
    return np.stack([row.double().numpy() for row in rows], -3)


def categorical(be: Backend, words: Function, shape: Shape, L: int, S: int) -> FamilyLanes:
    """x_d = onehot(argmax_c theta_dc + G_dc), G = -log(-log u); score x - p; log q(x) = x . log p."""
    (D, C), R = shape.event, be.real
    ZERO, ONE = R(0), R(1)
    u, log = uniform(be), vmath.log(be)

    @be.jit
    def gumbel(e, tag, c):  # type: ignore[no-untyped-def]
        for d in range(D):
            for i in range(C):
                words(c.buf, d * C + i, tag, c)
                for l in range(L):
                    e[d, i, l] = -log(-log(u(c.buf[l])))

    @be.jit
    def hard(x, e, c):  # type: ignore[no-untyped-def]
        """The first of the largest, as torch's argmax."""
        for d in range(D):
            for l in range(L):
                best, at = c.par[THETA, d, 0, S * l] + e[d, 0, l], ZERO
                for i in range(1, C):
                    z = c.par[THETA, d, i, S * l] + e[d, i, l]
                    at = R(i) if z > best else at
                    best = z if z > best else best
                for i in range(C):
                    x[d, i, l] = ONE if at == R(i) else ZERO

    @be.jit
    def sample(x, e, tag, c):  # type: ignore[no-untyped-def]
        gumbel(e, tag, c)
        hard(x, e, c)

    @be.jit
    def score(g, x, w, c):  # type: ignore[no-untyped-def]
        for d in range(D):
            for i in range(C):
                for l in range(L):
                    g[d * C + i, l] += w[l] * (x[d, i, l] - c.par[PROBABILITY, d, i, S * l])

    def scores(K: int) -> Function:
        @be.jit
        def scores(g, x, w, c):  # type: ignore[no-untyped-def]
            for d in range(D):
                for i in range(C):
                    for l in range(L):
                        total, p = ZERO, c.par[PROBABILITY, d, i, S * l]
                        for k in range(K):
                            total += w[k, l] * (x[k, d, i, l] - p)
                        g[d * C + i, l] = total

        return scores

    @be.jit
    def log_prob(out, x, c):  # type: ignore[no-untyped-def]
        out[:] = ZERO
        for d in range(D):
            for i in range(C):
                for l in range(L):
                    out[l] += x[d, i, l] * c.par[LOG_P, d, i, S * l]

    @be.jit
    def slope(v, x, c):  # type: ignore[no-untyped-def]
        for d in range(D):
            for i in range(C):
                for l in range(L):
                    v[d, i, l] -= c.par[LOG_P, d, i, S * l]

    return FamilyLanes(sample, score, scores, log_prob, slope)


def normal_parameters(theta: Tensor) -> np.ndarray:
    """mu; sigma; log sigma; 1 / sigma: `[..., 4, D]`."""
    mu, log_sigma = theta[..., 0, :], theta[..., 1, :]
    return np.stack([row.double().numpy() for row in (mu, log_sigma.exp(), log_sigma, 1 / log_sigma.exp())], -2)


def normal(be: Backend, words: Function, shape: Shape, L: int, S: int) -> FamilyLanes:
    """x = mu + sigma eps; score (eps / sigma, eps^2 - 1); dx/dmu = 1, dx/dlog sigma = x - mu."""
    D, T, R, draw = shape.D, tile_of(shape.D), be.real, normals(be, words, L, S)
    assert draw is not None
    ZERO, ONE, HALF, LOG_ROOT_TURN = R(0), R(1), R(0.5), R(0.5 * math.log(2 * math.pi))

    @be.jit
    def sample(x, e, tag, c):  # type: ignore[no-untyped-def]
        for d in range(D):
            draw(e[d], d, tag, c)
            for l in range(L):
                x[d, l] = c.par[MU, d, S * l] + c.par[SIGMA, d, S * l] * e[d, l]

    @be.jit
    def score(g, x, w, c):  # type: ignore[no-untyped-def]
        for d in range(D):
            for l in range(L):
                inverse = c.par[INVERSE, d, S * l]
                eps = (x[d, l] - c.par[MU, d, S * l]) * inverse
                g[d, l] += w[l] * (eps * inverse)
                g[D + d, l] += w[l] * (eps * eps - ONE)

    def scores(K: int) -> Function:
        @be.jit
        def scores(g, x, w, c):  # type: ignore[no-untyped-def]
            for d in range(D):
                for l in range(L):
                    total, spread, inverse = ZERO, ZERO, c.par[INVERSE, d, S * l]
                    for k in range(K):
                        eps = (x[k, d, l] - c.par[MU, d, S * l]) * inverse
                        total += w[k, l] * eps
                        spread += w[k, l] * (eps * eps - ONE)
                    g[d, l] = total * inverse
                    g[D + d, l] = spread

        return scores

    @be.jit
    def path(g, x, v, c):  # type: ignore[no-untyped-def]
        for d in range(D):
            for l in range(L):
                g[d, l] += v[d, l]
                g[D + d, l] += v[d, l] * (x[d, l] - c.par[MU, d, S * l])

    def paths(K: int) -> Function:
        @be.jit
        def paths(g, x, w, v, c):  # type: ignore[no-untyped-def]
            for d in range(D):
                for l in range(L):
                    total, spread = g[d, l], g[D + d, l]
                    for k in range(K):
                        moved = w[k, l] * v[k, d, l]
                        total += moved
                        spread += moved * (x[k, d, l] - c.par[MU, d, S * l])
                    g[d, l] = total
                    g[D + d, l] = spread

        return paths

    @be.jit
    def log_prob(out, x, c):  # type: ignore[no-untyped-def]
        out[:] = ZERO
        for tile in range(D // T):
            for l in range(L):
                total = out[l]
                for d in range(tile * T, (tile + 1) * T):
                    eps = (x[d, l] - c.par[MU, d, S * l]) * c.par[INVERSE, d, S * l]
                    total -= HALF * eps * eps + c.par[LOG_SIGMA, d, S * l] + LOG_ROOT_TURN
                out[l] = total

    @be.jit
    def slope(v, x, c):  # type: ignore[no-untyped-def]
        for d in range(D):
            for l in range(L):
                inverse = c.par[INVERSE, d, S * l]
                v[d, l] += (x[d, l] - c.par[MU, d, S * l]) * inverse * inverse

    @be.jit
    def curve(h, x, c):  # type: ignore[no-untyped-def]
        for d in range(D):
            for l in range(L):
                inverse = c.par[INVERSE, d, S * l]
                h[d * D + d, l] += inverse * inverse

    return FamilyLanes(sample, score, scores, log_prob, slope, path, curve, paths)


FAMILIES = {
    "bernoulli": LaneFamily(bernoulli_parameters, bernoulli),
    "categorical": LaneFamily(categorical_parameters, categorical),
    "normal": LaneFamily(normal_parameters, normal, keyed=False),
}
