"""The log joint of a network of one hidden layer, over lanes; the formulas are those of `problems.belief_network`.

    f(h) = sum_j h_j t_j - softplus(t_j) + sum_i v_i z_i - softplus(z_i),   z = h W + b

The matrix is met in tiles of 4 x 4 weights held in registers. Of a sum of softplus(z) = max(z, 0) + log(1 + e^-|z|) the logarithms
are taken together, as that of a product of 64 numbers between 1 and 2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from problems.lanes import LaneModel

if TYPE_CHECKING:
    from problems.lanes import Kit

Function = Callable[..., Any]
TILE = 4


def network_lanes(V: int, H: int) -> Callable[[Kit], LaneModel]:
    """Lane model of V pixels, a multiple of 4 and at most 64, under H hidden bits; model: W `[H, V]`, b `[V]`, t `[H]`.

    Of c.room: the logits at a begun point `[V]` and its sum over the hidden bits; then logits, or residuals, and their products.
    """

    def lanes(kit: Kit) -> LaneModel:
        R, L, S, exp, log, sigmoid, softplus = kit.real, kit.L, kit.S, kit.exp, kit.log, kit.sigmoid, kit.softplus
        ZERO, ONE = R(0), R(1)
        BIAS, TOP = H * V, H * V + V
        START = (H - 1) % TILE + 1  # hidden bits before the first tile, one to four
        KEPT, WORK = V, V + 1  # rows of c.room
        PRODUCT = WORK + V

        @kit.jit
        def four_by_four(z, x, W, i, j):  # type: ignore[no-untyped-def]
            """z_i += sum of four h_j W_ji, of four pixels."""
            at0 = j * V + i
            at1, at2, at3 = at0 + V, at0 + 2 * V, at0 + 3 * V
            a0, a1, a2, a3 = W[at0], W[at0 + 1], W[at0 + 2], W[at0 + 3]
            b0, b1, b2, b3 = W[at1], W[at1 + 1], W[at1 + 2], W[at1 + 3]
            c0, c1, c2, c3 = W[at2], W[at2 + 1], W[at2 + 2], W[at2 + 3]
            d0, d1, d2, d3 = W[at3], W[at3 + 1], W[at3 + 2], W[at3 + 3]
            for l in range(L):
                h0, h1, h2, h3 = x[j, l], x[j + 1, l], x[j + 2, l], x[j + 3, l]
                z[i, l] = z[i, l] + h0 * a0 + h1 * b0 + h2 * c0 + h3 * d0
                z[i + 1, l] = z[i + 1, l] + h0 * a1 + h1 * b1 + h2 * c1 + h3 * d1
                z[i + 2, l] = z[i + 2, l] + h0 * a2 + h1 * b2 + h2 * c2 + h3 * d2
                z[i + 3, l] = z[i + 3, l] + h0 * a3 + h1 * b3 + h2 * c3 + h3 * d3

        @kit.jit
        def logits(z, x, c):  # type: ignore[no-untyped-def]
            """z = h W + b."""
            W = c.model
            for i in range(0, V, TILE):
                for t in range(i, i + TILE):
                    for l in range(L):
                        u = W[BIAS + t]
                        for j in range(START):
                            u += x[j, l] * W[j * V + t]
                        z[t, l] = u
                for j in range(START, H, TILE):
                    four_by_four(z, x, W, i, j)

        @kit.jit
        def prior(out, x, c):  # type: ignore[no-untyped-def]
            """sum_j h_j t_j - softplus(t_j)."""
            out[:] = ZERO
            for j in range(H):
                t = c.model[TOP + j]
                norm = softplus(t)
                for l in range(L):
                    out[l] += x[j, l] * t - norm

        @kit.jit
        def likelihood(out, z, c):  # type: ignore[no-untyped-def]
            """out += sum_i v_i z_i - softplus(z_i)."""
            product = c.room[PRODUCT]
            product[:] = ONE
            for i in range(V):
                for l in range(L):
                    y = z[i, l]
                    out[l] += c.row[i, S * l] * y - (y if y > ZERO else ZERO)
                    product[l] *= ONE + exp(-abs(y))
            for l in range(L):
                out[l] -= log(product[l])

        @kit.jit
        def residuals(r, x, c):  # type: ignore[no-untyped-def]
            """r_i = v_i - sigmoid(z_i)."""
            logits(r, x, c)
            for i in range(V):
                for l in range(L):
                    r[i, l] = c.row[i, S * l] - sigmoid(r[i, l])

        @kit.jit
        def f(out, x, c):  # type: ignore[no-untyped-def]
            z = c.room[WORK:PRODUCT]
            logits(z, x, c)
            prior(out, x, c)
            likelihood(out, z, c)

        @kit.jit
        def df(out, x, c):  # type: ignore[no-untyped-def]
            """t_j + sum_i W_ji r_i."""
            r = c.room[WORK:PRODUCT]
            residuals(r, x, c)
            for j in range(H):
                t = c.model[TOP + j]
                for l in range(L):
                    out[j, l] = t
                for i in range(0, V, TILE):
                    at = j * V + i
                    w0, w1, w2, w3 = c.model[at], c.model[at + 1], c.model[at + 2], c.model[at + 3]
                    for l in range(L):
                        out[j, l] = out[j, l] + r[i, l] * w0 + r[i + 1, l] * w1 + r[i + 2, l] * w2 + r[i + 3, l] * w3

        @kit.jit
        def credit(m, x, w, c):  # type: ignore[no-untyped-def]
            """h_j r_i for W_ji, r_i for b_i, h_j - sigmoid(t_j) for t_j."""
            r = c.room[WORK:PRODUCT]
            residuals(r, x, c)
            for i in range(V):
                for l in range(L):
                    r[i, l] *= w[l]
                    m[BIAS + i, l] += r[i, l]
            for j in range(H):
                p = sigmoid(c.model[TOP + j])
                for l in range(L):
                    m[TOP + j, l] += w[l] * (x[j, l] - p)
                for i in range(V):
                    for l in range(L):
                        m[j * V + i, l] += x[j, l] * r[i, l]

        @kit.jit
        def begin(x, c):  # type: ignore[no-untyped-def]
            logits(c.room[:V], x, c)
            prior(c.room[KEPT], x, c)

        @kit.jit
        def moved(out, x, d, v, c):  # type: ignore[no-untyped-def]
            """z_i + (v - h_d) W_di."""
            z, t = c.room[WORK:PRODUCT], c.model[TOP + d]
            for l in range(L):
                out[l] = c.room[KEPT, l] + (v[l] - x[d, l]) * t
            for i in range(V):
                weight = c.model[d * V + i]
                for l in range(L):
                    z[i, l] = c.room[i, l] + (v[l] - x[d, l]) * weight
            likelihood(out, z, c)

        return LaneModel(f, df, credit, begin, moved, rooms=PRODUCT + 1)

    return lanes
