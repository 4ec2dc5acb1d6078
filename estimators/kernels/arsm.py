"""ARS and ARSM in lanes: samples with two entries of the Gumbel noise swapped in every site; G_c = -log e_c, pi = e / sum_c e_c."""

from __future__ import annotations

from estimators.kernels import vmath
from estimators.kernels.backend import Function
from estimators.kernels.base import INDEX, Form, Lanes, Shape
from estimators.kernels.families import THETA
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
    """g_{d,i} = sum_j (F_ij - 1/C sum_m F_mj) (1/C - pi_{d,j}), F_ij = f(z^{i<->j})."""
    assert not plus
    assert not unique

    def build(at: Lanes) -> Function:
        (D, C), L, R, sample, f, credit = at.shape.event, at.L, at.be.real, at.q.sample, at.f, at.credit
        choose, dirichlet, K = chosen(at), to_dirichlet(at), 1 + C * (C - 1) // 2
        one_C, share, ZERO = R(1 / C), R(1 / K), R(0)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            z, noise, F, mean, weight = x[0], e[0], r[:K], r[K : K + C], r[K + C]
            weight[:] = share
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
                    choose(z, noise, i, j, c)
                    f(F[k], z, c)
                    credit(z, weight, c)
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
                            g[d * C + i, l] += weight[l] * (one_C - noise[d, j, l])

        return estimate

    def rows(shape: Shape) -> int:
        C = categories(shape)
        return 2 + C * (C - 1) // 2 + C

    return Form(1, rows, build, families=("categorical",))


def ars(plus: bool, unique: bool) -> Form:
    """g_{d,i} = (F_i - 1/C sum_m F_m) (1 - C pi_{d,j}), F_m = f(z^{m<->j}), j drawn for every lane."""
    assert not plus
    assert not unique

    def build(at: Lanes) -> Function:
        (D, C), L, R, sample, f, credit = at.shape.event, at.L, at.be.real, at.q.sample, at.f, at.credit
        refer, choose, dirichlet = reference(at), chosen_with(at), to_dirichlet(at)
        one_C, ALL, ZERO, ONE = R(1 / C), R(C), R(0), R(1)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            z, noise, F, j, mean, weight = x[0], e[0], r[:C], r[C], r[C + 1], r[C + 2]
            weight[:] = one_C
            mean[:] = ZERO
            refer(j, c)
            sample(z, noise, 0, c)
            for m in range(C):
                choose(z, noise, m, j, c)
                f(F[m], z, c)
                credit(z, weight, c)
                for l in range(L):
                    mean[l] += one_C * F[m, l]
            dirichlet(noise)
            for d in range(D):
                weight[:] = ZERO
                for a in range(C):
                    for l in range(L):
                        weight[l] = noise[d, a, l] if j[l] == R(a) else weight[l]
                for i in range(C):
                    for l in range(L):
                        g[d * C + i, l] = (F[i, l] - mean[l]) * (ONE - ALL * weight[l])

        return estimate

    return Form(1, lambda shape: categories(shape) + 3, build, families=("categorical",))


def reference(at: Lanes) -> Function:
    """`refer(j, c)`: j = floor(C u), u of the second noise."""
    C, L, R, words, u = at.shape.event[1], at.L, at.be.real, at.words, uniform(at.be)
    ZERO, ALL = R(0), R(C)

    @at.be.jit
    def refer(j, c):  # type: ignore[no-untyped-def]
        words(c.buf, 0, 1 << INDEX, c)
        j[:] = ZERO
        for l in range(L):
            place = ALL * u(c.buf[l])
            for a in range(1, C):
                j[l] = R(a) if place >= R(a) else j[l]

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
