"""gumbel_softmax and gumbel_straight_through in lanes."""

from __future__ import annotations

from estimators.kernels.backend import Function
from estimators.kernels.base import Form, Lanes
from estimators.kernels.relaxation import FAMILIES, relaxation


def gumbel_softmax(temperature: float) -> Form:
    """g = 1/tau J(y) grad f(y), y = softmax((theta + G) / tau); the value is f(y)."""

    def build(at: Lanes) -> Function:
        R, df, credit, (perturbed, _, soft, jacobian) = at.be.real, at.df, at.credit, relaxation(at)
        one_tau, ZERO, ONE = R(1 / temperature), R(0), R(1)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            g[:] = ZERO
            perturbed(x[0], 0, c)
            soft(x[0], one_tau, r[0], r[1])
            df(e[0], x[0], c)
            jacobian(g, x[0], e[0], one_tau, r[0])
            r[0, :] = ONE
            credit(x[0], r[0], c)

        return estimate

    return Form(1, 2, build, gradient=True, families=FAMILIES)


def gumbel_straight_through(temperature: float) -> Form:
    """g = 1/tau J(y) grad f(x), x the sample made of the noise of y."""

    def build(at: Lanes) -> Function:
        R, df, credit, (_, draw, soft, jacobian) = at.be.real, at.df, at.credit, relaxation(at)
        one_tau, ZERO, ONE = R(1 / temperature), R(0), R(1)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            g[:] = ZERO
            draw(x[0], x[1], 0, c)
            soft(x[1], one_tau, r[0], r[1])
            df(e[0], x[0], c)
            jacobian(g, x[1], e[0], one_tau, r[0])
            r[0, :] = ONE
            credit(x[0], r[0], c)

        return estimate

    return Form(2, 2, build, gradient=True, families=FAMILIES)
