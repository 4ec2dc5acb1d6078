"""arm and disarm in lanes: the second half of a pair is drawn from the same words, reflected."""

from __future__ import annotations

import numpy as np

from estimators.kernels.backend import Backend, Function
from estimators.kernels.base import Form, Lanes
from estimators.kernels.families import uniform


def pair(be: Backend, words: Function, D: int, L: int) -> Function:
    """`pair(b, b_tilde, par, buf, first, tag, key)`: b = 1[1 - u < p], b~ = 1[u < p].

    1 - u is the uniform of the word's complement.
    """
    LAST = np.uint64(0xFFFFFFFF)

    @be.jit
    def pair(b, b_tilde, par, buf, first, tag, key):  # type: ignore[no-untyped-def]
        for d in range(D):
            words(buf, first, d, tag, key)
            cut = np.uint64(par[1, d])
            for l in range(L):
                word = np.uint64(buf[l])
                b[d, l] = 1.0 if LAST - word < cut else 0.0
                b_tilde[d, l] = 1.0 if word < cut else 0.0

    return pair


def disarm(samples: int) -> Form:
    """g_d = mean over pairs of 1/2 (f(b) - f(b~)) (-1)^{b~_d} 1[b_d != b~_d] sigmoid(|theta_d|)."""
    m = samples // 2

    def build(at: Lanes) -> Function:
        D, L, f = at.D, at.L, at.f
        draw = pair(at.be, at.words, D, L)

        @at.be.jit
        def estimate(g, x, e, fx, z, par, buf, first, tag, key):  # type: ignore[no-untyped-def]
            g[:] = 0.0
            for k in range(m):
                draw(x[0], x[1], par, buf, first, tag + k, key)
                f(fx[0], x[0])
                f(fx[1], x[1])
                for l in range(L):
                    fx[0, l] = 0.5 * (fx[0, l] - fx[1, l]) / m
                for d in range(D):
                    s = par[2, d]
                    for l in range(L):
                        g[d, l] += fx[0, l] * (x[0, d, l] - x[1, d, l]) * s

        return estimate

    return Form(2, 2, build)


def arm(samples: int) -> Form:
    """g_d = mean over pairs of (f(b) - f(b~)) (u_d - 1/2)."""
    m = samples // 2

    def build(at: Lanes) -> Function:
        D, L, f, words = at.D, at.L, at.f, at.words
        draw, u = pair(at.be, words, D, L), uniform(at.be)

        @at.be.jit
        def estimate(g, x, e, fx, z, par, buf, first, tag, key):  # type: ignore[no-untyped-def]
            g[:] = 0.0
            for k in range(m):
                draw(x[0], x[1], par, buf, first, tag + k, key)
                f(fx[0], x[0])
                f(fx[1], x[1])
                for l in range(L):
                    fx[0, l] = (fx[0, l] - fx[1, l]) / m
                for d in range(D):
                    words(buf, first, d, tag + k, key)
                    for l in range(L):
                        g[d, l] += fx[0, l] * (u(buf[l]) - 0.5)

        return estimate

    return Form(2, 2, build)
