"""DisARM for categories by stick breaking, in lanes: every site's categories laid out by their logits, l_0, ..., l_{C-1}.

Node i is the bit that says whether it is category i, once it is none before: a_i = l_i - A_{i+1}, A_i = log sum_{j >= i} e^{l_j}.
"""

from __future__ import annotations

import numpy as np

from estimators.kernels import vmath
from estimators.kernels.backend import Function
from estimators.kernels.base import Form, Lanes
from estimators.kernels.families import THETA
from estimators.kernels.importance_weighted import log_add
from estimators.kernels.philox import uniform

PLACE, NODE, RANK = range(3)  # of e: the category at every place; a_i; the places of z and of z~


def laid_out(at: Lanes, order: str) -> Function:
    """`lay(e, c)`: e[PLACE, d, i] = the category at place i, e[NODE, d, i] = a_i; at lane 0 alone where all lanes share theta."""
    (D, C), R, shared, join = at.shape.event, at.be.real, at.L if at.S else 1, log_add(at.be)
    ZERO, ONE = R(0), R(1)
    sign = {"ascending": R(1), "descending": R(-1), "given": R(0)}[order]

    @at.be.jit
    def lay(e, c):  # type: ignore[no-untyped-def]
        for d in range(D):
            for a in range(C):
                for l in range(shared):
                    place = ZERO
                    for b in range(C):
                        gap = sign * (c.par[THETA, d, a, l] - c.par[THETA, d, b, l])
                        before = gap >= ZERO if b < a else gap > ZERO
                        place += ONE if before else ZERO
                    for i in range(C):
                        e[PLACE, d, i, l] = R(a) if place == R(i) else e[PLACE, d, i, l]
                        e[NODE, d, i, l] = c.par[THETA, d, a, l] if place == R(i) else e[NODE, d, i, l]
            for l in range(shared):
                after = e[NODE, d, C - 1, l]
                for back in range(C - 1):
                    i = C - 2 - back
                    own = e[NODE, d, i, l]
                    e[NODE, d, i, l] = own - after
                    after = join(own, after)

    return lay


def walked(at: Lanes) -> Function:
    """`walk(x, e, tag, c)`: x[0] = z of the bits 1[1 - u < sigmoid(a)], x[1] = z~ of 1[u < sigmoid(a)]; e[RANK]: their places."""
    LAST_WORD = np.uint64(0xFFFFFFFF)
    (D, C), L, S, R, words, u, sigmoid = (
        at.shape.event,
        at.L,
        at.S,
        at.be.real,
        at.words,
        uniform(at.be),
        vmath.sigmoid(at.be),
    )
    ZERO, ONE, LAST = R(0), R(1), R(C - 1)

    @at.be.jit
    def walk(x, e, tag, c):  # type: ignore[no-untyped-def]
        for d in range(D):
            z, z_tilde = e[RANK, d, 0], e[RANK, d, 1]
            z[:] = LAST
            z_tilde[:] = LAST
            for i in range(C - 1):
                words(c.buf, d * (C - 1) + i, tag, c)
                for l in range(L):
                    word, p = np.uint64(c.buf[l]), sigmoid(e[NODE, d, i, S * l])
                    z[l] = R(i) if (z[l] == LAST) & (u(LAST_WORD - word) < p) else z[l]
                    z_tilde[l] = R(i) if (z_tilde[l] == LAST) & (u(word) < p) else z_tilde[l]
            for a in range(C):
                for l in range(L):
                    x[0, d, a, l] = ZERO
                    x[1, d, a, l] = ZERO
            for i in range(C):
                for a in range(C):
                    for l in range(L):
                        here = e[PLACE, d, i, S * l] == R(a)
                        x[0, d, a, l] += ONE if here & (z[l] == R(i)) else ZERO
                        x[1, d, a, l] += ONE if here & (z_tilde[l] == R(i)) else ZERO

    return walk


def shared_and_own(at: Lanes) -> Function:
    """`add(g, x, e, delta, spare, d, c)`: g_d += delta (da/dl)' h, h_i of the nodes as in the torch form.

    (da/dl)' h from the first place to the last, G_i the derivative in A_i: G_0 = 0, g_i = h_i + G_i sigmoid(a_i) and
    G_{i+1} = G_i sigmoid(-a_i) - h_i, but at the last place g_i = G_i.
    """
    C, L, S, R, sigmoid = at.shape.event[1], at.L, at.S, at.be.real, vmath.sigmoid(at.be)
    ZERO, ONE = R(0), R(1)

    @at.be.jit
    def add(g, x, e, delta, spare, d, c):  # type: ignore[no-untyped-def]
        G, own = spare[0], spare[1]
        z, z_tilde = e[RANK, d, 0], e[RANK, d, 1]
        G[:] = ZERO
        for i in range(C):
            for l in range(L):
                a = e[NODE, d, i, S * l]
                one, zero = sigmoid(a), sigmoid(-a)
                used, used_tilde = z[l] >= R(i), z_tilde[l] >= R(i)
                left, left_tilde = z[l] == R(i), z_tilde[l] == R(i)
                s, s_tilde = zero if left else -one, zero if left_tilde else -one
                sure = one if a > ZERO else zero
                pair = ((ONE if left else ZERO) - (ONE if left_tilde else ZERO)) * sure
                h = (pair if used_tilde else s) if used else (-s_tilde if used_tilde else ZERO)
                own[l] = G[l] if i == C - 1 else h + G[l] * one
                G[l] = G[l] * zero - h
            for b in range(C):
                for l in range(L):
                    g[d * C + b, l] += delta[l] * own[l] if e[PLACE, d, i, S * l] == R(b) else ZERO

    return add


def reweighted(at: Lanes) -> Function:
    """`add(g, x, e, delta, spare, d, c)`: g_d += delta w (z - z~), w the importance weight of the pair.

    w = prod_{i < min} (1 - sigma_i)^2 / (1 - 2 sigma_i) sigmoid(|a_min|), min the lower place of the two. Of the last node nothing
    is asked but where z and z~ differ there.
    """
    C, L, S, R, sigmoid = at.shape.event[1], at.L, at.S, at.be.real, vmath.sigmoid(at.be)
    ONE = R(1)

    @at.be.jit
    def add(g, x, e, delta, spare, d, c):  # type: ignore[no-untyped-def]
        w = spare[0]
        z, z_tilde = e[RANK, d, 0], e[RANK, d, 1]
        w[:] = ONE
        for i in range(C - 1):
            for l in range(L):
                a = e[NODE, d, i, S * l]
                one, zero = sigmoid(a), sigmoid(-a)
                least = z[l] if z[l] < z_tilde[l] else z_tilde[l]
                both_zero = zero * zero / (zero - one) if zero > one else ONE
                w[l] *= both_zero if least > R(i) else (zero if least == R(i) else ONE)
        for b in range(C):
            for l in range(L):
                g[d * C + b, l] += delta[l] * w[l] * (x[0, d, b, l] - x[1, d, b, l])

    return add


def disarm_categorical(samples: int, form: str, order: str) -> Form:
    """g = mean over pairs of 1/2 (f(z) - f(z~)) (da/dl)' h, or of 1/2 (f(z) - f(z~)) w (z - z~) with form=importance_weighted."""
    assert form != "tree"
    m = samples // 2

    def build(at: Lanes) -> Function:
        D, L, R, f, credit = at.D, at.L, at.be.real, at.f, at.credit
        lay, walk = laid_out(at, order), walked(at)
        add = reweighted(at) if form == "importance_weighted" else shared_and_own(at)
        share, half_m, ZERO = R(1 / samples), R(0.5 / m), R(0)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            g[:] = ZERO
            delta, f_tilde, weight, spare = r[0], r[1], r[2], r[3:5]
            weight[:] = share
            lay(e, c)
            for k in range(m):
                walk(x, e, k, c)
                f(delta, x[0], c)
                f(f_tilde, x[1], c)
                credit(x[0], weight, c)
                credit(x[1], weight, c)
                for l in range(L):
                    delta[l] = half_m * (delta[l] - f_tilde[l])
                for d in range(D):
                    add(g, x, e, delta, spare, d, c)

        return estimate

    return Form(3, 5, build, families=("categorical",))
