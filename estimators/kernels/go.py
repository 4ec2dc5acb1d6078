"""go in lanes: f with one more in each site at a time."""

from __future__ import annotations

from estimators.kernels.backend import Function
from estimators.kernels.base import Form, Lanes
from estimators.kernels.families import PROBABILITY, P
from estimators.kernels.local_expectation import of_draws


def go(samples: int) -> Form:
    """g_d = 1/K sum_k -dF_d(z_kd)/dtheta / q_d(z_kd) [f(z_k with z_kd + 1) - f(z_k)]."""
    return of_draws(samples, bits, categories, rows=6)


def bits(at: Lanes) -> Function:
    """`climb(g, z, r, w, c)`: g_d += w p_d 1[z_d = 0] (f(z with z_d = 1) - f(z)); f(z) is in r[0]."""
    D, L, S, R, moved = at.D, at.L, at.S, at.be.real, at.moved
    ONE = R(1)

    @at.be.jit
    def climb(g, z, r, w, c):  # type: ignore[no-untyped-def]
        fz, up, v = r[0], r[1], r[2]
        v[:] = ONE
        for d in range(D):
            moved(up, z, d, v, c)
            for l in range(L):
                g[d, l] += w * ((ONE - z[d, l]) * c.par[P, d, S * l]) * (up[l] - fz[l])

    return climb


def categories(at: Lanes) -> Function:
    """`climb(g, z, r, w, c)`: g_dc += w -(1[c <= z_d] - F(z_d)) p_dc / q(z_d) (f(z with z_d + 1) - f(z)); f(z) is in r[0]."""
    (D, C), L, S, R, moved = at.shape.event, at.L, at.S, at.be.real, at.moved
    ZERO, ONE, LAST = R(0), R(1), R(C - 1)

    @at.be.jit
    def climb(g, z, r, w, c):  # type: ignore[no-untyped-def]
        fz, up, v, after, below, above = r[0], r[1], r[2], r[3], r[4], r[5]
        for d in range(D):
            v[:] = ZERO
            for i in range(1, C):
                for l in range(L):
                    v[l] += R(i) * z[d, i, l]
            for l in range(L):
                after[l] = v[l] + ONE if v[l] < LAST else LAST
            moved(up, z, d, after, c)
            below[:] = ZERO
            above[:] = ZERO
            for i in range(C):
                for l in range(L):
                    p = c.par[PROBABILITY, d, i, S * l]
                    below[l] += p if R(i) <= v[l] else ZERO
                    above[l] += ZERO if R(i) <= v[l] else p
            for l in range(L):
                own = ZERO
                for i in range(C):
                    own += z[d, i, l] * c.par[PROBABILITY, d, i, S * l]
                up[l] = w * (up[l] - fz[l]) / own
            for i in range(C):
                for l in range(L):
                    weight = -above[l] if R(i) <= v[l] else below[l]
                    g[d * C + i, l] += weight * c.par[PROBABILITY, d, i, S * l] * up[l]

    return climb
