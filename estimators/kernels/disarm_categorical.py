"""DisARM for categories in lanes: every site's categories laid out by their logits, l_0, ..., l_{C-1}, as the leaves of a tree.

A_n = log sum e^l over the leaves below node n, A = l of a leaf: A_n = log(e^{A_left} + e^{A_right}) and a_n = A_left - A_right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from estimators.kernels import vmath
from estimators.kernels.backend import Function
from estimators.kernels.base import Form, Lanes
from estimators.kernels.families import THETA
from estimators.kernels.importance_weighted import log_add
from estimators.kernels.philox import uniform
from estimators.trees import Node, balanced, stick

PLACE, SUM, NODE, LEAF = range(
    4
)  # of e: the category at every leaf; A_n, later d/dA_n; a_n; l, later the leaves of z and of z~


class Nodes(NamedTuple):
    """Of every node: where its leaves begin, part and end; and the nodes on its left and right, -1 where there is a leaf."""

    first: tuple[int, ...]
    middle: tuple[int, ...]
    last: tuple[int, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]


def nodes_of(tree: Sequence[Node]) -> Nodes:
    """The nodes as lane functions read them."""
    place = {(node.first, node.last): n for n, node in enumerate(tree)}
    left = tuple(place.get((node.first, node.middle), -1) for node in tree)
    right = tuple(place.get((node.middle, node.last), -1) for node in tree)
    first, middle, last = zip(*tree, strict=True)
    return Nodes(first, middle, last, left, right)


def laid_out(at: Lanes, order: str, nodes: Nodes) -> Function:
    """`lay(e, c)`: e[PLACE, d, i] = the category at leaf i, e[NODE, d, n] = a_n; at lane 0 alone where all lanes share theta."""
    (D, C), R, shared, join = at.shape.event, at.be.real, at.L if at.S else 1, log_add(at.be)
    first, middle, _, left, right = nodes
    sign, ZERO, ONE = {"ascending": R(1), "descending": R(-1), "given": R(0)}[order], R(0), R(1)

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
                        e[LEAF, d, i, l] = c.par[THETA, d, a, l] if place == R(i) else e[LEAF, d, i, l]
            for back in range(C - 1):
                n = C - 2 - back
                for l in range(shared):
                    A_left = e[SUM, d, left[n], l] if left[n] >= 0 else e[LEAF, d, first[n], l]
                    A_right = e[SUM, d, right[n], l] if right[n] >= 0 else e[LEAF, d, middle[n], l]
                    e[NODE, d, n, l] = A_left - A_right
                    e[SUM, d, n, l] = join(A_left, A_right)

    return lay


def walked(at: Lanes, nodes: Nodes) -> Function:
    """`walk(x, e, spare, tag, c)`: x[0] = z of the bits 1[1 - u < sigmoid(a)], x[1] = z~ of 1[u < sigmoid(a)].

    e[LEAF]: their leaves. spare: the first leaf to which z may come yet, and the one after the last; and z~.
    """
    LAST_WORD = np.uint64(0xFFFFFFFF)
    (D, C), L, S, R, words = at.shape.event, at.L, at.S, at.be.real, at.words
    u, sigmoid, (first, middle, last, _, _) = uniform(at.be), vmath.sigmoid(at.be), nodes
    ZERO, ONE, ALL = R(0), R(1), R(C)

    @at.be.jit
    def walk(x, e, spare, tag, c):  # type: ignore[no-untyped-def]
        low, high, low_tilde, high_tilde = spare[0], spare[1], spare[2], spare[3]
        for d in range(D):
            low[:] = ZERO
            high[:] = ALL
            low_tilde[:] = ZERO
            high_tilde[:] = ALL
            for n in range(C - 1):
                begin, part, end = R(first[n]), R(middle[n]), R(last[n])
                words(c.buf, d * (C - 1) + n, tag, c)
                for l in range(L):
                    word, p = np.uint64(c.buf[l]), sigmoid(e[NODE, d, n, S * l])
                    bit, bit_tilde = u(LAST_WORD - word) < p, u(word) < p
                    here = (low[l] == begin) & (high[l] == end)
                    here_tilde = (low_tilde[l] == begin) & (high_tilde[l] == end)
                    high[l] = part if here & bit else high[l]
                    low[l] = low[l] if bit | (not here) else part
                    high_tilde[l] = part if here_tilde & bit_tilde else high_tilde[l]
                    low_tilde[l] = low_tilde[l] if bit_tilde | (not here_tilde) else part
            for l in range(L):
                e[LEAF, d, 0, l] = low[l]
                e[LEAF, d, 1, l] = low_tilde[l]
            for a in range(C):
                for l in range(L):
                    x[0, d, a, l] = ZERO
                    x[1, d, a, l] = ZERO
            for i in range(C):
                for a in range(C):
                    for l in range(L):
                        here = e[PLACE, d, i, S * l] == R(a)
                        x[0, d, a, l] += ONE if here & (low[l] == R(i)) else ZERO
                        x[1, d, a, l] += ONE if here & (low_tilde[l] == R(i)) else ZERO

    return walk


def shared_and_own(at: Lanes, nodes: Nodes) -> Function:
    """`add(g, x, e, delta, spare, d)`: g_d += delta (da/dl)' h, h_n as in the torch form.

    From the root, whose dL/dA is nil, down: dL/dA_left = h_n + sigmoid(a_n) dL/dA_n, dL/dA_right = sigmoid(-a_n) dL/dA_n - h_n.
    """
    C, L, S, R, sigmoid = at.shape.event[1], at.L, at.S, at.be.real, vmath.sigmoid(at.be)
    first, middle, last, left, right = nodes
    ZERO, ONE = R(0), R(1)

    @at.be.jit
    def give(g, e, delta, slope, child, leaf, d):  # type: ignore[no-untyped-def]
        """To the node `child`; where that is -1, to the category at `leaf`."""
        if child >= 0:
            for l in range(L):
                e[SUM, d, child, l] = slope[l]
        else:
            for b in range(C):
                for l in range(L):
                    g[d * C + b, l] += delta[l] * slope[l] if e[PLACE, d, leaf, S * l] == R(b) else ZERO

    @at.be.jit
    def add(g, x, e, delta, spare, d):  # type: ignore[no-untyped-def]
        to_left, to_right, z, z_tilde = spare[0], spare[1], e[LEAF, d, 0], e[LEAF, d, 1]
        for l in range(L):
            e[SUM, d, 0, l] = ZERO
        for n in range(C - 1):
            begin, part, end = R(first[n]), R(middle[n]), R(last[n])
            for l in range(L):
                a, G = e[NODE, d, n, S * l], e[SUM, d, n, l]
                one, zero = sigmoid(a), sigmoid(-a)
                used, used_tilde = (z[l] >= begin) & (z[l] < end), (z_tilde[l] >= begin) & (z_tilde[l] < end)
                bit, bit_tilde = ONE if z[l] < part else ZERO, ONE if z_tilde[l] < part else ZERO
                s, s_tilde = zero if z[l] < part else -one, zero if z_tilde[l] < part else -one
                pair = (bit - bit_tilde) * (one if a > ZERO else zero)
                h = (pair if used_tilde else s) if used else (-s_tilde if used_tilde else ZERO)
                to_left[l] = h + one * G
                to_right[l] = zero * G - h
            give(g, e, delta, to_left, left[n], first[n], d)
            give(g, e, delta, to_right, right[n], middle[n], d)

    return add


def reweighted(at: Lanes, nodes: Nodes) -> Function:
    """`add(g, x, e, delta, spare, d)`: g_d += delta w (z - z~), w the importance weight of the pair, of stick breaking.

    w = prod_{i < min} (1 - sigma_i)^2 / (1 - 2 sigma_i) sigmoid(|a_min|), min the lower leaf of the two. Of the last node nothing
    is asked but where z and z~ differ there.
    """
    C, L, S, R, sigmoid, ONE = at.shape.event[1], at.L, at.S, at.be.real, vmath.sigmoid(at.be), at.be.real(1)

    @at.be.jit
    def add(g, x, e, delta, spare, d):  # type: ignore[no-untyped-def]
        w, z, z_tilde = spare[0], e[LEAF, d, 0], e[LEAF, d, 1]
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
    m = samples // 2

    def build(at: Lanes) -> Function:
        D, L, R, f, credit = at.D, at.L, at.be.real, at.f, at.credit
        nodes = nodes_of((balanced if form == "tree" else stick)(at.shape.event[1]))
        lay, walk = laid_out(at, order, nodes), walked(at, nodes)
        add = (reweighted if form == "importance_weighted" else shared_and_own)(at, nodes)
        share, half_m, ZERO = R(1 / samples), R(0.5 / m), R(0)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            g[:] = ZERO
            delta, f_tilde, weight, spare = r[0], r[1], r[2], r[3:7]
            weight[:] = share
            lay(e, c)
            for k in range(m):
                walk(x, e, spare, k, c)
                f(delta, x[0], c)
                f(f_tilde, x[1], c)
                credit(x[0], weight, c)
                credit(x[1], weight, c)
                for l in range(L):
                    delta[l] = half_m * (delta[l] - f_tilde[l])
                for d in range(D):
                    add(g, x, e, delta, spare, d)

        return estimate

    return Form(4, 7, build, families=("categorical",))
