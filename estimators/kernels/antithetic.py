"""arm and disarm in lanes: the second half of a pair is drawn from the same words, reflected."""

from __future__ import annotations

import numpy as np

from estimators.kernels.backend import Function
from estimators.kernels.base import Form, Lanes
from estimators.kernels.families import SURE, cut_of
from estimators.kernels.philox import uniform


def pair(at: Lanes) -> Function:
    """`pair(b, b_tilde, tag, c)`: b = 1[1 - u < p], b~ = 1[u < p].

    1 - u is the uniform of the word's complement.
    """
    LAST = np.uint64(0xFFFFFFFF)
    D, L, R, words, cut = at.D, at.L, at.be.real, at.words, cut_of(at.be, at.S)
    ZERO, ONE = R(0), R(1)

    @at.be.jit
    def pair(b, b_tilde, tag, c):  # type: ignore[no-untyped-def]
        for d in range(D):
            words(c.buf, d, tag, c)
            for l in range(L):
                word, below = np.uint64(c.buf[l]), cut(c.par, d, l)
                b[d, l] = ONE if LAST - word < below else ZERO
                b_tilde[d, l] = ONE if word < below else ZERO

    return pair


def disarm(samples: int) -> Form:
    """g_d = mean over pairs of 1/2 (f(b) - f(b~)) (-1)^{b~_d} 1[b_d != b~_d] sigmoid(|theta_d|)."""
    m = samples // 2

    def build(at: Lanes) -> Function:
        D, L, S, R, f, credit = at.D, at.L, at.S, at.be.real, at.f, at.credit
        draw, half_m, share, ZERO = pair(at), R(0.5 / m), R(1 / samples), R(0)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            g[:] = ZERO
            r[2, :] = share
            for k in range(m):
                draw(x[0], x[1], k, c)
                f(r[0], x[0], c)
                f(r[1], x[1], c)
                credit(x[0], r[2], c)
                credit(x[1], r[2], c)
                for l in range(L):
                    r[0, l] = half_m * (r[0, l] - r[1, l])
                for d in range(D):
                    for l in range(L):
                        g[d, l] += r[0, l] * (x[0, d, l] - x[1, d, l]) * c.par[SURE, d, S * l]

        return estimate

    return Form(2, 3, build, families=("bernoulli",))


def arm(samples: int) -> Form:
    """g_d = mean over pairs of (f(b) - f(b~)) (u_d - 1/2)."""
    m = samples // 2

    def build(at: Lanes) -> Function:
        D, L, R, f, words, credit = at.D, at.L, at.be.real, at.f, at.words, at.credit
        draw, u, one_m, share, ZERO, HALF = pair(at), uniform(at.be), R(1 / m), R(1 / samples), R(0), R(0.5)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            g[:] = ZERO
            r[2, :] = share
            for k in range(m):
                draw(x[0], x[1], k, c)
                f(r[0], x[0], c)
                f(r[1], x[1], c)
                credit(x[0], r[2], c)
                credit(x[1], r[2], c)
                for l in range(L):
                    r[0, l] = (r[0, l] - r[1, l]) * one_m
                for d in range(D):
                    words(c.buf, d, k, c)
                    for l in range(L):
                        g[d, l] += r[0, l] * (u(c.buf[l]) - HALF)

        return estimate

    return Form(2, 3, build, families=("bernoulli",))
