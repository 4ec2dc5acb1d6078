"""ARS and ARSM in lanes: samples with two entries of the Gumbel noise swapped in every site; G_c = -log e_c, pi = e / sum_c e_c."""

from __future__ import annotations

from estimators.kernels import vmath
from estimators.kernels.backend import Function
from estimators.kernels.base import INDEX, Form, Lanes, Shape
from estimators.kernels.families import THETA
from estimators.kernels.importance_weighted import log_add
from estimators.kernels.philox import uniform


def categories(shape: Shape) -> int:
    """C."""
    return shape.event[1]


def chosen(at: Lanes) -> Function:
    """`choose(x, e, i, j, c)`: argmax_c l_c + G_c, the first where there are several, after the swap of G_i and G_j."""
    (D, C), L, S, R = at.shape.event, at.L, at.S, at.be.real
    ZERO, ONE = R(0), R(1)

    @at.be.jit
    def choose(x, e, i, j, c):  # type: ignore[no-untyped-def]
        for d in range(D):
            for l in range(L):
                best, place = c.par[THETA, d, 0, S * l] + e[d, j if i == 0 else 0, l], ZERO
                for a in range(1, C):
                    z = c.par[THETA, d, a, S * l] + e[d, j if a == i else (i if a == j else a), l]
                    place = R(a) if z > best else place
                    best = z if z > best else best
                for a in range(C):
                    x[d, a, l] = ONE if place == R(a) else ZERO

    return choose


def to_dirichlet(at: Lanes) -> Function:
    """`dirichlet(e)`: the Gumbel noise becomes pi = softmax(-G)."""
    (D, C), L, R, exp = at.shape.event, at.L, at.be.real, vmath.exp(at.be)
    ZERO, ONE = R(0), R(1)

    @at.be.jit
    def dirichlet(e):  # type: ignore[no-untyped-def]
        for d in range(D):
            for l in range(L):
                total = ZERO
                for a in range(C):
                    e[d, a, l] = exp(-e[d, a, l])
                    total += e[d, a, l]
                total = ONE / total
                for a in range(C):
                    e[d, a, l] *= total

    return dirichlet


def arsm(plus: bool, unique: bool) -> Form:
    """g_{d,i} = sum_j (F_ij - 1/C sum_m F_mj) (1/C - pi_{d,j}), F_ij = f(z^{i<->j}).

    plus: the sum of those j alone for which some swap with j moves the site.
    """
    assert not unique

    def build(at: Lanes) -> Function:
        (D, C), L, R, sample, f, credit = at.shape.event, at.L, at.be.real, at.q.sample, at.f, at.credit
        choose, dirichlet, K = chosen(at), to_dirichlet(at), 1 + C * (C - 1) // 2
        one_C, share, ZERO, ONE = R(1 / C), R(1 / K), R(0), R(1)

        @at.be.jit
        def note(turned, z, before, i, j):  # type: ignore[no-untyped-def]
            """turned[d, i] = turned[d, j] = 1 where the swap of i and j has moved site d from `before` to z."""
            for d in range(D):
                for l in range(L):
                    same = ZERO
                    for a in range(C):
                        same += z[d, a, l] * before[d, a, l]
                    turned[d, i, l] = turned[d, i, l] if same > ZERO else ONE
                    turned[d, j, l] = turned[d, j, l] if same > ZERO else ONE

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            z, noise, turned, F, mean, weight = x[0], e[0], e[1], r[:K], r[K : K + C], r[K + C]
            weight[:] = share
            turned[:] = ZERO if plus else ONE
            sample(z, noise, 0, c)
            f(F[0], z, c)
            credit(z, weight, c)
            for j in range(C):
                for l in range(L):
                    mean[j, l] = one_C * F[0, l]
            k = 0
            for i in range(C):
                for j in range(i + 1, C):
                    k += 1
                    choose(x[1], noise, i, j, c)
                    f(F[k], x[1], c)
                    credit(x[1], weight, c)
                    if plus:
                        note(turned, x[1], z, i, j)
                    for l in range(L):
                        mean[i, l] += one_C * F[k, l]
                        mean[j, l] += one_C * F[k, l]
            dirichlet(noise)
            g[:] = ZERO
            for i in range(C):
                for j in range(C):
                    low, high = (i, j) if i < j else (j, i)
                    k = 0 if i == j else 1 + low * (2 * C - low - 1) // 2 + high - low - 1
                    for l in range(L):
                        weight[l] = F[k, l] - mean[j, l]
                    for d in range(D):
                        for l in range(L):
                            g[d * C + i, l] += weight[l] * (one_C - noise[d, j, l]) * turned[d, j, l]

        return estimate

    def rows(shape: Shape) -> int:
        C = categories(shape)
        return 2 + C * (C - 1) // 2 + C

    return Form(2, rows, build, families=("categorical",))


def ars(plus: bool, unique: bool) -> Form:
    """g_{d,i} = (F_i - 1/C sum_m F_m) (1 - C pi_{d,j}), F_m = f(z^{m<->j}), j drawn for every lane.

    plus: of the mean of pi_{d,j} = t / sum_c e_c, t uniform between bounds that every m narrows.
    """
    assert not unique

    def build(at: Lanes) -> Function:
        (D, C), L, R, sample, f, credit = at.shape.event, at.L, at.be.real, at.q.sample, at.f, at.credit
        refer, choose, dirichlet, narrow = references(at), chosen_with(at), to_dirichlet(at), narrowed(at)
        one_C, ALL, HALF, ZERO, ONE = R(1 / C), R(C), R(0.5), R(0), R(1)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            z, noise, bounds, F, mean, weight, j, other = x[0], e[0], e[1], r[:C], r[C], r[C + 1], r[C + 2], r[C + 3]
            weight[:] = one_C
            mean[:] = ZERO
            refer(j, other, c)
            sample(z, noise, 0, c)
            if plus:
                for d in range(D):
                    bounds[d, 0, :] = ZERO
                    bounds[d, 1, :] = ONE
            for m in range(C):
                choose(z, noise, m, j, c)
                f(F[m], z, c)
                credit(z, weight, c)
                if plus:
                    narrow(bounds, z, noise, m, j, other, c)
                for l in range(L):
                    mean[l] += one_C * F[m, l]
            dirichlet(noise)
            for d in range(D):
                weight[:] = ZERO
                for a in range(C):
                    for l in range(L):
                        weight[l] += noise[d, a, l] if (j[l] == R(a)) | (plus & (other[l] == R(a))) else ZERO
                if plus:
                    for l in range(L):
                        weight[l] *= HALF * (bounds[d, 0, l] + bounds[d, 1, l])
                for i in range(C):
                    for l in range(L):
                        g[d * C + i, l] = (F[i, l] - mean[l]) * (ONE - ALL * weight[l])

        return estimate

    return Form(2, lambda shape: categories(shape) + 4, build, families=("categorical",))


def narrowed(at: Lanes) -> Function:
    """`narrow(bounds, z, e, m, j, other, c)`: what z = z^{m<->j} says of t / s, between bounds[d, 0] and bounds[d, 1].

    s = e_j + e_l, t = e_j, which after the swap stands at m, and s - t at p = l, or at j where m = l. With M the least
    e_c e^{-l_c} of the other places: m wins where t / s < min(M e^{l_m} / s, q), q = sigmoid(l_m - l_p), p where
    t / s > max(1 - M e^{l_p} / s, q), and another between M e^{l_m} / s and 1 - M e^{l_p} / s. e: the Gumbel noise, e_c = e^{-G_c}.
    """
    (D, C), L, S, R = at.shape.event, at.L, at.S, at.be.real
    exp, sigmoid, join = vmath.exp(at.be), vmath.sigmoid(at.be), log_add(at.be)
    ZERO, ONE, FAR = R(0), R(1), R(1e30)

    @at.be.jit
    def narrow(bounds, z, e, m, j, other, c):  # type: ignore[no-untyped-def]
        for d in range(D):
            for l in range(L):
                G_j, G_l, G_m, l_m, l_j, l_l = ZERO, ZERO, e[d, m, l], c.par[THETA, d, m, S * l], ZERO, ZERO
                for a in range(C):
                    G_j = e[d, a, l] if j[l] == R(a) else G_j
                    l_j = c.par[THETA, d, a, S * l] if j[l] == R(a) else l_j
                    G_l = e[d, a, l] if other[l] == R(a) else G_l
                    l_l = c.par[THETA, d, a, S * l] if other[l] == R(a) else l_l
                at_l = other[l] == R(m)
                p, l_p = (j[l], l_j) if at_l else (other[l], l_l)
                log_M, m_wins, p_wins = FAR, z[d, m, l] > ZERO, False
                for a in range(C):
                    G = G_m if j[l] == R(a) else e[d, a, l]
                    own = -G - c.par[THETA, d, a, S * l]
                    log_M = own if (own < log_M) & (a != m) & (p != R(a)) else log_M
                    p_wins = p_wins | ((p == R(a)) & (z[d, a, l] > ZERO))
                log_M -= join(-G_j, -G_l)
                of_m, of_p, between = exp(log_M + l_m), ONE - exp(log_M + l_p), sigmoid(l_m - l_p)
                low = ZERO if m_wins else ((of_p if of_p > between else between) if p_wins else of_m)
                high = (of_m if of_m < between else between) if m_wins else (ONE if p_wins else of_p)
                bounds[d, 0, l] = low if low > bounds[d, 0, l] else bounds[d, 0, l]
                bounds[d, 1, l] = high if high < bounds[d, 1, l] else bounds[d, 1, l]

    return narrow


def references(at: Lanes) -> Function:
    """`refer(j, other, c)`: j = floor(C u), other = (j + 1 + floor((C - 1) v)) mod C, u and v of the second noise."""
    C, L, R, words, u = at.shape.event[1], at.L, at.be.real, at.words, uniform(at.be)
    ZERO, ONE, ALL, REST = R(0), R(1), R(C), R(C - 1)

    @at.be.jit
    def refer(j, other, c):  # type: ignore[no-untyped-def]
        words(c.buf, 0, 1 << INDEX, c)
        j[:] = ZERO
        for l in range(L):
            place = ALL * u(c.buf[l])
            for a in range(1, C):
                j[l] = R(a) if place >= R(a) else j[l]
        words(c.buf, 0, (1 << INDEX) + 1, c)
        for l in range(L):
            place, after = REST * u(c.buf[l]), j[l] + ONE
            for a in range(1, C - 1):
                after += ONE if place >= R(a) else ZERO
            other[l] = after if after < ALL else after - ALL

    return refer


def chosen_with(at: Lanes) -> Function:
    """`choose(x, e, m, j, c)`: the same of m and a j of each lane's own."""
    (D, C), L, S, R = at.shape.event, at.L, at.S, at.be.real
    ZERO, ONE = R(0), R(1)

    @at.be.jit
    def choose(x, e, m, j, c):  # type: ignore[no-untyped-def]
        for d in range(D):
            for l in range(L):
                G_j = e[d, 0, l]
                for a in range(1, C):
                    G_j = e[d, a, l] if j[l] == R(a) else G_j
                swapped = G_j if m == 0 else (e[d, m, l] if j[l] == ZERO else e[d, 0, l])
                best, place = c.par[THETA, d, 0, S * l] + swapped, ZERO
                for a in range(1, C):
                    swapped = G_j if m == a else (e[d, m, l] if j[l] == R(a) else e[d, a, l])
                    z = c.par[THETA, d, a, S * l] + swapped
                    place = R(a) if z > best else place
                    best = z if z > best else best
                for a in range(C):
                    x[d, a, l] = ONE if place == R(a) else ZERO

    return choose
