"""lax and dlax in lanes: a network of the sample, or of the relaxed variable that is rounded to it."""

from __future__ import annotations

from estimators.kernels import vmath
from estimators.kernels.backend import Function
from estimators.kernels.base import Form, Lanes
from estimators.kernels.families import LOGIT, THETA
from estimators.kernels.rebar import network, weights_of
from estimators.kernels.relaxation import FAMILIES, entry, one_hot, relaxation


def lax(hidden: int, steps: int, lr: float) -> Form:
    """g = [f(x) - c(x)] grad log q(x) + (dx/dtheta)' c'(x)."""

    def build(at: Lanes) -> Function:
        L, R, f, sample, score, path, credit = at.L, at.be.real, at.f, at.q.sample, at.q.score, at.q.path, at.credit
        net = network(at, hidden, 1, 0)
        assert path is not None
        ZERO, ONE = R(0), R(1)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            fx, cx, units, dc = r[0], r[1], r[2:], e[1]
            g[:] = ZERO
            sample(x[0], e[0], 0, c)
            net(cx, dc, x[0], units, c)
            f(fx, x[0], c)
            for l in range(L):
                fx[l] = fx[l] - cx[l]
            score(g, x[0], fx, c)
            path(g, x[0], dc, c)
            fx[:] = ONE
            credit(x[0], fx, c)

        return estimate

    return Form(2, 2 + hidden, build, families=("normal",), state=weights_of)


def dlax(hidden: int, steps: int, lr: float) -> Form:
    """g = f(b) grad log q(b) - c(z) grad log q(z) + d/dl c(z)."""

    def build(at: Lanes) -> Function:
        L, R, f, score, credit, P, of = (
            at.L,
            at.be.real,
            at.f,
            at.q.score,
            at.credit,
            at.shape.P,
            entry(at.be, at.shape),
        )
        (_, draw, soft, jacobian), net, relaxed_score = relaxation(at), network(at, hidden), score_of_relaxed(at)
        ZERO, ONE = R(0), R(1)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            b, z, s, dc, fx, cz, units = x[0], x[1], e[0], e[1], r[0], r[1], r[2:]
            g[:] = ZERO
            draw(b, z, 0, c)
            relaxed_score(s, z, c)
            soft(z, ONE, fx, cz)
            net(cz, dc, z, units, c)
            f(fx, b, c)
            score(g, b, fx, c)
            for i in range(P):
                s_i = of(s, i)
                for l in range(L):
                    g[i, l] -= cz[l] * s_i[l]
            jacobian(g, z, dc, ONE, fx)
            fx[:] = ONE
            credit(b, fx, c)

        return estimate

    return Form(2, 2 + hidden, build, families=FAMILIES, state=weights_of)


def score_of_relaxed(at: Lanes) -> Function:
    """`score(out, z, c)`: 2 sigmoid(z - l) - 1 of the logistic, 1 - exp(l - z) of the Gumbel distribution."""
    D, C, L, S, R = at.D, at.shape.event[-1], at.L, at.S, at.be.real
    exp, sigmoid, ONE, TWO = vmath.exp(at.be), vmath.sigmoid(at.be), R(1), R(2)

    @at.be.jit
    def of_bits(out, z, c):  # type: ignore[no-untyped-def]
        for d in range(D):
            for l in range(L):
                out[d, l] = TWO * sigmoid(z[d, l] - c.par[LOGIT, d, S * l]) - ONE

    @at.be.jit
    def of_categories(out, z, c):  # type: ignore[no-untyped-def]
        for d in range(D):
            for i in range(C):
                for l in range(L):
                    out[d, i, l] = ONE - exp(c.par[THETA, d, i, S * l] - z[d, i, l])

    return of_categories if one_hot(at.shape) else of_bits
