"""bitflip-1 and UGC in lanes: a second point with one bit turned, another in every lane."""

from __future__ import annotations

from estimators.kernels import vmath
from estimators.kernels.antithetic import pair
from estimators.kernels.backend import Function
from estimators.kernels.base import INDEX, Form, Lanes
from estimators.kernels.families import LOG_NORM, LOGIT, SURE, P
from estimators.kernels.philox import uniform


def flipped(at: Lanes) -> Function:
    """`flipped(x, b, c)`: x = b with bit j turned, j = floor(D u), u of the second noise."""
    D, L, R, words, u = at.D, at.L, at.be.real, at.words, uniform(at.be)
    ONE, ALL, LAST = R(1), R(D), R(D - 0.5)

    @at.be.jit
    def flipped(x, b, c):  # type: ignore[no-untyped-def]
        words(c.buf, 0, 1 << INDEX, c)
        for d in range(D):
            for l in range(L):
                place = ALL * u(c.buf[l])
                place = place if place < LAST else LAST
                here = (place >= R(d)) & (place < R(d + 1))
                x[d, l] = ONE - b[d, l] if here else b[d, l]

    return flipped


def slope(at: Lanes) -> Function:
    """`scale(par, d, l)`: D p_d (1 - p_d)."""
    exp, ALL = vmath.exp(at.be), at.be.real(at.D)

    @at.be.jit
    def scale(par, d, l):  # type: ignore[no-untyped-def]
        return ALL * (par[P, d, l] * exp(-par[LOG_NORM, d, l]))  # 1 - p = e^{-log(1 + e^theta)}

    return scale


def bitflip() -> Form:
    """g_j = D p_j (1 - p_j) (-1)^{b_j} (f(flip_j b) - f(b)), and 0 in the other coordinates."""

    def build(at: Lanes) -> Function:
        D, L, S, R, sample, f, credit = at.D, at.L, at.S, at.be.real, at.q.sample, at.f, at.credit
        turn, scale, shared, ONE = flipped(at), slope(at), at.L if at.S else 1, R(1)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            b, flip, f_b, f_flip, times = x[0], x[1], r[0], r[1], r[2]
            sample(b, e[0], 0, c)
            turn(flip, b, c)
            f(f_b, b, c)
            f(f_flip, flip, c)
            times[:] = ONE
            credit(b, times, c)
            for d in range(D):
                for l in range(shared):
                    times[l] = scale(c.par, d, l)
                for l in range(L):
                    g[d, l] = times[S * l] * (flip[d, l] - b[d, l]) * (f_flip[l] - f_b[l])

        return estimate

    return Form(2, 3, build, families=("bernoulli",))


def ugc(clip: float) -> Form:
    """g_d: bitflip-1 where m = min(p, 1 - p) < clip / D, 1/2 (f(b) - f(b~)) (b_d - b~_d) sigmoid(|theta_d|) elsewhere."""

    def build(at: Lanes) -> Function:
        D, L, S, R, f, credit = at.D, at.L, at.S, at.be.real, at.f, at.credit
        draw, turn, scale, shared = pair(at), flipped(at), slope(at), at.L if at.S else 1
        tau, ZERO, ONE, HALF = R(clip / at.D), R(0), R(1), R(0.5)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            b, b_tilde, flip, f_b, f_tilde, f_flip, times = x[0], x[1], x[2], r[0], r[1], r[2], r[3]
            draw(b, b_tilde, 0, c)
            turn(flip, b, c)
            f(f_b, b, c)
            f(f_tilde, b_tilde, c)
            f(f_flip, flip, c)
            times[:] = HALF
            credit(b, times, c)
            credit(b_tilde, times, c)
            for d in range(D):
                for l in range(shared):
                    times[l] = scale(c.par, d, l)
                for l in range(L):
                    p = c.par[P, d, S * l]
                    m = p if c.par[LOGIT, d, S * l] < ZERO else ONE - p
                    turned = times[S * l] * (flip[d, l] - b[d, l]) * (f_flip[l] - f_b[l])
                    paired = HALF * (f_b[l] - f_tilde[l]) * (b[d, l] - b_tilde[d, l]) * c.par[SURE, d, S * l]
                    g[d, l] = turned if m < tau else paired

        return estimate

    return Form(3, 4, build, families=("bernoulli",))
