"""The joint states in lanes: log q of each, the largest of them, and the state of a number.

Rows 0 ... N - 1 of an estimator that enumerates are log q of the N states, read at `S * l`, for they are made once where all
lanes share the parameters; rows N ... 2 N - 1 are what the states are chosen by.
"""

from __future__ import annotations

import numpy as np

from estimators.kernels import vmath
from estimators.kernels.backend import Function
from estimators.kernels.base import Lanes, Shape
from estimators.kernels.families import LOG_NORM, LOG_P, LOGIT
from estimators.kernels.philox import uniform

USED = -1e30  # below every log q that a state is chosen by
STEPS = 1024  # of a unit of log q, as in the torch form: states that are as likely but for rounding are equals


def values(shape: Shape) -> int:
    """C: the values of a site."""
    return shape.event[1] if len(shape.event) == 2 else 2


def number_of_states(shape: Shape) -> int:
    """N: the size of the support."""
    return values(shape) ** shape.D


def listed(at: Lanes) -> Function:
    """`list_all(r, c)`: log q of every state, the last site's value changing fastest."""
    D, S, N, C, lanes = at.D, at.S, number_of_states(at.shape), values(at.shape), at.L if at.S else 1
    ZERO = at.be.real(0)

    @at.be.jit
    def of_bits(r, c):  # type: ignore[no-untyped-def]
        for s in range(N):
            r[s, :] = ZERO
            for d in range(D):
                on = (s >> (D - 1 - d)) & 1
                for l in range(lanes):
                    norm = c.par[LOG_NORM, d, S * l]
                    r[s, l] += c.par[LOGIT, d, S * l] - norm if on else -norm

    @at.be.jit
    def of_categories(r, c):  # type: ignore[no-untyped-def]
        for s in range(N):
            r[s, :] = ZERO
            power = N
            for d in range(D):
                power //= C
                for l in range(lanes):
                    r[s, l] += c.par[LOG_P, d, s // power % C, S * l]

    return of_categories if len(at.shape.event) == 2 else of_bits


def chosen_by(at: Lanes, steps: int = 0) -> Function:
    """`keys(r)`: rows N ... 2 N - 1 are log q in every lane, or the nearest whole number of so many steps of a unit."""
    L, S, R, N = at.L, at.S, at.be.real, number_of_states(at.shape)
    STEPS, ROUND = R(steps), R(1.5 * 2.0 ** (23 if at.be.single else 52))  # adding it leaves the nearest whole number

    @at.be.jit
    def keys(r):  # type: ignore[no-untyped-def]
        for s in range(N):
            for l in range(L):
                r[N + s, l] = (r[s, S * l] * STEPS + ROUND) - ROUND if steps else r[s, S * l]

    return keys


def perturbed(at: Lanes) -> Function:
    """`perturb(r, c)`: rows N ... 2 N - 1 are log q and a Gumbel variable, but for those used."""
    L, S, R, N, words, u, log = (
        at.L,
        at.S,
        at.be.real,
        number_of_states(at.shape),
        at.words,
        uniform(at.be),
        vmath.log(at.be),
    )
    UNUSED = R(USED / 2)

    @at.be.jit
    def perturb(r, c):  # type: ignore[no-untyped-def]
        for s in range(N):
            words(c.buf, s, 0, c)
            for l in range(L):
                key, drawn = r[N + s, l], r[s, S * l] - log(-log(u(c.buf[l])))
                r[N + s, l] = drawn if key > UNUSED else key

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
    L, S, R, N, exp = at.L, at.S, at.be.real, number_of_states(at.shape), vmath.exp(at.be)
    GONE, ZERO = R(USED / 2), R(0)

    @at.be.jit
    def left(out, r):  # type: ignore[no-untyped-def]
        out[:] = ZERO
        for s in range(N):
            for l in range(L):
                out[l] += exp(r[s, S * l]) if r[N + s, l] > GONE else ZERO

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
