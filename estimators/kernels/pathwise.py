"""pathwise in lanes."""

from __future__ import annotations

from estimators.kernels.backend import Function
from estimators.kernels.base import Form, Lanes


def pathwise(samples: int) -> Form:
    """g = 1/K sum_k (dx_k/dtheta)' grad f(x_k)."""

    def build(at: Lanes) -> Function:
        D, L, R, sample, path, df, credit = at.D, at.L, at.be.real, at.q.sample, at.q.path, at.df, at.credit
        assert path is not None
        one_K, ZERO = R(1 / samples), R(0)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            g[:] = ZERO
            r[0, :] = one_K
            for k in range(samples):
                sample(x[0], e[0], k, c)
                df(e[0], x[0], c)
                for d in range(D):
                    for l in range(L):
                        e[0, d, l] *= one_K
                path(g, x[0], e[0], c)
                credit(x[0], r[0], c)

        return estimate

    return Form(1, 1, build, gradient=True, families=("normal",))
