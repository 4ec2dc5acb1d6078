"""Sites or states summed with their probabilities, in lanes: indecater, sum_and_sample, and stochastic_ad's alternatives."""

from __future__ import annotations

import numpy as np

from estimators.kernels import vmath
from estimators.kernels.backend import Function
from estimators.kernels.base import INDEX, Form, Lanes, Shape
from estimators.kernels.exact import state
from estimators.kernels.families import LOG_NORM, PROBABILITY, P
from estimators.kernels.philox import uniform

USED = -1e30  # below every log q that a state is chosen by
KEPT = 1 << INDEX  # place of the uniform that says which alternative is kept


def values(shape: Shape) -> int:
    """C: the values of a site."""
    return shape.event[1] if len(shape.event) == 2 else 2


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


def sum_and_sample(samples: int, chosen: str, baseline: bool, states: int) -> Form:
    """g = sum_{z in S} q(z) (f(z) - b) grad log q(z) + (1 - q(S)) (f(z') - b) grad log q(z'), b = sum_S q f / q(S) or 0.

    Rows: log q of every state; what states are chosen by; of each point chosen its number, weight and f; and two to work in.
    """
    K, drawn = samples, chosen == "drawn"

    def build(at: Lanes) -> Function:
        L, R, f, score, credit, N = at.L, at.be.real, at.f, at.q.score, at.credit, number_of_states(at.shape)
        list_all, perturb, largest, left, put = (
            listed(at),
            perturbed(at),
            first_of_largest(at),
            mass_left(at),
            placed(at),
        )
        log_prob, exp, ZERO = at.q.log_prob, vmath.exp(at.be), R(0)
        PLACE, WEIGHT, VALUE, MASS, MEAN = 2 * N, 2 * N + K, 2 * N + 2 * K, 2 * N + 3 * K, 2 * N + 3 * K + 1
        FROM = 0 if drawn else K - 1  # the first point that is drawn

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            z, mass, mean = x[0], r[MASS], r[MEAN]
            g[:] = ZERO
            mass[:] = ZERO
            mean[:] = ZERO
            list_all(r, z, c)
            for k in range(K):
                weight, value = r[WEIGHT + k], r[VALUE + k]
                if k == K - 1:
                    left(weight, r)
                if k == FROM:
                    perturb(r, c)
                largest(r, r[PLACE + k], value)
                put(z, r[PLACE + k])
                f(value, z, c)
                if k < K - 1:
                    log_prob(weight, z, c)
                    for l in range(L):
                        weight[l] = exp(weight[l])
                        mass[l] += weight[l]
                        mean[l] += weight[l] * value[l]
            for l in range(L):
                mean[l] = mean[l] / mass[l] if baseline else ZERO
            for k in range(K):
                put(z, r[PLACE + k])
                credit(z, r[WEIGHT + k], c)
                for l in range(L):
                    r[WEIGHT + k, l] *= r[VALUE + k, l] - mean[l]
                score(g, z, r[WEIGHT + k], c)

        return estimate

    return Form(1, lambda shape: 2 * number_of_states(shape) + 3 * K + 2, build, families=("bernoulli", "categorical"))


def number_of_states(shape: Shape) -> int:
    """N: the size of the support."""
    return values(shape) ** shape.D


def listed(at: Lanes) -> Function:
    """`list_all(r, x, c)`: rows 0 ... N - 1 are log q of the states, and rows N ... 2 N - 1 are too."""
    L, N, every, log_prob = at.L, number_of_states(at.shape), state(at), at.q.log_prob

    @at.be.jit
    def list_all(r, x, c):  # type: ignore[no-untyped-def]
        for s in range(N):
            every(x, s)
            log_prob(r[s], x, c)
            for l in range(L):
                r[N + s, l] = r[s, l]

    return list_all


def perturbed(at: Lanes) -> Function:
    """`perturb(r, c)`: a Gumbel variable is added to rows N ... 2 N - 1, of which those used stay far below."""
    L, N, words, u, log = at.L, number_of_states(at.shape), at.words, uniform(at.be), vmath.log(at.be)

    @at.be.jit
    def perturb(r, c):  # type: ignore[no-untyped-def]
        for s in range(N):
            words(c.buf, s, 0, c)
            for l in range(L):
                r[N + s, l] -= log(-log(u(c.buf[l])))

    return perturb


def first_of_largest(at: Lanes) -> Function:
    """`largest(r, place, best)`: the number of the largest of rows N ... 2 N - 1, the first of equals, which is used then."""
    L, R, N = at.L, at.be.real, number_of_states(at.shape)
    GONE, ZERO = R(USED), R(0)

    @at.be.jit
    def largest(r, place, best):  # type: ignore[no-untyped-def]
        for l in range(L):
            best[l] = r[N, l]
            place[l] = ZERO
        for s in range(1, N):
            for l in range(L):
                more = r[N + s, l] > best[l]
                place[l] = R(s) if more else place[l]
                best[l] = r[N + s, l] if more else best[l]
        for s in range(N):
            for l in range(L):
                r[N + s, l] = GONE if place[l] == R(s) else r[N + s, l]

    return largest


def mass_left(at: Lanes) -> Function:
    """`left(out, r)`: the sum of q over the states that are not used."""
    L, R, N, exp = at.L, at.be.real, number_of_states(at.shape), vmath.exp(at.be)
    GONE, ZERO = R(USED / 2), R(0)

    @at.be.jit
    def left(out, r):  # type: ignore[no-untyped-def]
        out[:] = ZERO
        for s in range(N):
            for l in range(L):
                out[l] += exp(r[s, l]) if r[N + s, l] > GONE else ZERO

    return left


def placed(at: Lanes) -> Function:
    """`put(x, place)`: x is in each lane the state of that lane's number, the last site's value changing fastest."""
    D, L, R, C = at.D, at.L, at.be.real, values(at.shape)
    ZERO, ONE = R(0), R(1)

    @at.be.jit
    def bits(x, place):  # type: ignore[no-untyped-def]
        for d in range(D):
            for l in range(L):
                x[d, l] = R((np.int64(place[l]) >> (D - 1 - d)) & 1)

    @at.be.jit
    def one_hot(x, place):  # type: ignore[no-untyped-def]
        power = 1
        for back in range(D):
            for i in range(C):
                for l in range(L):
                    x[D - 1 - back, i, l] = ONE if np.int64(place[l]) // power % C == i else ZERO
            power *= C

    return one_hot if len(at.shape.event) == 2 else bits
