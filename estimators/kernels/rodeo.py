"""rodeo in lanes: a Stein operator's control variates, by a network at every point that differs from a sample in one site."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from estimators.kernels import vmath
from estimators.kernels.backend import Function
from estimators.kernels.base import Form, Lanes
from estimators.kernels.families import LOGIT, PROBABILITY
from estimators.kernels.relaxation import FAMILIES, entry, one_hot
from estimators.rodeo import LEAK

if TYPE_CHECKING:
    from torch import Tensor

LEARNED = ("W", "a", "w", "o", "alpha", "beta")


class Neighbours(NamedTuple):
    """Of site d of a point x put to its value v, V of them: all that change, or itself, of which every term is nil.

    step(out, df, x, d, v): out += df_d . (v - x_d). chance(out, x, d, v, c): out = q_d(v).
    shift(g, x, d, v, w): g += w (s_d(v) - s_d(x)), s the score.
    """

    V: int
    step: Function
    chance: Function
    shift: Function


def neighbours(at: Lanes) -> Neighbours:
    """Of bits or categories."""
    return of_categories(at) if one_hot(at.shape) else of_bits(at)


def of_bits(at: Lanes) -> Neighbours:
    """The one other value, 1 - x."""
    L, S, R, sigmoid = at.L, at.S, at.be.real, vmath.sigmoid(at.be)
    ONE, TWO = R(1), R(2)

    @at.be.jit
    def step(out, df, x, d, v):  # type: ignore[no-untyped-def]
        for l in range(L):
            out[l] += df[d, l] * (ONE - TWO * x[d, l])

    @at.be.jit
    def chance(out, x, d, v, c):  # type: ignore[no-untyped-def]
        for l in range(L):
            out[l] = sigmoid((ONE - TWO * x[d, l]) * c.par[LOGIT, d, S * l])

    @at.be.jit
    def shift(g, x, d, v, w):  # type: ignore[no-untyped-def]
        for l in range(L):
            g[d, l] += w[l] * (ONE - TWO * x[d, l])

    return Neighbours(1, step, chance, shift)


def of_categories(at: Lanes) -> Neighbours:
    """Every category."""
    C, L, S, R = at.shape.event[-1], at.L, at.S, at.be.real
    ZERO, ONE = R(0), R(1)

    @at.be.jit
    def step(out, df, x, d, v):  # type: ignore[no-untyped-def]
        for i in range(C):
            here = ONE if i == v else ZERO
            for l in range(L):
                out[l] += df[d, i, l] * (here - x[d, i, l])

    @at.be.jit
    def chance(out, x, d, v, c):  # type: ignore[no-untyped-def]
        for l in range(L):
            out[l] = c.par[PROBABILITY, d, v, S * l]

    @at.be.jit
    def shift(g, x, d, v, w):  # type: ignore[no-untyped-def]
        for i in range(C):
            here = ONE if i == v else ZERO
            for l in range(L):
                g[d * C + i, l] += w[l] * (here - x[d, i, l])

    return Neighbours(C, step, chance, shift)


def network(at: Lanes, hidden: int) -> Function:
    """`add(h0, h1, f, rise, w, c)`: (h0, h1) += w (w_out leaky(W (f, rise) + a) + o), w one number."""
    L, leak = at.L, at.be.real(LEAK)
    A, W_0, W_1, O_0, O_1 = (n * hidden + extra for n, extra in ((2, 0), (3, 0), (4, 0), (5, 0), (5, 1)))

    @at.be.jit
    def add(h0, h1, f, rise, w, c):  # type: ignore[no-untyped-def]
        for l in range(L):
            h0[l] += w * c.state[O_0]
            h1[l] += w * c.state[O_1]
        for h in range(hidden):
            of_f, of_rise, a = c.state[2 * h], c.state[2 * h + 1], c.state[A + h]
            to_h0, to_h1 = w * c.state[W_0 + h], w * c.state[W_1 + h]
            for l in range(L):
                unit = f[l] * of_f + a + rise[l] * of_rise
                active = unit if unit > leak * unit else leak * unit
                h0[l] += to_h0 * active
                h1[l] += to_h1 * active

    return add


def rodeo(samples: int, hidden: int, steps: int, lr: float) -> Form:
    """g = 1/K sum_k { [f_k - mean_{j != k} (f_j + alpha A_j h0) + beta A_k h1] s(x_k) + beta S_k }, s = grad log q,

    A_k h = 1/D sum_d sum_v q_d(v) [h_k(x_k with x_kd = v) - h_k(x_k)],
    S_k = 1/D sum_v q_d(v) h1_k(x_k with x_kd = v) [s_d(v) - s_d(x_k)] at site d.
    """
    K, ALPHA = samples, 5 * hidden + 2

    def build(at: Lanes) -> Function:
        D, L, R, sample, score, f, df, credit = at.D, at.L, at.be.real, at.q.sample, at.q.score, at.f, at.df, at.credit
        inputs, of, add = math.prod(at.shape.event), entry(at.be, at.shape), network(at, hidden)
        V, step, chance, shift = neighbours(at)
        one_K, one_K_1, one_D, ZERO = R(1 / K), R(1 / (K - 1)), R(1 / D), R(0)

        @at.be.jit
        def stein(g, x, e, r, k, c):  # type: ignore[no-untyped-def]
            """A_k h0 and A_k h1 into their rows, beta / K S_k into g."""
            A0, A1, rises, work = r[K + k], r[2 * K + k], r[3 * K : 4 * K], r[4 * K :]
            h0, h1, h0_v, h1_v, rise, p = work[0], work[1], work[2], work[3], work[4], work[5]
            each = c.state[ALPHA + 1] * one_K * one_D
            A0[:] = ZERO
            A1[:] = ZERO
            h0[:] = ZERO
            h1[:] = ZERO
            for j in range(K):
                if j != k:
                    rises[j, :] = ZERO
                    for i in range(inputs):
                        slope, here, there = of(e[j], i), of(x[k], i), of(x[j], i)
                        for l in range(L):
                            rises[j, l] += slope[l] * (here[l] - there[l])
                    add(h0, h1, r[j], rises[j], one_K_1, c)
            for d in range(D):
                for v in range(V):
                    h0_v[:] = ZERO
                    h1_v[:] = ZERO
                    for j in range(K):
                        if j != k:
                            for l in range(L):
                                rise[l] = rises[j, l]
                            step(rise, e[j], x[k], d, v)
                            add(h0_v, h1_v, r[j], rise, one_K_1, c)
                    chance(p, x[k], d, v, c)
                    for l in range(L):
                        A0[l] += p[l] * (h0_v[l] - h0[l]) * one_D
                        A1[l] += p[l] * (h1_v[l] - h1[l]) * one_D
                        p[l] *= each * h1_v[l]
                    shift(g, x[k], d, v, p)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            alpha, beta, row = c.state[ALPHA], c.state[ALPHA + 1], r[4 * K]
            g[:] = ZERO
            row[:] = one_K
            for k in range(K):
                sample(x[k], e[k], k, c)
                credit(x[k], row, c)
                f(r[k], x[k], c)
                df(e[k], x[k], c)
            for k in range(K):
                stein(g, x, e, r, k, c)
            for k in range(K):
                for l in range(L):
                    row[l] = r[k, l] + beta * r[2 * K + k, l]
                for j in range(K):
                    if j != k:
                        for l in range(L):
                            row[l] -= (r[j, l] + alpha * r[K + j, l]) * one_K_1
                for l in range(L):
                    row[l] *= one_K
                score(g, x[k], row, c)

        return estimate

    def state(learned: Mapping[str, Tensor]) -> np.ndarray:
        return np.concatenate([learned[name].detach().double().numpy().ravel() for name in LEARNED])

    return Form(K, 4 * K + 6, build, gradient=True, families=FAMILIES, state=state)
