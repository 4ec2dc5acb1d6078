"""Measure-valued gradients in lanes: one coordinate of one draw is replaced at a time."""

from __future__ import annotations

import math

from estimators.kernels import vmath
from estimators.kernels.backend import Function
from estimators.kernels.base import INDEX, Form, Lanes
from estimators.kernels.families import INVERSE, MU, SIGMA, P
from estimators.kernels.philox import normals, uniform

RADIUS, MAXWELL, SHRINK = 1 << INDEX, 2 << INDEX, 3 << INDEX  # places of the noise after eps, of indices 1, 2, 3


def measure_valued_normal() -> Form:
    """g_mu = (f+ - f-) / (sigma sqrt(2 pi)); g_log_sigma = f(mu + sigma M) - f(mu + sigma U M).

    With x_d = mu + sigma U M the point is a sample of q, of which each d gives one.
    """

    def build(at: Lanes) -> Function:
        be, D, L, S, R, sample, words = at.be, at.D, at.L, at.S, at.be.real, at.q.sample, at.words
        begin, moved, credit = at.begin, at.moved, at.credit
        draw, u, log = normals(be, words, L, S), uniform(be), vmath.log(be)
        assert draw is not None
        INVERSE_ROOT_TURN, MINUS_TWO, ZERO, share = R(1 / math.sqrt(2 * math.pi)), R(-2), R(0), R(1 / D)

        @be.jit
        def place(v, d, sign, w, c):  # type: ignore[no-untyped-def]
            for l in range(L):
                v[l] = c.par[MU, d, S * l] + sign * c.par[SIGMA, d, S * l] * w[l]

        @be.jit
        def rayleigh(out, d, tag, c):  # type: ignore[no-untyped-def]
            """sqrt(-2 log u)."""
            words(c.buf, d, tag, c)
            for l in range(L):
                out[l] = math.sqrt(MINUS_TWO * log(u(c.buf[l])))

        @be.jit
        def maxwell(out, a, b, d, tag, c):  # type: ignore[no-untyped-def]
            """Double-sided Maxwell: the length of three normals, with the sign of the first."""
            draw(out, d, tag, c)
            draw(a, d, tag + 1, c)
            draw(b, d, tag + 2, c)
            for l in range(L):
                length = math.sqrt(out[l] * out[l] + a[l] * a[l] + b[l] * b[l])
                out[l] = length if out[l] > ZERO else -length

        @be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            sample(x[0], e[0], 0, c)
            begin(x[0], c)
            w, a, b, v = r[0], r[1], r[2], r[3]
            for d in range(D):
                rayleigh(w, d, RADIUS, c)
                place(v, d, R(1), w, c)
                moved(a, x[0], d, v, c)
                place(v, d, R(-1), w, c)
                moved(b, x[0], d, v, c)
                for l in range(L):
                    g[d, l] = (a[l] - b[l]) * (c.par[INVERSE, d, S * l] * INVERSE_ROOT_TURN)
                maxwell(w, a, b, d, MAXWELL, c)
                place(v, d, R(1), w, c)
                moved(a, x[0], d, v, c)
                words(c.buf, d, SHRINK, c)
                for l in range(L):
                    w[l] = u(c.buf[l]) * w[l]
                place(v, d, R(1), w, c)
                moved(b, x[0], d, v, c)
                for l in range(L):
                    g[D + d, l] = a[l] - b[l]
                    w[l] = x[0, d, l]
                    x[0, d, l] = v[l]
                    a[l] = share
                credit(x[0], a, c)
                for l in range(L):
                    x[0, d, l] = w[l]

        return estimate

    return Form(1, 4, build, families=("normal",))


def measure_valued_bernoulli() -> Form:
    """g_d = p_d (1 - p_d) (f(b with b_d = 1) - f(b with b_d = 0)).

    L = mean_d [p_d f(b with b_d = 1) + (1 - p_d) f(b with b_d = 0)]: one of each pair of points is b, so that the weights of b are
    added up, and the model's gradient taken there once.
    """

    def build(at: Lanes) -> Function:
        D, L, S, R, sample = at.D, at.L, at.S, at.be.real, at.q.sample
        begin, moved, credit = at.begin, at.moved, at.credit
        ZERO, ONE, one_D = R(0), R(1), R(1 / D)

        @at.be.jit
        def credit_all(b, whole, other, c):  # type: ignore[no-untyped-def]
            whole[:] = ZERO
            for d in range(D):
                for l in range(L):
                    p, bit = c.par[P, d, S * l], b[d, l]
                    here = p if bit > ZERO else ONE - p
                    whole[l] += here * one_D
                    other[l] = (ONE - here) * one_D
                    b[d, l] = ONE - bit
                credit(b, other, c)
                for l in range(L):
                    b[d, l] = ONE - b[d, l]
            credit(b, whole, c)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            b, on, off, v = x[0], r[0], r[1], r[2]
            sample(b, e[0], 0, c)
            credit_all(b, on, off, c)
            begin(b, c)
            for d in range(D):
                v[:] = ONE
                moved(on, b, d, v, c)
                v[:] = ZERO
                moved(off, b, d, v, c)
                for l in range(L):
                    p = c.par[P, d, S * l]
                    g[d, l] = p * (ONE - p) * (on[l] - off[l])

        return estimate

    return Form(1, 3, build, families=("bernoulli",))
