"""gumbel_softmax, gumbel_straight_through and gumbel_rao in lanes."""

from __future__ import annotations

from estimators.kernels.backend import Function
from estimators.kernels.base import Form, Lanes
from estimators.kernels.conditional_relaxation import V, conditioned
from estimators.kernels.relaxation import FAMILIES, passed_back, relaxation


def gumbel_softmax(temperature: float) -> Form:
    """g = 1/tau J(y) grad f(y), y = softmax((theta + G) / tau); the value is f(y)."""

    def points(at: Lanes) -> Function:
        (perturbed, _, soft, _), one_tau = relaxation(at), at.be.real(1 / temperature)

        @at.be.jit
        def make(x, e, r, c):  # type: ignore[no-untyped-def]
            perturbed(x[0], 0, c)
            soft(x[0], one_tau, r[0], r[1])

        return make

    return passed_back(points, 1 / temperature, soft=True)


def gumbel_straight_through(temperature: float) -> Form:
    """g = 1/tau J(y) grad f(x), x the sample made of the noise of y."""

    def points(at: Lanes) -> Function:
        (_, draw, soft, _), one_tau = relaxation(at), at.be.real(1 / temperature)

        @at.be.jit
        def make(x, e, r, c):  # type: ignore[no-untyped-def]
            draw(x[0], x[1], 0, c)
            soft(x[1], one_tau, r[0], r[1])

        return make

    return passed_back(points, 1 / temperature)


def gumbel_rao(temperature: float, samples: int) -> Form:
    """g = 1/M sum_m 1/tau J(y_m) grad f(x), y_m = softmax(z_m / tau), z_m given x from noise of its own."""

    def build(at: Lanes) -> Function:
        R, sample, df, credit, z_given = at.be.real, at.q.sample, at.df, at.credit, conditioned(at).z
        (_, _, soft, jacobian), one_tau, w = relaxation(at), R(1 / temperature), R(1 / (temperature * samples))
        ZERO, ONE = R(0), R(1)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            g[:] = ZERO
            sample(x[0], e[0], 0, c)
            df(e[0], x[0], c)
            for m in range(samples):
                z_given(x[1], e[1], x[0], V + m, r[0], c)
                soft(x[1], one_tau, r[0], r[1])
                jacobian(g, x[1], e[0], w, r[0])
            r[0, :] = ONE
            credit(x[0], r[0], c)

        return estimate

    return Form(2, 2, build, gradient=True, families=FAMILIES)
