"""local_expectation in lanes: f with one site changed, for every site and each of its other values."""

from __future__ import annotations

from collections.abc import Callable

from estimators.kernels import vmath
from estimators.kernels.backend import Function
from estimators.kernels.base import Form, Lanes
from estimators.kernels.families import LOG_NORM, PROBABILITY, P


def local_expectation(samples: int) -> Form:
    """g_d = 1/K sum_k sum_v q_d(v) (f(z_k with z_kd = v) - f(z_k)) grad log q_d(v), v all values but z_kd."""
    return of_draws(samples, bits, categories, rows=5)


def of_draws(
    samples: int, bits: Callable[[Lanes], Function], categories: Callable[[Lanes], Function], rows: int
) -> Form:
    """`add(g, z, r, 1/K, c)`, made by `bits` or `categories`, for each of K draws z; f(z) is in r[0], and `moved` starts from z."""

    def build(at: Lanes) -> Function:
        one_K, ZERO = at.be.real(1 / samples), at.be.real(0)
        sample, f, begin, credit = at.q.sample, at.f, at.begin, at.credit
        add = categories(at) if len(at.shape.event) == 2 else bits(at)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            g[:] = ZERO
            z = x[0]
            for k in range(samples):
                sample(z, e[0], k, c)
                r[0, :] = one_K
                credit(z, r[0], c)
                f(r[0], z, c)
                begin(z, c)
                add(g, z, r, one_K, c)

        return estimate

    return Form(1, rows, build, families=("bernoulli", "categorical"))


def bits(at: Lanes) -> Function:
    """`sum(g, z, r, w, c)`: g_d += w p_d (1 - p_d) (f(z with z_d = 1) - f(z with z_d = 0)); f(z) is in r[0]."""
    D, L, S, R, moved, exp = at.D, at.L, at.S, at.be.real, at.moved, vmath.exp(at.be)
    ONE, TWO, shared = R(1), R(2), L if S else 1

    @at.be.jit
    def sum_(g, z, r, w, c):  # type: ignore[no-untyped-def]
        fz, other, v, slope = r[0], r[1], r[2], r[3]
        for d in range(D):
            for l in range(L):
                v[l] = ONE - z[d, l]
            for l in range(shared):
                slope[l] = w * (c.par[P, d, l] * exp(-c.par[LOG_NORM, d, l]))  # 1 - p = e^{-log(1 + e^theta)}
            moved(other, z, d, v, c)
            for l in range(L):
                g[d, l] += slope[S * l] * (TWO * v[l] - ONE) * (other[l] - fz[l])

    return sum_


def categories(at: Lanes) -> Function:
    """`sum(g, z, r, w, c)`: with w_v = w p_dv (f(z with z_d = v) - f(z)): g_dc += w_c - p_dc sum_v w_v; f(z) is in r[0].

    v: the C - 1 categories that follow the lane's own, the first after the last.
    """
    (D, C), L, S, R, moved = at.shape.event, at.L, at.S, at.be.real, at.moved
    ZERO, ONE, ALL = R(0), R(1), R(C)

    @at.be.jit
    def sum_(g, z, r, w, c):  # type: ignore[no-untyped-def]
        fz, other, v, weight, total = r[0], r[1], r[2], r[3], r[4]
        for d in range(D):
            v[:] = ZERO
            for i in range(1, C):
                for l in range(L):
                    v[l] += R(i) * z[d, i, l]
            total[:] = ZERO
            for _ in range(1, C):
                weight[:] = ZERO
                for l in range(L):
                    after = v[l] + ONE
                    v[l] = after if after < ALL else ZERO
                moved(other, z, d, v, c)
                for i in range(C):
                    for l in range(L):
                        weight[l] = c.par[PROBABILITY, d, i, S * l] if v[l] == R(i) else weight[l]
                for l in range(L):
                    weight[l] *= w * (other[l] - fz[l])
                    total[l] += weight[l]
                for i in range(C):
                    for l in range(L):
                        g[d * C + i, l] += weight[l] if v[l] == R(i) else ZERO
            for i in range(C):
                for l in range(L):
                    g[d * C + i, l] -= c.par[PROBABILITY, d, i, S * l] * total[l]

    return sum_
