"""straight_through and reinmax in lanes."""

from __future__ import annotations

from estimators.kernels.backend import Function
from estimators.kernels.base import Form, Lanes
from estimators.kernels.families import LOGIT, THETA
from estimators.kernels.relaxation import FAMILIES, entry, mean_of, one_hot, relaxation, soft_bits, soft_categories


def straight_through() -> Form:
    """g = (d mean / d theta)' grad f(x)."""

    def build(at: Lanes) -> Function:
        R, sample, df, credit, pull = at.be.real, at.q.sample, at.df, at.credit, mean_of(at).pull
        ZERO, ONE = R(0), R(1)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            g[:] = ZERO
            sample(x[0], e[0], 0, c)
            df(e[0], x[0], c)
            pull(g, e[0], ONE, r[0], c)
            r[0, :] = ONE
            credit(x[0], r[0], c)

        return estimate

    return Form(1, 1, build, gradient=True, families=FAMILIES)


def reinmax(temperature: float) -> Form:
    """g = 2 J(pi) grad f(x) - 1/2 J(p) grad f(x), pi = 1/2 (softmax(theta / tau) + x), p = softmax(theta)."""

    def build(at: Lanes) -> Function:
        L, S, R, P, sample, df, credit = at.L, at.S, at.be.real, at.shape.P, at.q.sample, at.df, at.credit
        of, tempered, jacobian, pull = entry(at.be, at.shape), soft_mean(at), relaxation(at).jacobian, mean_of(at).pull
        one_tau, ZERO, HALF, ONE, TWO = R(1 / temperature), R(0), R(0.5), R(1), R(2)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            g[:] = ZERO
            sample(x[0], e[0], 0, c)
            tempered(e[1], one_tau, r[0], r[1], c)
            for i in range(P):
                pi, b, y = of(x[1], i), of(x[0], i), of(e[1], i)
                for l in range(L):
                    pi[l] = HALF * (y[S * l] + b[l])
            df(e[0], x[0], c)
            jacobian(g, x[1], e[0], TWO, r[0])
            pull(g, e[0], -HALF, r[0], c)
            r[0, :] = ONE
            credit(x[0], r[0], c)

        return estimate

    return Form(2, 2, build, gradient=True, families=FAMILIES)


def soft_mean(at: Lanes) -> Function:
    """`tempered(y, scale, a, b, c)`: y = softmax(scale theta), to be read at `S * l`: the lanes that share theta share it."""
    P, of, lanes = at.shape.P, entry(at.be, at.shape), at.L if at.S else 1
    if one_hot(at.shape):
        soft, logit = soft_categories(at.be, at.D, at.shape.event[-1], lanes), THETA
    else:
        soft, logit = soft_bits(at.be, at.D, lanes), LOGIT

    @at.be.jit
    def tempered(y, scale, a, b, c):  # type: ignore[no-untyped-def]
        for i in range(P):
            to, theta = of(y, i), of(c.par[logit], i)
            for l in range(lanes):
                to[l] = theta[l]
        soft(y, scale, a, b)

    return tempered
