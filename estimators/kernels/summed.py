"""Sites summed with their probabilities, in lanes: indecater, and stochastic_ad's alternatives to a draw."""

from __future__ import annotations

from estimators.kernels import vmath
from estimators.kernels.backend import Function
from estimators.kernels.base import INDEX, Form, Lanes
from estimators.kernels.enumeration import values
from estimators.kernels.families import LOG_NORM, PROBABILITY, P
from estimators.kernels.philox import uniform

KEPT = 1 << INDEX  # place of the uniform that says which alternative is kept


def indecater(samples: int, fresh: str) -> Form:
    """g_d = sum_v F_dv grad q_d(v), F_dv = 1/K sum_k f(z with z_d = v), z drawn for each k, d (and v).

    L = mean_d sum_v q_d(v) F_dv: a point is credited with q_d(v) / (K D).
    """
    own = fresh == "value"

    def build(at: Lanes) -> Function:
        D, L, R, sample, f, credit, C = at.D, at.L, at.be.real, at.q.sample, at.f, at.credit, values(at.shape)
        put, finish = at_value(at), slope_of_values(at)
        ZERO, one_K, one_KD = R(0), R(1 / samples), R(1 / (samples * D))
        chance = probability_of_value(at)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            z, fz, share = x[0], r[C], r[C + 1]
            for d in range(D):
                for v in range(C):
                    r[v, :] = ZERO
                for k in range(samples):
                    for v in range(C):
                        if own:
                            sample(z, e[0], (k * C + v) * D + d, c)
                        elif v == 0:
                            sample(z, e[0], k * D + d, c)
                        put(z, d, v)
                        f(fz, z, c)
                        for l in range(L):
                            r[v, l] += fz[l] * one_K
                            share[l] = one_KD * chance(c.par, d, v, l)
                        credit(z, share, c)
                finish(g, d, r, c)

        return estimate

    return Form(1, lambda shape: values(shape) + 2, build, families=("bernoulli", "categorical"))


def at_value(at: Lanes) -> Function:
    """`put(x, d, v)`: site d of every lane at value v."""
    L, R, C = at.L, at.be.real, values(at.shape)
    ZERO, ONE = R(0), R(1)

    @at.be.jit
    def bit(x, d, v):  # type: ignore[no-untyped-def]
        for l in range(L):
            x[d, l] = R(v)

    @at.be.jit
    def one_hot(x, d, v):  # type: ignore[no-untyped-def]
        for i in range(C):
            entry = ONE if i == v else ZERO
            for l in range(L):
                x[d, i, l] = entry

    return one_hot if len(at.shape.event) == 2 else bit


def probability_of_value(at: Lanes) -> Function:
    """`chance(par, d, v, l)`: q_d(v); 1 - p of a bit is e^{-log(1 + e^theta)}."""
    S, exp = at.S, vmath.exp(at.be)

    @at.be.jit
    def of_bit(par, d, v, l):  # type: ignore[no-untyped-def]
        return par[P, d, S * l] if v == 1 else exp(-par[LOG_NORM, d, S * l])

    @at.be.jit
    def of_category(par, d, v, l):  # type: ignore[no-untyped-def]
        return par[PROBABILITY, d, v, S * l]

    return of_category if len(at.shape.event) == 2 else of_bit


def slope_of_values(at: Lanes) -> Function:
    """`finish(g, d, F, c)`: g_d = sum_v F_v grad q_d(v): p (1 - p) (F_1 - F_0); p_c (F_c - sum_v p_v F_v)."""
    L, S, C, ZERO, chance = at.L, at.S, values(at.shape), at.be.real(0), probability_of_value(at)

    @at.be.jit
    def of_bit(g, d, F, c):  # type: ignore[no-untyped-def]
        for l in range(L):
            g[d, l] = chance(c.par, d, 1, l) * chance(c.par, d, 0, l) * (F[1, l] - F[0, l])

    @at.be.jit
    def of_category(g, d, F, c):  # type: ignore[no-untyped-def]
        mean = F[C]
        mean[:] = ZERO
        for v in range(C):
            for l in range(L):
                mean[l] += c.par[PROBABILITY, d, v, S * l] * F[v, l]
        for v in range(C):
            for l in range(L):
                g[d * C + v, l] = c.par[PROBABILITY, d, v, S * l] * (F[v, l] - mean[l])

    return of_category if len(at.shape.event) == 2 else of_bit


def stochastic_ad(keep: str, side: str) -> Form:
    """Bits: g_d = +-w_d (f(z with z_d turned) - f(z)), w_d = right p where z_d = 0, left (1 - p) where z_d = 1.

    one: of a single d, with probability w_d / W, and W = sum_d w_d for its w_d. smoothed: g_d = w_d df/dx_d(z).
    """
    shares = {"right": (1.0, 0.0), "left": (0.0, 1.0), "both": (0.5, 0.5)}[side]
    build = {"one": keep_one, "all": keep_all, "smoothed": keep_slope}[keep]
    points, rows = (2, 4) if keep == "one" else (1, 3)
    return Form(points, rows, lambda at: build(at, *shares), gradient=keep == "smoothed", families=("bernoulli",))


def weight_of(at: Lanes, right: float, left: float) -> Function:
    """`weight(par, bit, d, l)`: right p of a 0, left (1 - p) of a 1."""
    S, R, exp = at.S, at.be.real, vmath.exp(at.be)
    ZERO, RIGHT, LEFT = R(0), R(right), R(left)

    @at.be.jit
    def weight(par, bit, d, l):  # type: ignore[no-untyped-def]
        return LEFT * exp(-par[LOG_NORM, d, S * l]) if bit > ZERO else RIGHT * par[P, d, S * l]

    return weight


def keep_all(at: Lanes, right: float, left: float) -> Function:
    """Every alternative."""
    D, L, sample, f, begin, moved, credit = at.D, at.L, at.q.sample, at.f, at.begin, at.moved, at.credit
    weight, ONE, TWO = weight_of(at, right, left), at.be.real(1), at.be.real(2)

    @at.be.jit
    def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
        z, fz, other, v = x[0], r[0], r[1], r[2]
        sample(z, e[0], 0, c)
        fz[:] = ONE
        credit(z, fz, c)
        f(fz, z, c)
        begin(z, c)
        for d in range(D):
            for l in range(L):
                v[l] = ONE - z[d, l]
            moved(other, z, d, v, c)
            for l in range(L):
                g[d, l] = weight(c.par, z[d, l], d, l) * (other[l] - fz[l]) * (TWO * v[l] - ONE)

    return estimate


def keep_one(at: Lanes, right: float, left: float) -> Function:
    """The first alternative of which the weights up to it reach u W; where W = 0 there is none, and nothing is added."""
    D, L, R, sample, f, credit, words = at.D, at.L, at.be.real, at.q.sample, at.f, at.credit, at.words
    weight, u = weight_of(at, right, left), uniform(at.be)
    ZERO, ONE, TWO = R(0), R(1), R(2)

    @at.be.jit
    def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
        z, y, W, reach, below, fz = x[0], x[1], r[0], r[1], r[2], r[3]
        sample(z, e[0], 0, c)
        W[:] = ZERO
        for d in range(D):
            for l in range(L):
                W[l] += weight(c.par, z[d, l], d, l)
        words(c.buf, 0, KEPT, c)
        for l in range(L):
            reach[l] = u(c.buf[l]) * W[l]
            below[l] = ZERO
        for d in range(D):
            for l in range(L):
                before = below[l] < reach[l]
                below[l] += weight(c.par, z[d, l], d, l)
                here = before and below[l] >= reach[l]
                g[d, l] = (ONE - TWO * z[d, l]) if here else ZERO
                y[d, l] = (ONE - z[d, l]) if here else z[d, l]
        fz[:] = ONE
        credit(z, fz, c)
        f(fz, z, c)
        f(below, y, c)
        for l in range(L):
            W[l] *= below[l] - fz[l]
        for d in range(D):
            for l in range(L):
                g[d, l] *= W[l]

    return estimate


def keep_slope(at: Lanes, right: float, left: float) -> Function:
    """Smoothed: (Y - z)^2 = 1."""
    D, L, sample, df, credit = at.D, at.L, at.q.sample, at.df, at.credit
    weight, ONE = weight_of(at, right, left), at.be.real(1)

    @at.be.jit
    def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
        z, slope = x[0], e[0]
        sample(z, slope, 0, c)
        r[0, :] = ONE
        credit(z, r[0], c)
        df(slope, z, c)
        for d in range(D):
            for l in range(L):
                g[d, l] = weight(c.par, z[d, l], d, l) * slope[d, l]

    return estimate
