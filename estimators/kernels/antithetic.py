"""Antithetic samples in lanes. arm, disarm, antithetic_normal: the second half of a pair has the same noise, reflected.

ar: what arm merges. arms: the noise of all samples of a coordinate is one draw of a Dirichlet.
"""

from __future__ import annotations

import numpy as np

from estimators.kernels import vmath
from estimators.kernels.backend import Function
from estimators.kernels.base import Form, Lanes
from estimators.kernels.families import LOG_NORM, LOGIT, MU, SIGMA, SURE, P, cut_of
from estimators.kernels.philox import uniform


def pair(at: Lanes) -> Function:
    """`pair(b, b_tilde, tag, c)`: b = 1[1 - u < p], b~ = 1[u < p].

    1 - u is the uniform of the word's complement.
    """
    LAST = np.uint64(0xFFFFFFFF)
    D, L, S, R, words, cut = at.D, at.L, at.S, at.be.real, at.words, cut_of(at.be, at.S)
    ZERO, ONE = R(0), R(1)

    @at.be.jit
    def pair(b, b_tilde, tag, c):  # type: ignore[no-untyped-def]
        for d in range(D):
            words(c.buf, d, tag, c)
            shared = cut(c.par, d, 0)
            for l in range(L):
                word, below = np.uint64(c.buf[l]), cut(c.par, d, l) if S else shared
                b[d, l] = ONE if LAST - word < below else ZERO
                b_tilde[d, l] = ONE if word < below else ZERO

    return pair


def difference(at: Lanes, samples: int, scale: float) -> Function:
    """`difference(x, r, k, c)`: pair k in x[0], x[1], both credited; r[0] = scale (f(b) - f(b~)); r[1], r[2] are used."""
    L, R, f, credit = at.L, at.be.real, at.f, at.credit
    draw, share, times = pair(at), R(1 / samples), R(scale)

    @at.be.jit
    def difference(x, r, k, c):  # type: ignore[no-untyped-def]
        r[2, :] = share
        draw(x[0], x[1], k, c)
        f(r[0], x[0], c)
        f(r[1], x[1], c)
        credit(x[0], r[2], c)
        credit(x[1], r[2], c)
        for l in range(L):
            r[0, l] = times * (r[0, l] - r[1, l])

    return difference


def disarm(samples: int) -> Form:
    """g_d = mean over pairs of 1/2 (f(b) - f(b~)) (-1)^{b~_d} 1[b_d != b~_d] sigmoid(|theta_d|)."""
    m = samples // 2

    def build(at: Lanes) -> Function:
        D, L, S, ZERO, differ = at.D, at.L, at.S, at.be.real(0), difference(at, samples, 0.5 / m)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            g[:] = ZERO
            for k in range(m):
                differ(x, r, k, c)
                for d in range(D):
                    for l in range(L):
                        g[d, l] += r[0, l] * (x[0, d, l] - x[1, d, l]) * c.par[SURE, d, S * l]

        return estimate

    return Form(2, 3, build, families=("bernoulli",))


def arm(samples: int) -> Form:
    """g_d = mean over pairs of (f(b) - f(b~)) (u_d - 1/2)."""
    m = samples // 2

    def build(at: Lanes) -> Function:
        D, L, R, words, u, differ = at.D, at.L, at.be.real, at.words, uniform(at.be), difference(at, samples, 1 / m)
        ZERO, HALF = R(0), R(0.5)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            g[:] = ZERO
            for k in range(m):
                differ(x, r, k, c)
                for d in range(D):
                    words(c.buf, d, k, c)
                    for l in range(L):
                        g[d, l] += r[0, l] * (u(c.buf[l]) - HALF)

        return estimate

    return Form(2, 3, build, families=("bernoulli",))


def ar(samples: int) -> Form:
    """g_d = mean over samples of f(b) (1 - 2 u_d)."""

    def build(at: Lanes) -> Function:
        D, L, R, sample, f, words, credit = at.D, at.L, at.be.real, at.q.sample, at.f, at.words, at.credit
        u, one_K, ZERO, ONE, TWO = uniform(at.be), R(1 / samples), R(0), R(1), R(2)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            g[:] = ZERO
            r[1, :] = one_K
            for k in range(samples):
                sample(x[0], e[0], k, c)
                f(r[0], x[0], c)
                credit(x[0], r[1], c)
                for d in range(D):
                    words(c.buf, d, k, c)
                    for l in range(L):
                        g[d, l] += one_K * r[0, l] * (ONE - TWO * u(c.buf[l]))

        return estimate

    return Form(1, 2, build, families=("bernoulli",))


def arms(samples: int, copula: str) -> Form:
    """g_d = 1/(1 - rho_d) 1/(K-1) sum_k (f_k - fbar) (b_kd - p_d), of the Dirichlet copula."""
    assert copula == "dirichlet"
    K = samples

    def build(at: Lanes) -> Function:
        D, L, S, R, f, credit = at.D, at.L, at.S, at.be.real, at.f, at.credit
        draw, factor, shared = coupled(at, K), debias(at, K), L if S else 1
        one_K, one_K_1, ZERO = R(1 / K), R(1 / (K - 1)), R(0)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            draw(x, r, c)
            mean, share, scale = r[K], r[K + 1], r[K + 2]
            mean[:] = ZERO
            share[:] = one_K
            for k in range(K):
                f(r[k], x[k], c)
                credit(x[k], share, c)
                for l in range(L):
                    mean[l] += r[k, l] * one_K
            for k in range(K):
                for l in range(L):
                    r[k, l] = (r[k, l] - mean[l]) * one_K_1
            for d in range(D):
                for l in range(shared):
                    scale[l] = factor(c.par, d, l)
                g[d, :] = ZERO
                for k in range(K):
                    for l in range(L):
                        g[d, l] += r[k, l] * (x[k, d, l] - c.par[P, d, S * l])
                for l in range(L):
                    g[d, l] *= scale[S * l]

        return estimate

    return Form(K, K + 3, build, families=("bernoulli",))


def coupled(at: Lanes, K: int) -> Function:
    """`draw(x, r, c)`: the rarer bit where sum_{j != k} e_j < m^{1/(K-1)} sum_j e_j, e_k = -log u_k; K + 1 rows of r are used.

    sum_{j != k} e_j: those before k, kept in x, and those after k.
    """
    D, L, S, R, words = at.D, at.L, at.S, at.be.real, at.words
    u, log, root_of, shared = uniform(at.be), vmath.log(at.be), root(at, K), L if S else 1
    ZERO, ONE = R(0), R(1)

    @at.be.jit
    def draw(x, r, c):  # type: ignore[no-untyped-def]
        edge = r[K]
        for d in range(D):
            for k in range(K):
                words(c.buf, d, k, c)
                for l in range(L):
                    r[k, l] = -log(u(c.buf[l]))
            for l in range(shared):
                edge[l] = root_of(c.par, d, l)
            for l in range(L):
                whole, after = ZERO, ZERO
                for k in range(K):
                    x[k, d, l] = whole
                    whole += r[k, l]
                few, rare_is_one = edge[S * l] * whole, c.par[LOGIT, d, S * l] < ZERO
                for back in range(K):
                    k = K - 1 - back
                    rare = x[k, d, l] + after < few
                    after += r[k, l]
                    x[k, d, l] = ONE if rare == rare_is_one else ZERO

    return draw


def root(at: Lanes, K: int) -> Function:
    """`root(par, d, l)`: m^{1/(K-1)}, m = min(p, 1 - p), whose logarithm is -log(1 + e^|theta|)."""
    R, exp, one_K_1 = at.be.real, vmath.exp(at.be), at.be.real(1 / (K - 1))
    ZERO = R(0)

    @at.be.jit
    def root(par, d, l):  # type: ignore[no-untyped-def]
        theta, norm = par[LOGIT, d, l], par[LOG_NORM, d, l]
        return exp(-(norm if theta > ZERO else norm - theta) * one_K_1)

    return root


def debias(at: Lanes, K: int) -> Function:
    """`factor(par, d, l)`: 1 / (1 - rho_d) = (1 - m) / (1 - max(2 - m^{-1/(K-1)}, 0)^{K-1})."""
    R, root_of = at.be.real, root(at, K)
    ZERO, ONE, TWO = R(0), R(1), R(2)

    @at.be.jit
    def factor(par, d, l):  # type: ignore[no-untyped-def]
        one = TWO - ONE / root_of(par, d, l)
        one = one if one > ZERO else ZERO
        both = ONE
        for _ in range(K - 1):
            both *= one
        return par[SURE, d, l] / (ONE - both)

    return factor


def antithetic_normal(samples: int) -> Form:
    """g = mean over pairs of 1/2 [(dx/dtheta)' grad f(x) + (dx~/dtheta)' grad f(x~)], x, x~ = mu +- sigma eps."""
    m = samples // 2

    def build(at: Lanes) -> Function:
        D, L, S, R, sample, path, df, credit = at.D, at.L, at.S, at.be.real, at.q.sample, at.q.path, at.df, at.credit
        assert path is not None
        share, ZERO = R(1 / samples), R(0)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            g[:] = ZERO
            r[0, :] = share
            for k in range(m):
                sample(x[0], e[0], k, c)
                for d in range(D):
                    for l in range(L):
                        x[1, d, l] = c.par[MU, d, S * l] - c.par[SIGMA, d, S * l] * e[0, d, l]
                for half in range(2):
                    df(e[0], x[half], c)
                    for d in range(D):
                        for l in range(L):
                            e[0, d, l] *= share
                    path(g, x[half], e[0], c)
                    credit(x[half], r[0], c)

        return estimate

    return Form(2, 1, build, gradient=True, families=("normal",))
