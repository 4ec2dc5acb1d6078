"""The log joint of Bayesian logistic regression over lanes; z_i = w.x_i.

    f(w) = sum_i y_i z_i - softplus(z_i) - 1/2 |w|^2 - D/2 log(2 pi)

A matrix product of the data and the lanes' weights, in tiles of 4 x 4 numbers of the data held in registers, over 16 patients at
a time, which keeps in the first cache what a tile meets. Of a sum of softplus(z) = max(z, 0) + log(1 + e^-|z|) the
logarithms are taken together, as that of a product of 64 numbers between 1 and 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from problems.lanes import LaneModel

if TYPE_CHECKING:
    from problems.lanes import Kit

Function = Callable[..., Any]
TILE, PATIENTS, TOGETHER = 4, 16, 64  # rows of a tile, of a band, of a product
WIDEST = 128  # lanes whose weights are 32 KiB


def logistic_lanes(rows: np.ndarray, y: np.ndarray) -> Callable[[Kit], LaneModel]:
    """Lane model of the data `[N, D]` and labels `[N]`, which c.table holds side by side, filled up with rows of nil.

    A row of nil gives f -log 2, which is taken off. Of c.room: logits `[N]` and the prior at a begun point; sums and products
    of 64 patients; a band of logits or residuals.
    """
    N, D = rows.shape
    M = -(-N // PATIENTS) * PATIENTS
    table = np.zeros((M, D + 1))
    table[:N, :D], table[:N, D] = rows, y
    FILLED = (M - N) * math.log(2) - 0.5 * D * math.log(2 * math.pi)

    def lanes(kit: Kit) -> LaneModel:
        R, L, exp, log, sigmoid = kit.real, kit.L, kit.exp, kit.log, kit.sigmoid
        ZERO, ONE, HALF, CONSTANT = R(0), R(1), R(0.5), R(FILLED)
        START = (D - 1) % TILE + 1  # columns before the first tile, one to four
        PRIOR, LINEAR, PRODUCT, BAND = M, M + 1, M + 2, M + 3  # rows of c.room

        @kit.jit
        def four_by_four(z, i, x, d, T, n):  # type: ignore[no-untyped-def]
            """z_i += sum of four w_d x_nd, of four patients."""
            a0, a1, a2, a3 = T[n, d], T[n, d + 1], T[n, d + 2], T[n, d + 3]
            b0, b1, b2, b3 = T[n + 1, d], T[n + 1, d + 1], T[n + 1, d + 2], T[n + 1, d + 3]
            c0, c1, c2, c3 = T[n + 2, d], T[n + 2, d + 1], T[n + 2, d + 2], T[n + 2, d + 3]
            d0, d1, d2, d3 = T[n + 3, d], T[n + 3, d + 1], T[n + 3, d + 2], T[n + 3, d + 3]
            for l in range(L):
                w0, w1, w2, w3 = x[d, l], x[d + 1, l], x[d + 2, l], x[d + 3, l]
                z[i, l] = z[i, l] + w0 * a0 + w1 * a1 + w2 * a2 + w3 * a3
                z[i + 1, l] = z[i + 1, l] + w0 * b0 + w1 * b1 + w2 * b2 + w3 * b3
                z[i + 2, l] = z[i + 2, l] + w0 * c0 + w1 * c1 + w2 * c2 + w3 * c3
                z[i + 3, l] = z[i + 3, l] + w0 * d0 + w1 * d1 + w2 * d2 + w3 * d3

        @kit.jit
        def band(z, x, T, n):  # type: ignore[no-untyped-def]
            """z_i = w.x_n, of so many patients from n on."""
            for i in range(0, PATIENTS, TILE):
                for t in range(TILE):
                    for l in range(L):
                        u = ZERO
                        for d in range(START):
                            u += x[d, l] * T[n + i + t, d]
                        z[i + t, l] = u
                for d in range(START, D, TILE):
                    four_by_four(z, i, x, d, T, n + i)

        @kit.jit
        def likelihood(out, z, c, n):  # type: ignore[no-untyped-def]
            """out += sum_i y_i z_i - max(z_i, 0) - log prod_i 1 + e^-|z_i|, from 64 patients to 64."""
            linear, product = c.room[LINEAR], c.room[PRODUCT]
            if n % TOGETHER == 0:
                for l in range(L):
                    linear[l] = ZERO
                    product[l] = ONE
            for i in range(PATIENTS):
                y = c.table[n + i, D]
                for l in range(L):
                    u = z[i, l]
                    linear[l] += y * u - (u if u > ZERO else ZERO)
                    product[l] *= ONE + exp(-abs(u))
            if (n + PATIENTS) % TOGETHER == 0 or n + PATIENTS == M:
                for l in range(L):
                    out[l] += linear[l] - log(product[l])

        @kit.jit
        def prior(out, x):  # type: ignore[no-untyped-def]
            """-1/2 |w|^2 - D/2 log(2 pi), and what the rows of nil give too much."""
            out[:] = CONSTANT
            for d in range(D):
                for l in range(L):
                    out[l] -= HALF * x[d, l] * x[d, l]

        @kit.jit
        def f(out, x, c):  # type: ignore[no-untyped-def]
            z = c.room[BAND:]
            prior(out, x)
            for n in range(0, M, PATIENTS):
                band(z, x, c.table, n)
                likelihood(out, z, c, n)

        @kit.jit
        def four_back(g, row, d, r, i, T, n, s0, s1, s2, s3):  # type: ignore[no-untyped-def]
            """g_d, in row and those after it, += sum of four s_n x_nd r_n, of four columns."""
            a0, a1, a2, a3 = s0 * T[n, d], s0 * T[n, d + 1], s0 * T[n, d + 2], s0 * T[n, d + 3]
            b0, b1, b2, b3 = s1 * T[n + 1, d], s1 * T[n + 1, d + 1], s1 * T[n + 1, d + 2], s1 * T[n + 1, d + 3]
            c0, c1, c2, c3 = s2 * T[n + 2, d], s2 * T[n + 2, d + 1], s2 * T[n + 2, d + 2], s2 * T[n + 2, d + 3]
            d0, d1, d2, d3 = s3 * T[n + 3, d], s3 * T[n + 3, d + 1], s3 * T[n + 3, d + 2], s3 * T[n + 3, d + 3]
            for l in range(L):
                r0, r1, r2, r3 = r[i, l], r[i + 1, l], r[i + 2, l], r[i + 3, l]
                g[row, l] = g[row, l] + r0 * a0 + r1 * b0 + r2 * c0 + r3 * d0
                g[row + 1, l] = g[row + 1, l] + r0 * a1 + r1 * b1 + r2 * c1 + r3 * d1
                g[row + 2, l] = g[row + 2, l] + r0 * a2 + r1 * b2 + r2 * c2 + r3 * d2
                g[row + 3, l] = g[row + 3, l] + r0 * a3 + r1 * b3 + r2 * c3 + r3 * d3

        @kit.jit
        def back(g, row, least, r, i, T, n, s0, s1, s2, s3):  # type: ignore[no-untyped-def]
            """g_d += sum of four s_n x_nd r_n, of all columns from `least` on, and of some before it."""
            for d in range(START):
                a, b, e, h = s0 * T[n, d], s1 * T[n + 1, d], s2 * T[n + 2, d], s3 * T[n + 3, d]
                for l in range(L):
                    near = g[row + d, l] + r[i, l] * a + r[i + 1, l] * b
                    g[row + d, l] = near + r[i + 2, l] * e + r[i + 3, l] * h
            for d in range(START, D, TILE):
                if d + TILE > least:
                    four_back(g, row + d, d, r, i, T, n, s0, s1, s2, s3)

        @kit.jit
        def df(out, x, c):  # type: ignore[no-untyped-def]
            """sum_i x_i (y_i - sigmoid(z_i)) - w."""
            r = c.room[BAND:]
            for d in range(D):
                for l in range(L):
                    out[d, l] = -x[d, l]
            for n in range(0, M, PATIENTS):
                band(r, x, c.table, n)
                for i in range(PATIENTS):
                    y = c.table[n + i, D]
                    for l in range(L):
                        r[i, l] = y - sigmoid(r[i, l])
                for i in range(0, PATIENTS, TILE):
                    back(out, 0, 0, r, i, c.table, n + i, ONE, ONE, ONE, ONE)

        @kit.jit
        def begin(x, c):  # type: ignore[no-untyped-def]
            prior(c.room[PRIOR], x)
            for n in range(0, M, PATIENTS):
                band(c.room[n:], x, c.table, n)

        @kit.jit
        def moved(out, x, d, v, c):  # type: ignore[no-untyped-def]
            """z_i + (v - w_d) x_id."""
            z = c.room[BAND:]
            for l in range(L):
                out[l] = c.room[PRIOR, l] + HALF * (x[d, l] * x[d, l] - v[l] * v[l])
            for n in range(0, M, PATIENTS):
                for i in range(PATIENTS):
                    share = c.table[n + i, d]
                    for l in range(L):
                        z[i, l] = c.room[n + i, l] + (v[l] - x[d, l]) * share
                likelihood(out, z, c, n)

        @kit.jit
        def hessian(h, x, c):  # type: ignore[no-untyped-def]
            """-sum_i x_i x_i' sigmoid(z_i) (1 - sigmoid(z_i)) - I: on and above the diagonal, and then below it."""
            T, s = c.table, c.room
            for n in range(0, M, PATIENTS):
                band(s[n:], x, T, n)
            for n in range(M):
                for l in range(L):
                    p = sigmoid(s[n, l])
                    s[n, l] = p * p - p
            for d in range(D):
                for j in range(D):
                    for l in range(L):
                        h[d * D + j, l] = -ONE if d == j else ZERO
                for n in range(0, M, TILE):
                    back(h, d * D, d, s, n, T, n, T[n, d], T[n + 1, d], T[n + 2, d], T[n + 3, d])
                for j in range(d):
                    for l in range(L):
                        h[d * D + j, l] = h[j * D + d, l]

        return LaneModel(
            f, df, begin=begin, moved=moved, table=table, rooms=BAND + PATIENTS, hessian=hessian, widest=WIDEST
        )

    return lanes
